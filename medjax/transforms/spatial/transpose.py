"""The order of the voxel axes reversed."""

import numpy as np

from medjax.geometry import Grid, homogeneous, matmul, namespace
from medjax.transforms.transform import SpatialTransform, always, transform
from medjax.typing import Params


@transform
class Transpose(SpatialTransform):
    """Exchange the first and the last voxel axis; nothing moves in the world (PIR becomes RIP).

    Exact, no interpolation; dtypes stay.  Shapes: (C, I, J, K) -> (C, K, J, I).  Inverse: itself.
    Source: TorchIO 1.2.1.
    """

    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        dtype = grid.affine.dtype
        swap = homogeneous(xp.asarray(np.eye(3)[::-1].copy(), dtype), xp.zeros(3, dtype))
        fixed = None if grid.fixed is None else (grid.fixed[2], grid.fixed[1], grid.fixed[0])
        return Grid(matmul(grid.affine, swap), grid.shape[::-1], fixed, grid.channels)
