"""What the artefacts of k-space have in common: the whole image, the axis that lines are recorded along, channels."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from medjax import ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import passes, statistics
from medjax.transforms.axes import Axis, along_voxels
from medjax.transforms.transform import IntensityTransform, abstract, static
from medjax.typing import Key, Params, Volume

T = TypeVar("T")


@abstract
class KSpaceArtefact(IntensityTransform):
    """Abstract. Changes the k-space of the whole image, of all channels alike or of each by its own numbers."""

    magnitude: bool = static(default=False, convert=flag, kw_only=True)

    per_channel = False  # a field of the random ones: not annotated here


@abstract
class LineArtefact(KSpaceArtefact):
    """Abstract. Changes the lines of k-space that are recorded along `axis`, or along the one of `axes` drawn."""

    axis = None  # fields of one twin each: not annotated here
    axes = tuple[Axis, ...]()

    def line_axis(self, image: Image, params: Params) -> Any:
        """The voxel axis, an int where it is known."""
        if self.axis is not None:
            return along_voxels(self.axis, image.affine)
        return self.axes[0] if self.axes in ((0,), (1,), (2,)) else params["axis"]


def unpadded(image: Image) -> tuple[Volume, Int[Array, "3"]]:
    """The voxels, 0 in the padding, and how many of them are real along each axis.

    Raises TypeError for a box of an image, whose spectrum is not a part of that of the whole.
    """
    if image.full is not None:
        raise TypeError("an artefact of k-space needs the whole image, got a box of it; put it before the crop")
    return statistics.within(image.data, image.real, 0), jnp.asarray(image.size, jnp.int32)


def draw_axis(key: Key, axes: Sequence[Axis], grid: Grid, shape: tuple[int, ...] = ()) -> Int[Array, "..."]:
    """One of `axes`, equally likely, as a voxel axis; those of one voxel only if there are no others."""
    voxel = jnp.stack([jnp.asarray(along_voxels(axis, grid.affine), jnp.int32) for axis in axes])
    allowed = jnp.asarray(grid.shape)[voxel] > 1
    allowed = allowed | ~allowed.any()
    last = allowed.sum(dtype=jnp.int32) - 1
    chosen = ranges.draw_integer(key, jnp.stack([jnp.zeros_like(last), last]).astype(jnp.float32), shape)
    return voxel[jnp.argsort(~allowed)][chosen]


def along(axis: Any, change: Callable[[Volume, int], T], data: Volume) -> T:
    """`change(data, axis)` with axis 1, 2, 3 of the data, for a voxel axis that is known or traced."""
    if isinstance(axis, int):
        return change(data, axis + 1)
    return jax.lax.switch(axis, [lambda x, a=a: change(x, a) for a in (1, 2, 3)], data)


def by_channel(change: Callable[[Volume, Params], Volume], data: Volume, params: Params, per_channel: bool) -> Volume:
    """`change(data, params)`, or for each channel, with its own entry of the params."""
    if not per_channel:
        return change(data, params)
    return passes.one_by_one(lambda operands: change(operands[0][None], operands[1])[0], (data, params))


def channels(grid: Grid, per_channel: bool) -> tuple[int, ...]:
    """The leading axes of what is drawn."""
    return (grid.channels,) if per_channel else ()
