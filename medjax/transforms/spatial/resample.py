"""Another voxel size, or the grid of another image; the content stays where it is in the world."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.arguments import as_floats, broadcast, check, entries, finite, flag, text
from medjax.errors import shown
from medjax.geometry import Grid, Space, check_affine, check_overlap, homogeneous, matmul, namespace, spacing
from medjax.image import Image, ScalarImage
from medjax.ranges import leaf
from medjax.subject import Subject
from medjax.transforms.sampling import Fill, Sampling, interpolation, label_interpolation, move_fill
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Params


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["image"])
@dataclass(frozen=True)
class Named:
    """The grid of an image of the subject."""

    image: str


def target_of(name: str, value: Any) -> Any:
    """Spacing (3,), a Space, or the name of an image, from all that a target can be."""
    if isinstance(value, (Space, Named)):
        return value
    if isinstance(value, dict):
        if set(value) == {"image"}:
            return Named(text(name, value["image"]))
        if set(value) != {"shape", "affine"}:
            raise ValueError(f"{name} as a dictionary holds shape and affine, or image, got {shown(value)}")
        return space(name, value["shape"], value["affine"])
    if isinstance(value, str) and not Path(value).is_file():
        return Named(value)
    if isinstance(value, (str, Path)):
        value = ScalarImage(value)
    if isinstance(value, Image):
        return space(name, value.spatial_shape, value.affine)
    if isinstance(value, (tuple, list)) and len(value) == 2 and np.ndim(value[1]) == 2:
        return space(name, value[0], value[1])
    array = as_floats(name, value)
    if array.ndim and array.shape != (3,):
        raise ValueError(
            f"{name} must be one spacing or three, a path, an image, its name, or (shape, affine), got {value!r}"
        )
    check(name, array, low=1e-6)
    return broadcast(array, (3,))


def space(name: str, shape: Any, affine: Any) -> Space:
    """A checked Space."""
    found = entries(shape) or ()
    if len(found) not in (3, 4) or not all(isinstance(n, (int, np.integer)) and n > 0 for n in found):
        raise ValueError(f"the shape of {name} must be positive, got {shown(shape)}")
    i, j, k = (int(n) for n in found[-3:])
    return Space(check_affine(affine, f"the affine of {name}"), (i, j, k))


def exact_decimal(values: Any) -> Any:
    """float32 numbers as the float64 that prints the same: 0.7 is 0.7 in an affine, not 0.699999988."""
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return np.array([float(str(v)) for v in values])
    return values


def respaced(grid: Grid, target: Any) -> Grid:
    """The grid of a spacing over the same field of view, about the same centre."""
    xp = namespace(grid.affine)
    old = spacing(grid.affine)
    new = xp.asarray(exact_decimal(target), old.dtype)
    count = grid.shape.astype(old.dtype)
    # A ratio that should be whole may come out a little less: without the slack 11 voxels of 0.6 mm are 65 of 0.1 mm.
    fitting = xp.floor(count * old / new * (1 + 1e-6)).astype(np.int32)
    shape = xp.where(grid.shape == 1, 1, fitting).astype(np.int32)
    step = new / old
    first = (count - 1) / 2 - (shape.astype(old.dtype) - 1) / 2 * step
    return Grid(matmul(grid.affine, homogeneous(xp.diag(step), first)), shape, None, grid.channels)


def no_pre_affine(name: str, value: Any) -> None:
    """None: an affine is no metadata, and cannot hide in an image."""
    if value is not None:
        raise ValueError(f"{name} is not supported: apply it, image.replace(affine=pre_affine @ image.affine)")


@transform
class Resample(SpatialTransform):
    """Bring images to another spacing, or to the grid of another image.

    target: voxel size in mm, one or three; or the grid of an image: its path, the Image, its name in the subject, or
    (shape, affine).  A spacing keeps direction and centre: n' = floor(n s / s'), 1 where n is 1.
    pre_affine_name: None; TorchIO's affine in the metadata of an image is refused, with what to write instead.
    scalars_only: leave label maps alone.  antialias: smooth scalar images first where voxels get coarser, by a Gaussian
    of variance (k^2 - 1) / (8 ln 2) voxels for a factor k.  default_pad_value, default_pad_label: what lies outside
    of the image, if the target reaches further; as in `Affine`, here 0.
    Interpolations are as in `Affine`.

    Shapes: (C, I, J, K) -> (C, I', J', K'), which depends on the affine: under jit a fixed shape must follow
    (CropOrPad).  Images become float32, label maps keep their dtype.  Each image on its own.
    Raises ValueError for spacings <= 0 or past the field of view.
    Source: TorchIO 1.2.1; here inexact ratios lose no voxel, and integers are not truncated.
    """

    target: Any = leaf(default=1.0, convert=target_of)
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)
    pre_affine_name: None = static(default=None, convert=no_pre_affine)
    scalars_only: bool = static(default=False, convert=flag)
    antialias: bool = static(default=False, convert=flag)
    default_pad_value: Fill = static(default=0.0, convert=move_fill, kw_only=True)
    default_pad_label: float = static(default=0.0, convert=finite(), kw_only=True)
    p: float = always(default=1.0)

    reshapes = True
    rescales = True

    @property
    def anchor(self) -> str | None:
        """The image whose grid is the target."""
        return self.target.image if isinstance(self.target, Named) else None

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        if isinstance(self.target, Named):
            return reference._replace(channels=grid.channels)
        if isinstance(self.target, Space):
            xp = namespace(grid.affine)
            affine = xp.asarray(self.target.affine, grid.affine.dtype)
            return Grid(affine, xp.asarray(self.target.shape, np.int32), self.target.shape, grid.channels)
        return respaced(grid, self.target)

    def sampling(self) -> Sampling:
        fills = (None, None)
        if isinstance(self.target, (Space, Named)) or (self.default_pad_value, self.default_pad_label) != (0.0, 0.0):
            fills = (self.default_pad_value, self.default_pad_label)
        return Sampling(self.image_interpolation, self.label_interpolation, *fills, antialias=self.antialias)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        if isinstance(self.target, Space):
            target = Grid(np.asarray(self.target.affine), np.asarray(self.target.shape))
            check_overlap({"the target of Resample": target, **grids})

    def check_subject(self, subject: Subject) -> None:
        if self.anchor is not None and self.anchor not in subject.images:
            known = ", ".join(subject.images)
            raise ValueError(f"target={self.anchor!r} is no file and no image of the subject, which has {known}")
