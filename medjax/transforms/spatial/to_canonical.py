"""Voxel axes that run toward right, anterior and superior."""

import numpy as np

from medjax.geometry import Grid, homogeneous, matmul, namespace, world_axes
from medjax.transforms.transform import SpatialTransform, always, transform
from medjax.typing import Params


@transform
class ToCanonical(SpatialTransform):
    """Permute and reverse voxel axes so that they run closest to R, A and S; nothing moves in the world.

    Exact, no interpolation; dtypes stay.  Shapes: (C, I, J, K) -> its permutation, which depends on the affine: under
    jit a fixed shape must follow (CropOrPad).  Source: nibabel's closest canonical axes; include and exclude are
    honoured, unlike in TorchIO 1.2.1.
    """

    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        axes, signs = world_axes(grid.affine)
        if xp is np and (axes == np.arange(3)).all() and (signs > 0).all():
            return grid
        shape = grid.shape[axes]
        here = xp.arange(3, dtype=np.int32)[:, None] == axes[None, :]
        linear = xp.where(here, signs[None, :], 0).astype(grid.affine.dtype)
        first = xp.where(here & (signs < 0)[None, :], (shape - 1)[None, :], 0).sum(1).astype(grid.affine.dtype)
        return Grid(matmul(grid.affine, homogeneous(linear, first)), shape.astype(np.int32), None, grid.channels)
