"""A shape that a network can halve."""

from typing import Any

import numpy as np

from medjax.arguments import choice, wholes
from medjax.geometry import Grid, namespace, window
from medjax.transforms.sampling import Fill, Sampling, label_pad, pad_fill
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params


@transform
class EnsureShapeMultiple(SpatialTransform):
    """Pad or crop about the centre to the next multiple of a number of voxels; exact, no interpolation.

    target_multiple: one whole number of at least 1, or three.  method: 'pad' up, or 'crop' down (to one multiple at
    least 1 voxel, as TorchIO does).  padding_mode: as in `Pad`.  An odd voxel goes to the low end.
    Shapes: (C, I, J, K) -> multiples; dtypes stay.  Each image on its own.  Inverse: as those of `Pad` and `Crop`.
    Raises ValueError for multiples below 1.  Source: TorchIO 1.2.1.
    """

    target_multiple: Any = static(convert=wholes(3, low=1))
    method: str = static(default="pad", convert=choice("pad", "crop"), kw_only=True)
    padding_mode: Fill = static(default=0.0, convert=pad_fill, kw_only=True)
    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        old, fixed = grid.shape, None
        if grid.fixed is not None:
            i, j, k = (int(n) for n in self.rounded(np.asarray(grid.fixed, np.int32), np))
            fixed = (i, j, k)
        target = self.rounded(old, xp)
        half = (xp.abs(target - old) + 1) // 2
        return window(grid, xp.where(target > old, -half, half), target, fixed)

    def rounded(self, shape: Any, xp: Any) -> Any:
        """The next multiples, (3,) int32."""
        multiple = xp.asarray(self.target_multiple, np.int32)
        if self.method == "pad":
            return -(-shape // multiple) * multiple
        return xp.maximum(shape // multiple * multiple, 1)

    def sampling(self) -> Sampling:
        if self.method == "crop":
            return Sampling()
        return Sampling(pad=self.padding_mode, label_pad=label_pad(self.padding_mode))
