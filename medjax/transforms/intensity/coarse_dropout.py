"""Boxes of the image that are blanked."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import entries, flag, interval, maybe, real, vector, wholes
from medjax.errors import shown
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import Either, either, leaf, number
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Key, Params, Shape3


def sizes_of(name: str, value: Any) -> tuple[tuple[int, int], ...]:
    """The least and the greatest size of a box along each axis: from a pair, or from three pairs."""
    found = entries(value) or ()
    pairs = found if len(found) == 3 else (value,) * 3
    if any(entries(pair) is None for pair in pairs):
        raise ValueError(f"{name} must be a pair, or three pairs, of voxels, got {shown(value)}")
    return tuple(interval(low=1)(name, pair) for pair in pairs)


def blanked(image: Image, params: Params, largest: Shape3) -> Image:
    """Blank boxes one after the other, each with its fill or with the mean of what is there by then.

    corner, size: (B, 3) for all channels or (C, B, 3). count: how many of the B, for each. fill: (B,) or (C, B).
    largest: what no box exceeds: a window of that size is read and written for each.
    """
    data = image.data
    boxes = np.shape(params["corner"])[-2]
    if boxes == 0:
        return image
    window = tuple(int(w) for w in np.minimum(largest, image.spatial_shape))

    def per_channel(name: str, *shape: int) -> Array:
        values = jnp.asarray(params[name]).reshape(-1, *shape)
        return jnp.broadcast_to(channels.fitted(values, len(data)), (len(data), *shape))

    corner, size, count = per_channel("corner", boxes, 3), per_channel("size", boxes, 3), per_channel("count")
    fill = per_channel("fill", boxes).astype(data.dtype) if "fill" in params else None
    end = jnp.asarray(image.size, jnp.int32)

    def blank(data: Array, which: tuple[Array, Array]) -> tuple[Array, None]:
        channel, box = which
        low = corner[channel, box]
        high = jnp.minimum(low + size[channel, box], end)
        start = jnp.clip(low, 0, jnp.asarray(image.spatial_shape, jnp.int32) - jnp.asarray(window, jnp.int32))
        place = (channel, start[0], start[1], start[2])
        values = jax.lax.dynamic_slice(data, place, (1, *window))
        inside = jnp.ones((1, 1, 1, 1), bool)
        for axis, length in enumerate(window):
            index = start[axis] + jnp.arange(length, dtype=jnp.int32)
            within = (index >= low[axis]) & (index < high[axis])
            inside = inside & within.reshape([-1 if a == axis + 1 else 1 for a in range(4)])
        if fill is None:
            voxels = jnp.maximum(inside.sum(dtype=jnp.int32), 1).astype(data.dtype)
            value = jnp.where(inside, values, 0).sum(3).sum() / voxels
        else:
            value = fill[channel, box]
        values = jnp.where(inside & (box < count[channel]), value, values)
        return jax.lax.dynamic_update_slice(data, values, place), None

    order = [(c, b) for c in range(len(data)) for b in range(boxes)]
    which = jnp.asarray(order, jnp.int32).reshape(-1, 2).T
    return channels.limited(jax.lax.scan(blank, data, (which[0], which[1]))[0], image, params)


@transform
class CoarseDropout(IntensityTransform):
    """Blank boxes of the image, one after the other, in all channels.

    corners: (n, 3), the lowest indices of the boxes; what leaves the image is left out.  size: of a box, in voxels.
    fill: a number, or None for the mean of the box in each channel.
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: DeVries and Taylor, "Improved regularization of
    convolutional neural networks with cutout", 2017; nnU-Net DA5, `BlankRectangleTransform`.
    """

    corners: Any = leaf(convert=vector((None, 3), low=0, least=0, whole=True))
    size: Any = static(default=8, convert=wholes(3, low=1))
    fill: float | None = leaf(default=None, convert=maybe(real()))

    def draw(self, key: Key, grid: Grid) -> Params:
        corner = jnp.round(jnp.asarray(self.corners)).astype(jnp.int32)
        size = jnp.broadcast_to(jnp.asarray(self.size, jnp.int32), corner.shape)
        params = {"corner": corner, "size": size, "count": jnp.asarray(len(corner), jnp.int32)}
        return params if self.fill is None else {**params, "fill": jnp.full(len(corner), self.fill)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return blanked(image, params, self.size)


@transform
class RandomCoarseDropout(IntensityTransform):
    """`CoarseDropout` of random boxes, drawn for each image, each place inside the image equally likely.

    size: whole numbers of voxels from low to high, for each box and axis: a pair, or one for each axis.
    num_boxes: whole numbers from low to high.  fill: None for the mean of the box, or a number, uniform from a pair or,
    on a fair coin, from one of two, for each box.
    per_channel: boxes for each channel, instead of the same.  p_per_channel: probability that a channel is changed.
    """

    size: Any = static(default=(4, 16), convert=sizes_of)
    num_boxes: Any = static(default=(1, 4), convert=interval())
    fill: Either = either(default=None)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        boxes = self.num_boxes[1]
        whole = jnp.asarray(grid.shape, jnp.int32)
        size = ranges.draw_integer(keys.for_name(key, "size"), jnp.asarray(self.size, jnp.float32), (*shape, boxes))
        size = jnp.minimum(size, whole.reshape([1] * (size.ndim - 1) + [3]))
        room = (whole.reshape([1] * (size.ndim - 1) + [3]) - size).astype(jnp.float32)
        corner = ranges.draw_integer(keys.for_name(key, "corner"), jnp.stack([jnp.zeros_like(room), room], -1))
        count = ranges.draw_integer(keys.for_name(key, "count"), jnp.asarray(self.num_boxes, jnp.float32), shape)
        coins = channels.coins(key, self.p_per_channel, grid)
        params = {"corner": corner, "size": size, "count": count, "channels": coins}
        if self.fill is None:
            return params
        return {**params, "fill": ranges.draw_either(keys.for_name(key, "fill"), self.fill, (*shape, boxes))}

    def apply_to(self, image: Image, params: Params) -> Image:
        i, j, k = (high for _, high in self.size)
        return blanked(image, params, (i, j, k))
