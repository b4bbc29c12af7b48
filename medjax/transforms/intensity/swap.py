"""Boxes of the image that change places."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from medjax import keys, ranges
from medjax.arguments import traced, vector, whole, wholes
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import leaf
from medjax.subject import Subject
from medjax.transforms.place import included
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params, Shape3


def draw_disjoint(key: Key, first: Int[Array, "N 3"], room: Int[Array, "3"], size: Shape3) -> Int[Array, "N 3"]:
    """Corners from 0 to `room` of boxes that do not meet those at `first`, each equally likely; `first` if none is.

    What meets a box is a box of corners. The others are those beyond it on the first axis, those within it there and
    beyond it on the second, and those within it on both and beyond it on the third: one of the three kinds is drawn by
    how many corners it has, then a corner of it.
    """
    low = jnp.maximum(first - (jnp.asarray(size, jnp.int32) - 1)[None], 0)
    high = jnp.minimum(first + (jnp.asarray(size, jnp.int32) - 1)[None], room[None])
    inside = (high - low + 1).astype(jnp.float32)
    all_of = jnp.broadcast_to((room + 1).astype(jnp.float32)[None], inside.shape)
    outside = all_of - inside
    (i_in, j_in, _), (_, j_all, k_all), (i_out, j_out, k_out) = inside.T, all_of.T, outside.T
    kinds = jnp.stack([i_out * j_all * k_all, i_in * j_out * k_all, i_in * j_in * k_out], 1)
    ends = jnp.cumsum(kinds, 1)
    total = ends[:, -1:]
    at = ranges.draw(keys.for_name(key, "kind"), jnp.concatenate([jnp.zeros_like(total), total], 1))
    kind = jnp.minimum((at[:, None] >= ends).sum(1, dtype=jnp.int32), 2)
    kind = jnp.where(
        jnp.take_along_axis(kinds, kind[:, None], 1)[:, 0] > 0, kind, jnp.argmax(kinds, 1).astype(jnp.int32)
    )[:, None]

    axis = jnp.arange(3, dtype=jnp.int32)[None]
    choices = jnp.where(axis < kind, inside, jnp.where(axis == kind, outside, all_of))
    index = ranges.draw_integer(keys.for_name(key, "place"), jnp.stack([jnp.zeros_like(choices), choices - 1], -1))
    beyond = jnp.where(index < low, index, index + (high - low + 1))
    second = jnp.where(axis < kind, low + index, jnp.where(axis == kind, beyond, index))
    return jnp.where(total > 0, second, first)


def swapped(image: Image, locations: Array, size: Shape3) -> Image:
    """The boxes of each pair change places, one pair after the other, in all channels."""
    if any(np.array(image.spatial_shape) < size):
        raise ValueError(f"patch_size {size} does not fit into an image of shape {image.spatial_shape}")
    corners = jnp.asarray(locations).astype(jnp.int32)
    if not len(corners):  # a loop that never runs is traced all the same
        return image
    shape = (image.shape[0], *size)

    def exchange(index: Array, data: Array) -> Array:
        first, second = ((jnp.zeros((), jnp.int32), *corners[index, which]) for which in (0, 1))
        boxes = [jax.lax.dynamic_slice(data, corner, shape) for corner in (first, second)]
        # In one array behind a barrier, or XLA would read a box while it writes, and copy the volume each time for it.
        both = jax.lax.optimization_barrier(jnp.stack(boxes))
        data = jax.lax.dynamic_update_slice(data, both[1], first)
        return jax.lax.dynamic_update_slice(data, both[0], second)

    return image.replace(data=jax.lax.fori_loop(0, len(corners), exchange, image.data))


@abstract
class Exchange(IntensityTransform):
    """Abstract. Lets the boxes of each pair of `locations` change places, one pair after the other."""

    patch_size = (1, 1, 1)  # a field of both, with a default or without: not annotated here

    def check_subject(self, subject: Subject) -> None:
        self.check_room(subject, self.patch_size, f"patch_size {self.patch_size} does not fit into")

    def check_room(self, subject: Subject, end: Any, what: str) -> None:
        """Raise a ValueError for an image, or an element of a batch, that ends before `end` (3,)."""
        for name, image in subject.images.items():
            if included(self, name, image.is_label) and not traced(image.extent):
                sizes = np.asarray(image.size).reshape(-1, 3)
                if np.any(sizes < end):
                    raise ValueError(f"{what} {name}, of shape {tuple(sizes.min(0).tolist())}")

    def apply_to(self, image: Image, params: Params) -> Image:
        return swapped(image, params["locations"], self.patch_size)

    def undo(self, image: Image, params: Params) -> Image:
        return swapped(image, jnp.asarray(params["locations"])[::-1], self.patch_size)


@transform
class Swap(Exchange):
    """Exchange boxes of the image, one pair after the other, in all channels.

    patch_size: voxels of a box along each axis, or one number for all.
    locations: pairs of corners (n, 2, 3), the lowest indices of the two boxes.

    Shapes: (C, I, J, K) -> same, float32.  Inverse: the pairs in reverse order.
    Raises ValueError for boxes of a pair that overlap, and for boxes that leave the image.
    Source: Chen et al., "Self-supervised learning for medical image analysis using image context restoration", 2019;
    TorchIO 1.2.1.
    """

    patch_size: Any = static(convert=wholes(3, low=1))
    locations: Any = leaf(convert=vector((None, 2, 3), low=0, least=0, whole=True))

    def __post_init__(self):
        super().__post_init__()
        if not traced(self.locations):
            apart = np.abs(np.diff(np.asarray(self.locations), axis=1))[:, 0]
            if np.any(np.all(apart < self.patch_size, 1)):
                raise ValueError(f"locations hold boxes of size {self.patch_size} that overlap, which is no exchange")

    def check_subject(self, subject: Subject) -> None:
        super().check_subject(subject)
        if not traced(self.locations):
            far = np.asarray(self.locations).max((0, 1), initial=0).astype(int) + self.patch_size
            self.check_room(subject, far, f"locations reach {far.tolist()}, beyond")

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"locations": jnp.round(jnp.asarray(self.locations)).astype(jnp.int32)}


@transform
class RandomSwap(Exchange):
    """`Swap` of `num_iterations` pairs, drawn for each image: the first box anywhere, the second where it is disjoint.

    Each place is equally likely. Where no place is disjoint, the box stays.  Differs from TorchIO 1.2.1, which
    never takes the last place, exchanges boxes that overlap, and may not end.
    """

    patch_size: Any = static(default=15, convert=wholes(3, low=1))
    num_iterations: int = static(default=100, convert=whole(low=0))

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        room = jnp.maximum(jnp.asarray(grid.shape, jnp.int32) - jnp.asarray(self.patch_size, jnp.int32), 0)
        ends = jnp.stack([jnp.zeros(3, jnp.float32), room.astype(jnp.float32)], -1)
        first = ranges.draw_integer(keys.for_name(key, "first"), ends, (self.num_iterations,))
        second = draw_disjoint(keys.for_name(key, "second"), first, room, self.patch_size)
        return {"locations": jnp.stack([first, second], 1)}
