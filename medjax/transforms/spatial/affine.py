"""Rotate, scale and shift in world millimetres."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.affine_map import affine_map, shearing
from medjax.arguments import choice, finite, flag
from medjax.errors import shown
from medjax.geometry import Grid, Linear
from medjax.ranges import Range, number, uniform
from medjax.transforms.sampling import Fill, interpolation, label_interpolation, move_fill
from medjax.transforms.spatial.moving import Moving
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params, Tracer


def check_shears(factors: Any) -> None:
    """Raise a ValueError for shears that fold the world."""
    if not isinstance(factors, Tracer):
        matrix = shearing(np.asarray(factors), np.zeros(3, bool))
        if np.linalg.det(matrix) < 1e-3:
            raise ValueError(f"shears={np.asarray(factors).tolist()} fold the world: the matrix has no positive det")


@abstract
class CentredAffine(Moving):
    """Abstract. Scales, rotates, shears and shifts about a centre."""

    order: str = static(default="world", convert=choice("world", "object"), kw_only=True)

    center = "image"  # fields of both, in their places among the others: not annotated here
    check_shape = False

    @property
    def absolute(self) -> bool:
        """Whether the world's origin is the centre."""
        return self.center == "origin"

    def move(self, params: Params, reference: Grid) -> Linear:
        return affine_map(params, reference, self.center, self.order)

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        shapes = {name: tuple(int(n) for n in grid.shape) for name, grid in grids.items()}
        if self.check_shape and len(set(shapes.values())) > 1:
            raise ValueError(f"check_shape=True, but the images differ in shape: {shapes}")


@transform
class Affine(CentredAffine):
    """Scale, rotate and shift the content about the image centre, in world mm; the grid stays.

    p_out = c + S (R H (p_in - c) + t), R = Rz Rx Ry: rotations are right-handed about the RAS axes, scale 2 makes
    objects twice as large along world axes, a translation moves the content toward R, A, S and is scaled too.
    order='object': p_out = c + R H S (p_in - c) + t, so that a scaled object is not sheared by its own rotation.

    scales: factor per world axis, > 0.
    degrees: per world axis.
    translation: mm per world axis.
    shears: the six entries xy, xz, yx, yz, zx, zy of H beside a diagonal of ones.
    center: 'image', the middle of the first image, or 'origin', the world's.
    default_pad_value: what lies outside: 'minimum' of each channel, 'mean' of its faces, 'otsu' (mean of the faces
    below Otsu's threshold), 'edge', 'reflect', or a number.
    default_pad_label: a number.
    image_interpolation: 'nearest', 'linear' or 'cubic' (B-spline).
    label_interpolation: 'nearest', or 'linear', the vote of the eight corners.
    check_shape: refuse images of different shapes; by default they move together.

    Shapes: (C, I, J, K) -> same; images become float32, label maps keep their dtype.  Labels: nothing new in them but
    default_pad_label.  Inverse: exact in geometry.  Raises ValueError for scales <= 0, shears that
    fold, and fills that a label map's dtype cannot hold.
    Source: TorchIO 1.2.1, conventions of ITK's Euler transform; here empty borders do not hide a zero background from
    'otsu', labels keep their integers, and a single slice is moved within itself, along its own axes.
    """

    scales: Any = number(default=1.0, low=1e-6, shape=(3,))
    degrees: Any = number(default=0.0, shape=(3,))
    translation: Any = number(default=0.0, shape=(3,))
    center: str = static(default="image", convert=choice("image", "origin"))
    default_pad_value: Fill = static(default="minimum", convert=move_fill)
    default_pad_label: float = static(default=0.0, convert=finite())
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)
    check_shape: bool = static(default=False, convert=flag)
    shears: Any = number(default=0.0, shape=(6,), kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        check_shears(self.shears)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {name: jnp.asarray(getattr(self, name)) for name in ("scales", "degrees", "translation", "shears")}


@transform
class RandomAffine(CentredAffine):
    """`Affine` with random scales, degrees and translation, drawn once per subject and shared by its images.

    scales: uniform per axis, x is (1 - x, 1 + x).
    degrees: uniform per axis, x is (-x, x).
    translation: mm, uniform per axis, x is (-x, x).
    isotropic: one scale for all axes.
    shears: all six uniform, x is (-x, x), within (-0.4, 0.4).
    The rest is as in `Affine`.
    Raises ValueError if a scale can reach 0.
    """

    scales: Range = uniform(default=0.1, around=1.0, per_axis=True, low=1e-6)
    degrees: Range = uniform(default=10.0, around=0.0, per_axis=True)
    translation: Range = uniform(default=0.0, around=0.0, per_axis=True)
    isotropic: bool = static(default=False, convert=flag)
    center: str = static(default="image", convert=choice("image", "origin"))
    default_pad_value: Fill = static(default="minimum", convert=move_fill)
    default_pad_label: float = static(default=0.0, convert=finite())
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)
    check_shape: bool = static(default=False, convert=flag)
    shears: Range = uniform(default=0.0, around=0.0, low=-0.4, high=0.4, kw_only=True)

    random = True

    def __post_init__(self):
        scales = ranges.support(self.scales)
        if flag("isotropic", self.isotropic) and np.size(scales) > 2 and np.shape(scales) != (3, 2):
            raise ValueError(f"isotropic=True takes one or two scales, got {shown(self.scales)}")
        super().__post_init__()

    def draw(self, key: Key, grid: Grid) -> Params:
        drawn = {n: ranges.draw(keys.for_name(key, n), getattr(self, n)) for n in ("scales", "degrees", "translation")}
        if self.isotropic:
            drawn["scales"] = jnp.full(3, drawn["scales"][0])
        return {**drawn, "shears": ranges.draw(keys.for_name(key, "shears"), self.shears, (6,))}
