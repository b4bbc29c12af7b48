"""The place in the world of another image."""

from typing import Any

import numpy as np

from medjax.geometry import Grid, Space, namespace
from medjax.image import Image, ScalarImage
from medjax.ranges import leaf
from medjax.transforms.spatial.resample import target_of
from medjax.transforms.spatial.resize import resized
from medjax.transforms.transform import SpatialTransform, transform
from medjax.typing import Params


def reference_of(name: str, value: Any) -> Space:
    """A Space from an image, its path, (shape, affine) or a dictionary of these."""
    found = target_of(name, value)
    if not isinstance(found, Space):
        raise TypeError(f"{name} must be an image, its path, or (shape, affine), got {value!r}")
    return found


@transform
class ToReferenceSpace(SpatialTransform):
    """Give images the place in the world of a reference, whatever their shape: its field of view, their voxels.

    reference: an Image, its path, or (shape, affine).
    Made for what a network gives on a coarser grid than it was given, as embeddings. Voxels stay; the affine becomes
    that of the reference resized to the image's shape. `from_tensor(array, reference)` does it for a bare array.
    Shapes and dtypes stay.  Inverse: the old affine.  Source: TorchIO 1.2.1.
    """

    reference: Any = leaf(convert=reference_of)

    exact = True
    relabels = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        target = self.reference
        whole = Grid(xp.asarray(target.affine, grid.affine.dtype), xp.asarray(target.shape, np.int32))
        return grid._replace(affine=resized(whole, grid.shape, None).affine)

    @staticmethod
    def from_tensor(tensor: Any, reference: Image) -> ScalarImage:
        """An array (C, I, J, K) as an image in the field of view of `reference`."""
        return ToReferenceSpace(reference)(ScalarImage(tensor))
