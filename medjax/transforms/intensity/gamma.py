"""Change contrast by a power of the intensities."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import Range, number, uniform
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Key, Params


def raised(image: Image, gamma: Array) -> Image:
    """sign(x) |x|^gamma, gamma for each channel or for all."""
    gamma = gamma.astype(image.data.dtype).reshape(-1, 1, 1, 1)
    return image.replace(data=pointwise.signed_power(image.data, gamma))


@transform
class Gamma(IntensityTransform):
    """Raise intensities to a power, their sign kept: sign(x) |x|^gamma.

    gamma: > 0.  Shapes: (C, I, J, K) -> same, float32.  Inverse: Gamma(1 / gamma).  Source: TorchIO 1.2.1, by whose
    inverse negative voxels came back positive.
    """

    gamma: float = number(default=1.0, low=1e-6)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"gamma": jnp.asarray(self.gamma)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return raised(image, params["gamma"])


@transform
class RandomGamma(IntensityTransform):
    """`Gamma` with gamma = exp(b), b uniform in `log_gamma`; x is (-x, x).

    Drawn for each image and channel; channelwise=False draws once for all channels.
    """

    log_gamma: Range = uniform(default=(-0.3, 0.3))
    channelwise: bool = static(default=True, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = (grid.channels if self.channelwise else 1,)
        return {"log_gamma": ranges.draw(keys.for_name(key, "log_gamma"), self.log_gamma, shape)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return raised(image, jnp.exp(params["log_gamma"]))
