"""Sharper edges."""

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops.local import laplacian
from medjax.ranges import Either, either, number
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params, Shape3


@abstract
class SharperEdges(IntensityTransform):
    """Abstract. Gives x + strength (6 x - the six neighbours)."""

    preserve_range: bool = static(default=False, convert=flag, kw_only=True)

    def margin(self, spacing: np.ndarray) -> Shape3 | None:
        return None if self.preserve_range else (1, 1, 1)

    def apply_to(self, image: Image, params: Params) -> Image:
        x, mask = image.data, image.real
        y = x + channels.laid(params["strength"], image) * laplacian(x, jnp.asarray(image.size, jnp.int32))
        if self.preserve_range:
            y = jnp.clip(y, channels.least(x, mask), channels.greatest(x, mask))
        return channels.limited(y, image, params)


@transform
class Sharpen(SharperEdges):
    """Add what a voxel exceeds its six face neighbours by, times a strength; edges are repeated.

    strength: 0 changes nothing.
    preserve_range: clip to the least and the greatest voxel that the channel had.
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: nnU-Net DA5, `SharpeningTransform`.
    """

    strength: float = number(default=0.2, low=0.0)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"strength": jnp.asarray(self.strength)}


@transform
class RandomSharpen(SharperEdges):
    """`Sharpen` with `strength` drawn uniformly from a pair or, on a fair coin, from one of two, for each image.

    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    """

    strength: Either = either(default=(0.1, 1.0), low=0.0)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        strength = ranges.draw_either(keys.for_name(key, "strength"), self.strength, shape)
        return {"strength": strength, "channels": channels.coins(key, self.p_per_channel, grid)}
