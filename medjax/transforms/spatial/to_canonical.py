"""Voxel axes that run toward right, anterior and superior."""

from medjax.geometry import Grid
from medjax.transforms.spatial.to_orientation import reoriented
from medjax.transforms.transform import SpatialTransform, always, transform
from medjax.typing import Params


@transform
class ToCanonical(SpatialTransform):
    """`ToOrientation('RAS')`: permute and reverse voxel axes so that they run closest to R, A and S."""

    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        return reoriented(grid, "RAS")
