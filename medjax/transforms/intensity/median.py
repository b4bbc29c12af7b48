"""The median of a neighbourhood."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import flag, interval, whole
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import local
from medjax.ranges import number
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params, Shape3


@abstract
class LocalMedian(IntensityTransform):
    """Abstract. Takes the median over cubes of `size` voxels, for each channel or for all."""

    size = 1  # a field of both, a number or (least, greatest)

    @property
    def sizes(self) -> tuple[int, int]:
        """The least and the greatest size."""
        low, high = np.broadcast_to(self.size, 2)
        return int(low), int(high)

    def margin(self, spacing: np.ndarray) -> Shape3 | None:
        reach = self.sizes[1] // 2
        return reach, reach, reach

    def apply_to(self, image: Image, params: Params) -> Image:
        low, high = self.sizes
        extent = jnp.asarray(image.size, jnp.int32)
        branches = [partial(local.median, extent=extent, size=size) for size in range(low, high + 1)]

        def one(x: Array, size: Array) -> Array:
            return jax.lax.switch(size - low, branches, x)

        size = channels.fitted(jnp.asarray(params["size"]).reshape(-1), image.shape[0])
        return channels.limited(channels.each(one, image.data, size), image, params)


@transform
class Median(LocalMedian):
    """Replace each voxel by the median of the cube about it; the image is mirrored at its edges.

    size: of the cube, in voxels; an even one reaches one voxel further down.
    Shapes: (C, I, J, K) -> same, float32.
    Not invertible.  Source: `scipy.ndimage.median_filter`; nnU-Net DA5.
    """

    size: int = static(default=3, convert=whole(low=1))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"size": jnp.asarray(self.size, jnp.int32)}


@transform
class RandomMedian(LocalMedian):
    """`Median` with `size` drawn for each image, each whole number from low to high equally likely.

    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    """

    size: Any = static(default=(2, 7), convert=interval(low=1))
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        ends = jnp.asarray(self.size, jnp.float32)
        size = ranges.draw_integer(keys.for_name(key, "size"), ends, channels.shape_for(self.per_channel, grid))
        return {"size": size, "channels": channels.coins(key, self.p_per_channel, grid)}
