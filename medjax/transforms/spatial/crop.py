"""Cut voxels off, by how many on each side or to a box of given shape at a random place."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import geometry, keys
from medjax.arguments import maybe, sides, text, wholes
from medjax.geometry import Grid, namespace, window
from medjax.image import LabelMap
from medjax.ops import draw, statistics
from medjax.subject import Subject
from medjax.transforms.masking import marked
from medjax.transforms.moves import follow
from medjax.transforms.place import Place, included
from medjax.transforms.spatial.crop_or_pad import check_one_grid, label_values
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Key, Params, Shape3


def extended(grid: Grid, sides: Sequence[int] | np.ndarray) -> Grid:
    """The grid with voxels added, or below 0 cut off, on the six sides: i low, i high, j low, ..."""
    xp = namespace(grid.affine)
    low, more = np.asarray(sides[0::2], np.int32), np.add(sides[0::2], sides[1::2]).astype(np.int32)
    fixed = None
    if grid.fixed is not None:
        i, j, k = (int(n) for n in np.add(grid.fixed, more))
        fixed = (i, j, k)
    return window(grid, xp.asarray(-low), grid.shape + xp.asarray(more), fixed)


@transform
class Crop(SpatialTransform):
    """Cut voxels off each side; exact, no interpolation.

    cropping: voxels: one number, three (both sides of each axis) or six (i low, i high, j low, ...).
    Shapes: (C, I, J, K) -> (C, I - low - high, ...); dtypes stay.  Inverse: what was cut off comes back as 0.
    Raises ValueError if nothing would be left.  Source: TorchIO 1.2.1, which gives an empty image then.
    """

    cropping: Any = static(default=0, convert=sides)
    p: float = always(default=1.0)

    exact = True
    reshapes = True

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        cropped = extended(grid, np.negative(self.cropping))
        if grid.fixed is not None and cropped.fixed is not None:
            check_left(self, grid.fixed, cropped.fixed)
        return cropped

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        for grid in grids.values():
            before = tuple(int(n) for n in grid.shape)
            check_left(self, before, tuple(np.subtract(before, np.add(self.cropping[0::2], self.cropping[1::2]))))


def check_left(t: Crop, before: Sequence[int], after: Sequence[int]) -> None:
    """Raise a ValueError if a crop leaves nothing."""
    if min(after) < 1:
        raise ValueError(f"cropping={t.cropping} leaves nothing of an image of shape {tuple(before)}")


@transform
class RandomCrop(SpatialTransform):
    """Cut a box of a given shape out at a random place: uniform, or around a voxel of a label; exact.

    size: shape of the box, one number or three.  label_name: a label map; the box is centred on one of its voxels that
    are not 0 (or are one of `labels`), each equally likely, and moved into the image where it would stick out. Without
    any such voxel, and without label_name, the place is uniform over all that fit.
    The voxel is chosen before the spatial transforms that come before it, and followed through them, so that an affine,
    an elastic deformation and the crop are one reading, of the voxels of the box alone.

    Drawn once per subject.  Shapes: (C, I, J, K) -> (C, *size); dtypes stay.  The images must share a grid.
    Raises ValueError for images smaller than the box, on different grids, and a label_name that is no label map.
    """

    size: Any = static(default=96, convert=wholes(3, low=1))
    label_name: str | None = static(default=None, convert=maybe(text), kw_only=True)
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values), kw_only=True)
    p: float = always(default=1.0)

    random = True
    exact = True
    reshapes = True
    follows = True

    def __post_init__(self):
        super().__post_init__()
        if self.labels is not None and self.label_name is None:
            raise ValueError("labels selects values of a label map: give label_name")

    @property
    def locates(self) -> bool:
        """Whether a label must be seen first."""
        return self.label_name is not None

    def draw(self, key: Key, grid: Grid) -> Params:
        place = random.uniform(keys.for_name(key, "start"), (3,), jnp.float32)
        return {"start": place, "key": keys.for_name(key, "voxel")} if self.locates else {"start": place}

    def locate(self, subject: Subject, params: Params, places: dict[str, Place]) -> Params:
        image, place = subject[self.label_name or ""], places[self.label_name or ""]
        mask = statistics.within(marked(jnp.asarray(image.data), self.labels), image.real, False).any(0)
        sums = draw.marginals(mask)
        voxel = draw.voxel(params["key"], sums, lambda i, j: mask[i, j])
        affine = jnp.asarray(image.affine).astype(place.grid.affine.dtype)
        point = geometry.transform_point(affine, voxel.astype(affine.dtype))
        moved = follow(place.moves, point[None])[0]
        cropped = next((p.grid for name, p in places.items() if included(self, name, p.label)), place.grid)
        index = geometry.transform_point(geometry.inverse(cropped.affine), moved)
        return {"voxel": jnp.round(index).astype(jnp.int32), "found": sums.planes.any()}

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        size = xp.asarray(self.size, np.int32)
        if grid.fixed is not None:
            check_fits(self.size, grid.fixed)
        room = xp.maximum(grid.shape - size, 0)
        # One float32 product, on the host as under jit, so that both round to the same voxel.
        chosen = xp.floor(xp.asarray(params["start"]) * (room + 1).astype(np.float32)).astype(np.int32)
        first = xp.minimum(chosen, room)
        if "voxel" in params:
            around = xp.clip(xp.asarray(params["voxel"]) - size // 2, 0, room)
            first = xp.where(xp.asarray(params["found"]), around, first)
        return window(grid, first, size, self.size)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        check_one_grid(grids, type(self).__name__)
        for grid in grids.values():
            check_fits(self.size, tuple(int(n) for n in grid.shape))

    def check_subject(self, subject: Subject) -> None:
        if self.label_name is not None and not isinstance(subject.images.get(self.label_name), LabelMap):
            maps = [n for n, i in subject.images.items() if i.is_label]
            raise ValueError(f"label_name={self.label_name!r} is no label map of the subject, which has {maps}")


def check_fits(size: Shape3, shape: Shape3) -> None:
    """Raise a ValueError if a box is larger than the image."""
    if any(n > m for n, m in zip(size, shape, strict=True)):
        raise ValueError(f"RandomCrop: size={size} does not fit into an image of shape {shape}; pad it first, by "
                         f"CropOrPad({size}, only_pad=True)")  # fmt: skip
