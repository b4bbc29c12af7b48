"""Change contrast by a power of the intensities."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import flag, maybe, real
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ops.statistics import count as count_of
from medjax.ops.statistics import within
from medjax.ranges import Either, Range, either, leaf, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

LEAST = 1e-7  # what a range and a deviation are divided by at least


def moments(function: Callable[[Array], Array], x: Array, near: Array, mask: Array | None) -> tuple[Array, Array]:
    """Mean and deviation of the real voxels of each channel of function(x), whose mean is near `near`.

    On a CPU plane by plane, so that function(x) is not kept: to write a volume costs more than to take powers twice.
    """

    def sums(x: Array, mask: Array | None) -> tuple[Array, Array]:
        off = within(function(x) - near, mask, 0)
        return off.sum((1, 2, 3), keepdims=True), (off**2).sum((1, 2, 3), keepdims=True)

    def plane(i: Array) -> tuple[Array, Array]:
        cut = partial(jax.lax.dynamic_slice_in_dim, start_index=i, slice_size=1, axis=1)
        return sums(cut(x), None if mask is None else cut(mask))

    count = jnp.asarray(x[0].size, jnp.int32) if mask is None else count_of(mask)

    def by_plane() -> tuple[Array, Array]:
        off, square = jax.lax.map(plane, jnp.arange(x.shape[1], dtype=jnp.int32))
        return off.sum(0), square.sum(0)

    totals = jax.lax.platform_dependent(cpu=by_plane, default=lambda: sums(x, mask))
    off, square = (total / jnp.maximum(count, 1).astype(x.dtype) for total in totals)
    variance = square - off**2
    varies = variance > 0
    return near + off, jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)


@abstract
class Power(IntensityTransform):
    """Abstract. What `Gamma` and `RandomGamma` do with the power."""

    rescale: bool = static(default=False, convert=flag, kw_only=True)
    invert_image: bool = static(default=False, convert=flag, kw_only=True)
    retain_stats: bool = static(default=False, convert=flag, kw_only=True)

    light = True

    def __post_init__(self):
        super().__post_init__()
        if (self.invert_image or self.retain_stats) and not self.rescale:
            raise ValueError("invert_image and retain_stats need rescale=True: the power of the range of a channel")

    @property
    def pointwise(self) -> bool:
        """Whether no range of a channel is needed."""
        return not self.rescale

    def power(self, image: Image, params: Params) -> Array:
        """Gamma for each channel or for all, from what was drawn."""
        gamma = params["gamma"] if "gamma" in params else jnp.exp(params["log_gamma"])
        return channels.laid(gamma, image)

    def apply_to(self, image: Image, params: Params) -> Image:
        gamma = self.power(image, params)
        if not self.rescale:
            return channels.limited(pointwise.signed_power(image.data, gamma), image, params)
        mask, data = image.real, image.data
        low, high = channels.least(data, mask), channels.greatest(data, mask)
        low, high = (-high, -low) if self.invert_image else (low, high)
        width = high - low

        def bent(data: Array) -> Array:
            """The power of the range."""
            base = ((-data if self.invert_image else data) - low) / jnp.maximum(width, LEAST)
            return pointwise.signed_power(base, gamma) * width + low

        y = bent(data)
        if self.retain_stats:
            mean = channels.means(data, mask)
            spread = channels.deviations(data, mean, mask)
            mean = -mean if self.invert_image else mean
            after, found = moments(bent, data, mean, mask)
            y = (y - after) * (spread / jnp.maximum(found, LEAST)) + mean
        return channels.limited(-y if self.invert_image else y, image, params)

    def undo(self, image: Image, params: Params) -> Image:
        if self.rescale:
            return image  # the way back is lost with the range
        return channels.limited(pointwise.signed_power(image.data, 1 / self.power(image, params)), image, params)


@transform
class Gamma(Power):
    """Raise intensities to a power, their sign kept: sign(x) |x|^gamma.

    gamma: > 0.
    rescale: take the power of each channel's range, ((x - min) / (max - min))^gamma (max - min) + min, instead.
    retain_stats: then give each channel the mean and the deviation that it had.
    invert_image: do both to -x.
    With all three it is nnU-Net's gamma of the inverted image.

    Shapes: (C, I, J, K) -> same, float32.  Inverse: the power 1 / gamma; a rescaled image stays.
    Raises ValueError for invert_image or retain_stats without rescale.
    Source: TorchIO 1.2.1, by whose inverse negative voxels came back positive; batchgeneratorsv2 for rescale.
    """

    gamma: float = number(default=1.0, low=1e-6)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"gamma": jnp.asarray(self.gamma)}


@transform
class RandomGamma(Power):
    """`Gamma` with gamma = exp(b), b uniform in `log_gamma`; x is (-x, x).

    log_std: draw b from the normal distribution of mean 0 and this deviation instead.
    gamma: draw gamma itself instead, uniformly from a pair or, on a fair coin, from one of two: ((0.7, 1), (1, 1.5)) is
    nnU-Net's.
    Drawn for each image and channel; channelwise=False draws once for all channels.
    p_per_channel: probability that a channel is changed.
    rescale, invert_image, retain_stats: as in `Gamma`.
    Raises ValueError for log_std and gamma together.
    """

    log_gamma: Range = uniform(default=(-0.3, 0.3))
    channelwise: bool = static(default=True, convert=flag, kw_only=True)
    log_std: float | None = leaf(default=None, convert=maybe(real(low=0.0)), kw_only=True)
    gamma: Either = either(default=None, low=1e-6, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def __post_init__(self):
        super().__post_init__()
        if self.log_std is not None and self.gamma is not None:
            raise ValueError("log_std and gamma both say how gamma is drawn: give one of them")

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = (grid.channels if self.channelwise else 1,)
        coins = {"channels": channels.coins(key, self.p_per_channel, grid)}
        if self.gamma is not None:
            return {"gamma": ranges.draw_either(keys.for_name(key, "gamma"), self.gamma, shape), **coins}
        key = keys.for_name(key, "log_gamma")
        if self.log_std is not None:
            return {"log_gamma": ranges.draw_normal(key, self.log_std, shape), **coins}
        return {"log_gamma": ranges.draw(key, self.log_gamma, shape), **coins}
