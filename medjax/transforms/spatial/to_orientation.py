"""Voxel axes that run in asked directions."""

from typing import Any

import numpy as np

from medjax.arguments import entries_or_one
from medjax.errors import shown
from medjax.geometry import AXIS_CODES, Grid, homogeneous, matmul, namespace, world_axes
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params


def letters(value: Any) -> str:
    """Three letters, one of each of L/R, P/A and I/S, in upper case."""
    text = "".join(value if isinstance(value, str) else entries_or_one(value)).upper()
    if len(text) != 3 or any(sum(letter in pair for letter in text) != 1 for pair in AXIS_CODES):
        raise ValueError
    return text


def codes(name: str, value: Any) -> str:
    """An orientation, as 'RAS' or 'LPS'."""
    try:
        return letters(value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name} must hold one of L/R, one of P/A and one of I/S, as 'RAS' or 'LPS', got {shown(value)}"
        ) from None


def reoriented(grid: Grid, orientation: str) -> Grid:
    """The grid with its voxel axes permuted and reversed so that they run closest to what is asked."""
    xp = namespace(grid.affine)
    worlds = [next(w for w, pair in enumerate(AXIS_CODES) if letter in pair) for letter in orientation]
    wanted = [1 if letter in "RAS" else -1 for letter in orientation]
    axes, signs = world_axes(grid.affine)
    axes, signs = axes[np.asarray(worlds)], signs[np.asarray(worlds)] * xp.asarray(wanted, signs.dtype)
    if xp is np and (axes == np.arange(3)).all() and (signs > 0).all():
        return grid
    shape = grid.shape[axes]
    here = xp.arange(3, dtype=np.int32)[:, None] == axes[None, :]
    linear = xp.where(here, signs[None, :], 0).astype(grid.affine.dtype)
    first = xp.where(here & (signs < 0)[None, :], (shape - 1)[None, :], 0).sum(1).astype(grid.affine.dtype)
    fixed = grid.fixed if grid.fixed is not None and len(set(grid.fixed)) == 1 else None
    return Grid(matmul(grid.affine, homogeneous(linear, first)), shape.astype(np.int32), fixed, grid.channels)


@transform
class ToOrientation(SpatialTransform):
    """Permute and reverse voxel axes so that they run closest to asked directions; nothing moves in the world.

    orientation: the directions in which the voxel axes shall run, as 'RAS' or 'LPS'.
    Exact, no interpolation; dtypes stay.  Shapes: (C, I, J, K) -> its permutation, which depends on the affine: under
    jit a fixed shape must follow (CropOrPad), unless the image is a cube.  Inverse: exact.
    Raises ValueError for letters that are no orientation.
    Source: nibabel's closest axes; include and exclude are honoured, unlike in TorchIO 1.2.1.
    """

    orientation: str = static(default="RAS", convert=codes)
    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        return reoriented(grid, self.orientation)
