"""The content with its axes exchanged."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys
from medjax.geometry import Grid, Linear, namespace
from medjax.transforms.axes import voxel_axes
from medjax.transforms.spatial.rotate90 import ExchangedAxes, about_middle, planes
from medjax.transforms.transform import static, transform
from medjax.typing import Key, Params


def permutation(order: Any, reference: Grid) -> Linear:
    """The world map by which output axis d shows what was along axis order[d]."""
    xp = namespace(reference.affine)
    matrix = xp.arange(3, dtype=np.int32)[:, None] == xp.asarray(order)[None, :]
    return about_middle(matrix.astype(np.int32), reference)


@transform
class PermuteAxes(ExchangedAxes):
    """Exchange the axes of the content, as `numpy.transpose`, and leave the affine: exact, no interpolation.

    order: along output axis d lies what was along axis order[d]. An odd permutation mirrors the anatomy. `Transpose`
    and `ToOrientation` change the affine too, so that nothing moves in the world.

    Shapes and dtypes stay.  The images must share a grid.  Inverse: exact.
    Raises ValueError if axes that change places differ in size, and for images on different grids.
    Source: batchgeneratorsv2 0.3.6, `TransposeAxesTransform`.
    """

    order: Any = static(default=(2, 1, 0), convert=voxel_axes(3))

    @property
    def exchanged(self) -> Sequence[int]:
        """Those that do not stay."""
        return tuple(axis for d, axis in enumerate(self.order) if d != axis)

    def move(self, params: Params, reference: Grid) -> Linear:
        return permutation(np.array(self.order, np.int32), reference)


@transform
class RandomPermuteAxes(ExchangedAxes):
    """`PermuteAxes` of some axes among themselves, every permutation, the identity too, equally likely.

    axes: two or three of the voxel axes 0, 1, 2, of one size.
    Drawn once per subject.
    Raises ValueError if the sizes along `axes` differ, and for images on different grids.
    """

    axes: Any = static(default=(0, 1, 2), convert=planes)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        axes = jnp.asarray(self.axes, jnp.int32)
        shuffled = random.permutation(keys.for_name(key, "order"), axes)
        return {"order": jnp.arange(3, dtype=jnp.int32).at[axes].set(shuffled)}

    @property
    def exchanged(self) -> Sequence[int]:
        """All of them."""
        return self.axes

    def move(self, params: Params, reference: Grid) -> Linear:
        return permutation(params["order"], reference)
