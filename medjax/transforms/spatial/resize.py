"""A fixed shape, by another voxel size over the same field of view."""

from typing import Any

import numpy as np

from medjax.arguments import flag, spread, stated, whole_number
from medjax.geometry import Grid, homogeneous, matmul, namespace
from medjax.transforms.sampling import Sampling, interpolation, label_interpolation
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params


def size_or_keep(value: Any) -> tuple[int, ...]:
    """Three whole numbers of at least 1, or -1 for an axis that keeps its own."""
    found = tuple(whole_number(n, -1) for n in spread(value, 3))
    if 0 in found:
        raise ValueError
    return found


shape_of = stated("one positive size or three (-1 keeps an axis)", size_or_keep)


def resized(grid: Grid, shape: Any, fixed: tuple[int, int, int] | None) -> Grid:
    """The grid of `shape` voxels over the field of view of another: the outer faces stay where they are."""
    xp = namespace(grid.affine)
    count, size = (n.astype(grid.affine.dtype) for n in (grid.shape, shape))
    step = count / size
    affine = matmul(grid.affine, homogeneous(xp.diag(step), (step - 1) / 2))
    return Grid(affine, shape.astype(np.int32), fixed, grid.channels)


@transform
class Resize(SpatialTransform):
    """Bring images to a shape over the same field of view, exactly: n voxels of s mm become n' of s n / n'.

    target_shape: one size or three; -1 keeps an axis.  antialias: as in `Resample`.  Interpolations as in `Affine`.
    Shapes: (C, I, J, K) -> (C, *target_shape); images become float32, label maps keep their dtype.
    Inverse: the old grid, read by interpolation.  Raises ValueError for sizes that are not positive.
    Source: TorchIO 1.2.1, which misses some shapes by a voxel and fills it with 0, and remembers -1 from its first
    subject.
    """

    target_shape: Any = static(convert=shape_of)
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)
    antialias: bool = static(default=False, convert=flag, kw_only=True)
    p: float = always(default=1.0)

    reshapes = True
    rescales = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        fixed = None
        if grid.fixed is not None or -1 not in self.target_shape:
            i, j, k = (n if n > 0 else old for n, old in zip(self.target_shape, grid.fixed or (0, 0, 0), strict=True))
            fixed = (i, j, k)
        asked = xp.asarray(self.target_shape, np.int32)
        return resized(grid, xp.where(asked > 0, asked, grid.shape), fixed)

    def sampling(self) -> Sampling:
        return Sampling(self.image_interpolation, self.label_interpolation, antialias=self.antialias)
