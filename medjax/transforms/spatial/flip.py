"""Mirror the content through the middle of the image."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.geometry import Grid, Linear, flip_matrix, inverse, matmul, namespace, world_axes
from medjax.ranges import number
from medjax.transforms.axes import WORLD_AXES, Axis, axes_of
from medjax.transforms.transform import SpatialTransform, abstract, static, transform
from medjax.typing import Key, Params


def reversed_axes(axes: Sequence[Axis], chosen: Any, reference: Grid) -> Any:
    """Which voxel axes of the reference are reversed, (3,) bool: `chosen` says which of `axes` are."""
    xp = namespace(reference.affine)
    along = world_axes(reference.affine)[0] if any(isinstance(axis, str) for axis in axes) else None
    found = xp.zeros(3, bool)
    for i, axis in enumerate(axes):
        voxel = axis if along is None or not isinstance(axis, str) else along[WORLD_AXES[axis.lower()]]
        found = found ^ ((xp.arange(3, dtype=np.int32) == voxel) & chosen[i])
    return found


@abstract
class Mirror(SpatialTransform):
    """Abstract. Reverses those of `axes` that were drawn through the middle of the reference grid."""

    axes: Any = static(default=0, convert=axes_of)

    exact = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        """Data are reversed and the affine goes through the mirror, so that it is indexing."""
        xp = namespace(reference.affine)
        if xp is np and np.array_equal(grid.affine, reference.affine) and np.array_equal(grid.shape, reference.shape):
            return grid  # as it comes out to rounding
        matrix = self.reflection(params, reference)
        step = matmul(inverse(grid.affine), matrix, grid.affine)
        reverse = xp.diagonal(xp.round(step[:3, :3])) < 0
        flip = flip_matrix(grid.shape, reverse, grid.affine.dtype)
        return grid._replace(affine=matmul(matrix, grid.affine, flip))

    def move(self, params: Params, reference: Grid) -> Linear:
        return Linear(self.reflection(params, reference))

    def reflection(self, params: Params, reference: Grid) -> Any:
        """The mirror, world to world (4, 4)."""
        xp = namespace(reference.affine)
        reverse = reversed_axes(self.axes, xp.asarray(params["flip"]), reference)
        flip = flip_matrix(reference.shape, reverse, reference.affine.dtype)
        return matmul(reference.affine, flip, inverse(reference.affine))


@transform
class Flip(Mirror):
    """Mirror the content through the middle of the first image: a true mirror, exact, no interpolation.

    axes: voxel axes 0, 1, 2 of the first image, or anatomical names ('LR', 'Left', 'AP', 'Superior', ...), whatever its
    orientation; both ends of an axis mean that axis.
    Every image is reversed; the affine of the first, and of all on its grid, stays, others are set so that all agree in
    the world.  Shapes and dtypes stay.  Inverse: itself.  Source: TorchIO 1.2.1; here indices and names may be mixed.
    """

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"flip": jnp.ones(len(self.axes), bool)}


@transform
class RandomFlip(Mirror):
    """`Flip` along each of `axes` on its own, with `flip_probability`; drawn once per subject."""

    flip_probability: float = number(default=0.5, low=0.0, high=1.0)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"flip": ranges.coin(keys.for_name(key, "flip"), self.flip_probability, (len(self.axes),))}
