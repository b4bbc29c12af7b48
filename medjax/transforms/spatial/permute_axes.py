"""The content with its axes exchanged."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys
from medjax.geometry import Grid, Linear, namespace
from medjax.transforms.axes import voxel_axes
from medjax.transforms.spatial.crop_or_pad import check_one_grid
from medjax.transforms.spatial.rotate90 import about_middle, check_sizes, planes
from medjax.transforms.transform import SpatialTransform, static, transform
from medjax.typing import Key, Params


def permutation(order: Any, reference: Grid) -> Linear:
    """The world map by which output axis d shows what was along axis order[d]."""
    xp = namespace(reference.affine)
    matrix = xp.arange(3, dtype=np.int32)[:, None] == xp.asarray(order)[None, :]
    return about_middle(matrix.astype(np.int32), reference)


@transform
class PermuteAxes(SpatialTransform):
    """Exchange the axes of the content, as `numpy.transpose`, and leave the affine: exact, no interpolation.

    order: along output axis d lies what was along axis order[d]. An odd permutation mirrors the anatomy. `Transpose`
    and `ToOrientation` change the affine too, so that nothing moves in the world.

    Shapes and dtypes stay.  The images must share a grid.  Inverse: exact.
    Raises ValueError if axes that change places differ in size, and for images on different grids.
    Source: batchgeneratorsv2 0.3.6, `TransposeAxesTransform`.
    """

    order: Any = static(default=(2, 1, 0), convert=voxel_axes(3))

    exact = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        check_sizes(self, tuple(axis for d, axis in enumerate(self.order) if d != axis), grid)
        return grid

    def move(self, params: Params, reference: Grid) -> Linear:
        return permutation(np.array(self.order, np.int32), reference)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        check_one_grid(grids, type(self).__name__)


@transform
class RandomPermuteAxes(SpatialTransform):
    """`PermuteAxes` of some axes among themselves, every permutation, the identity too, equally likely.

    axes: two or three of the voxel axes 0, 1, 2, of one size.  Drawn once per subject.
    Raises ValueError if the sizes along `axes` differ, and for images on different grids.
    """

    axes: Any = static(default=(0, 1, 2), convert=planes)

    random = True
    exact = True

    def draw(self, key: Key, grid: Grid) -> Params:
        axes = jnp.asarray(self.axes, jnp.int32)
        shuffled = random.permutation(keys.for_name(key, "order"), axes)
        return {"order": jnp.arange(3, dtype=jnp.int32).at[axes].set(shuffled)}

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        check_sizes(self, self.axes, grid)
        return grid

    def move(self, params: Params, reference: Grid) -> Linear:
        return permutation(params["order"], reference)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        check_one_grid(grids, type(self).__name__)
