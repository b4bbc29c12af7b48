"""Contrast about the mean."""

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import Either, either, number
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


@abstract
class Stretch(IntensityTransform):
    """Abstract. Multiplies the differences from the mean of each channel by a factor."""

    preserve_range = True  # a field of both, in its place among the others: not annotated here
    light = True

    def apply_to(self, image: Image, params: Params) -> Image:
        x, mask = image.data, image.real
        mean = channels.means(x, mask)
        y = (x - mean) * channels.laid(params["factor"], image) + mean
        if self.preserve_range:
            y = jnp.clip(y, channels.least(x, mask), channels.greatest(x, mask))
        return channels.limited(y, image, params)


@transform
class Contrast(Stretch):
    """Stretch each channel about its mean: (x - mean) factor + mean.

    factor: > 1 for more contrast.
    preserve_range: clip to the least and the greatest voxel that the channel had.
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: nnU-Net, `ContrastTransform`.
    """

    factor: float = number(default=1.0, low=0.0)
    preserve_range: bool = static(default=True, convert=flag)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"factor": jnp.asarray(self.factor)}


@transform
class RandomContrast(Stretch):
    """`Contrast` with `factor` drawn uniformly from a pair or, on a fair coin, from one of two, for each image.

    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    """

    factor: Either = either(default=((0.75, 1.0), (1.0, 1.25)), low=0.0)
    preserve_range: bool = static(default=True, convert=flag)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        factor = ranges.draw_either(keys.for_name(key, "factor"), self.factor, shape)
        return {"factor": factor, "channels": channels.coins(key, self.p_per_channel, grid)}
