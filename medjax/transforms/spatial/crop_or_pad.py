"""A fixed shape, by cutting and padding."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys
from medjax.arguments import MOST, choice, finite, flag, label_values, maybe, scalar, spread, stated, text
from medjax.geometry import Grid, check_same_grid, namespace, spacing, window
from medjax.image import LabelMap
from medjax.ops.statistics import within
from medjax.subject import Subject
from medjax.transforms.masking import box_of, marked
from medjax.transforms.place import Place
from medjax.transforms.sampling import Fill, Sampling, label_pad, pad_fill
from medjax.transforms.transform import SpatialTransform, always, static, transform
from medjax.typing import Key, Params, Shape3

UNITS = {"voxels": None, "mm": 1.0, "cm": 10.0}
TOLERANCE = 1e-3
"""How far apart, in voxels, the corners of two grids may be that count as one."""


def lengths(value: Any) -> tuple[float | None, ...]:
    """Three positive sizes, ints where they are whole, None where an axis keeps its own."""
    found = tuple(None if n is None else scalar(n) for n in spread(value, 3))
    if any(n is not None and not 0 < n <= MOST for n in found):
        raise ValueError
    return tuple(int(n) if n is not None and n % 1 == 0 else n for n in found)


shape_of = maybe(stated("one positive size or three (None keeps an axis)", lengths))


@transform
class CropOrPad(SpatialTransform):
    """Cut and pad images to one shape; exact, no interpolation.

    target_shape: one size or three; None keeps an axis; None as a whole takes the box of the mask.
    padding_mode: what is added: a number, 'constant' (0), 'minimum', 'maximum', 'mean' or 'median' of the image,
    'edge', 'reflect', 'symmetric' or 'wrap'; label maps get 0 for a statistic, or `padding_label` if it is not None.
    mask_name: a label map about whose box (of its nonzero voxels, or of `labels`) the window is centred.
    only_crop, only_pad: never pad, or never cut.  location: 'center', or 'random': where to cut, uniform over all
    places; padding stays centred.  units: of target_shape, 'voxels', 'mm' or 'cm' (rounded to voxels).
    tolerance: voxels by which the corners of images may lie apart and still share a grid, which they must.

    An odd voxel is cut or padded at the low end about the centre, and the window goes to the low end about a mask, as
    TorchIO 1.2.1 does.  Shapes: (C, I, J, K) -> (C, *target_shape); dtypes stay.  A shape that depends on values (None,
    only_crop, only_pad, units, p < 1) must not end a run under jit.  Raises ValueError for a mask that is missing or
    empty, and for images on different grids.
    """

    target_shape: Any = static(default=None, convert=shape_of)
    padding_mode: Fill = static(default=0.0, convert=pad_fill)
    mask_name: str | None = static(default=None, convert=maybe(text))
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values))
    only_crop: bool = static(default=False, convert=flag)
    only_pad: bool = static(default=False, convert=flag)
    location: str = static(default="center", convert=choice("center", "random"))
    units: str = static(default="voxels", convert=choice(*UNITS))
    p: float = always(default=1.0)
    tolerance: float = static(default=TOLERANCE, convert=finite(0.0), kw_only=True)
    padding_label: float | None = static(default=None, convert=maybe(finite()), kw_only=True)

    exact = True
    reshapes = True

    def __post_init__(self):
        super().__post_init__()
        if self.only_crop and self.only_pad:
            raise ValueError("only_crop and only_pad cannot both be true")
        if self.target_shape is None and self.mask_name is None:
            raise ValueError("give target_shape, or mask_name to take the box of a mask")
        if self.location == "random" and self.mask_name is not None:
            raise ValueError("location='random' cannot be joined with mask_name")
        if self.labels is not None and self.mask_name is None:
            raise ValueError("labels selects values of a mask: give mask_name")
        if self.units == "voxels" and any(isinstance(n, float) for n in self.target_shape or ()):
            raise ValueError(f"target_shape must be whole numbers of voxels, got {self.target_shape}")

    @property
    def random(self) -> bool:
        """Whether the place is drawn."""
        return self.location == "random"

    @property
    def locates(self) -> bool:
        """Whether a mask must be seen first."""
        return self.mask_name is not None

    @property
    def beside(self) -> str | None:
        """The mask, by whose indices the window is placed."""
        return self.mask_name

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"start": random.uniform(keys.for_name(key, "start"), (3,), jnp.float32)} if self.random else {}

    def locate(self, subject: Subject, params: Params, places: dict[str, Place]) -> Params:
        if self.mask_name is None:
            return {}
        image = subject[self.mask_name]
        return box_of(within(marked(jnp.asarray(image.data)[:1], self.labels), image.real, False)[0])

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        if located and not located["found"]:
            what = "" if self.labels is None else f" with labels {self.labels}"
            raise ValueError(f"mask {self.mask_name!r}{what} has no voxels, so there is nothing to crop to")
        check_one_grid(grids, type(self).__name__, self.tolerance)

    def check_subject(self, subject: Subject) -> None:
        if self.mask_name is not None and not isinstance(subject.images.get(self.mask_name), LabelMap):
            maps = [n for n, i in subject.images.items() if i.is_label]
            raise ValueError(f"mask_name={self.mask_name!r} is no label map of the subject, which has {maps}")

    def regrid(self, grid: Grid, params: Params, reference: Grid) -> Grid:
        xp = namespace(grid.affine)
        old, target = grid.shape, self.wanted(grid, params, xp)
        if self.only_crop:
            target = xp.minimum(target, old)
        if self.only_pad:
            target = xp.maximum(target, old)
        half = (xp.abs(target - old) + 1) // 2
        first = xp.where(target > old, -half, half)
        if "start" in params:
            room = xp.maximum(old - target, 0)
            # One float32 product, on the host as under jit, so that both round to the same voxel.
            chosen = xp.floor(xp.asarray(params["start"]) * (room + 1).astype(np.float32)).astype(np.int32)
            first = xp.where(target > old, -half, xp.minimum(chosen, room))
        if "low" in params:
            low, high = xp.asarray(params["low"]), xp.asarray(params["high"])
            first = xp.where(xp.asarray(params["found"]), (low + high - target) // 2, first)
        if self.only_crop or self.only_pad:
            first = xp.clip(first, xp.minimum(old - target, 0), xp.maximum(old - target, 0))
        return window(grid, first, target, self.known(grid.fixed))

    def known(self, fixed: Shape3 | None) -> Shape3 | None:
        """The target shape, if it does not depend on values; `fixed` is that of the grid."""
        if self.target_shape is None or (self.units != "voxels" and self.target_shape != (None,) * 3):
            return None
        limit = min if self.only_crop else max
        sizes = []
        for axis, size in enumerate(self.target_shape):
            if size is not None and not (self.only_crop or self.only_pad):
                sizes.append(size)
            elif fixed is None:
                return None
            else:
                sizes.append(fixed[axis] if size is None else limit(size, fixed[axis]))
        return sizes[0], sizes[1], sizes[2]

    def wanted(self, grid: Grid, params: Params, xp: Any) -> Any:
        """The target shape in voxels, (3,) int32."""
        if self.target_shape is None:
            if "low" not in params:
                return grid.shape
            return xp.asarray(params["high"] - params["low"]).astype(np.int32)
        size = UNITS[self.units]
        if size is None:
            given = xp.asarray([0 if n is None else n for n in self.target_shape], np.int32)
        else:
            mm = xp.asarray([0 if n is None else n * size for n in self.target_shape], grid.affine.dtype)
            given = xp.maximum(xp.round(mm / spacing(grid.affine)), 1).astype(np.int32)
        return xp.where(xp.asarray([n is None for n in self.target_shape]), grid.shape, given).astype(np.int32)

    def sampling(self) -> Sampling:
        label = label_pad(self.padding_mode) if self.padding_label is None else self.padding_label
        return Sampling(pad=self.padding_mode, label_pad=label)


def check_one_grid(grids: dict[str, Grid], who: str, tolerance: float = TOLERANCE) -> None:
    """Raise a ValueError unless all grids are one, to `tolerance` voxels at the corners; on the host."""
    check_same_grid(grids, who, tolerance)
