"""Add voxels at the sides."""

from typing import Any

from medjax.arguments import sides
from medjax.geometry import Grid
from medjax.transforms.sampling import Fill, Sampling, label_pad, pad_fill
from medjax.transforms.spatial.crop import extended
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params


@transform
class Pad(SpatialTransform):
    """Add voxels on each side; exact, no interpolation.

    padding: voxels: one number, three (both sides of each axis) or six (i low, i high, j low, ...).
    padding_mode: a number, 'constant' (0), 'minimum', 'maximum', 'mean' or 'median' of the image, all channels
    together, 'edge', 'reflect', 'symmetric', 'wrap' or 'linear_ramp' (from the edge to 0) as `numpy.pad`, or 'empty',
    which is 0. Label maps get 0 for a statistic or a ramp.
    Shapes: (C, I, J, K) -> (C, I + low + high, ...); dtypes stay.  Inverse: a crop.
    Raises ValueError for a mode that is none of these and for numbers that a label map's dtype cannot hold.
    Source: TorchIO 1.2.1, which invents labels by statistics and takes functions too.
    """

    padding: Any = static(default=0, convert=sides)
    padding_mode: Fill = static(default=0.0, convert=pad_fill)
    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        return extended(grid, self.padding)

    def sampling(self) -> Sampling:
        return Sampling(pad=self.padding_mode, label_pad=label_pad(self.padding_mode))
