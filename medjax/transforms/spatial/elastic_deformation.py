"""Smooth random deformation by a cubic B-spline on a coarse grid of control points."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys
from medjax.arguments import choice, finite, flag, vector, wholes
from medjax.geometry import BSpline, Grid, direction, homogeneous, inverse, matmul, namespace, own_axes, spacing
from medjax.ranges import leaf, number
from medjax.transforms.sampling import Fill, interpolation, label_interpolation, move_fill
from medjax.transforms.spatial.moving import Moving
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params

LPS = np.array([-1, -1, 1])
FRAMES = ("world", "voxel")


def free(count: Sequence[int], locked: int) -> np.ndarray:
    """Which control points may move, (n0, n1, n2) bool: `locked` layers on every side of all three axes may not."""
    inside = [(np.arange(n) >= locked) & (np.arange(n) < n - locked) for n in count]
    return inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :]


def control_axes(reference: Grid, frame: str) -> tuple[Any, Any]:
    """The voxel axis that each axis of the control grid runs along, and whether backwards: (3,), (3,).

    'voxel': each its own, forwards. 'world': as ITK's B-spline initializer: the grid starts at the corner of the field
    of view nearest to the minimum of its bounding box in LPS, and L, P, S in turn take the free edge that leaves it at
    the smallest angle.
    """
    xp = namespace(reference.affine)
    dtype = reference.affine.dtype
    if frame == "voxel":
        return xp.arange(3, dtype=np.int32), xp.zeros(3, bool)
    lps = xp.asarray(LPS, dtype)
    bits = xp.asarray([[b >> 2 & 1, b >> 1 & 1, b & 1] for b in range(8)], dtype)
    index = bits * reference.shape.astype(dtype)[None, :] - 0.5
    position = ((reference.affine[None, :3, :3] * index[:, None, :]).sum(-1) + reference.affine[None, :3, 3]) * lps[
        None, :
    ]
    start = bits[xp.argmin(((position - position.min(0)[None, :]) ** 2).sum(1))]
    cosine = direction(reference.affine) * lps[:, None] * (1 - 2 * start)[None, :]
    axes, taken = [], xp.zeros(3, bool)
    for world in range(3):
        axis = xp.argmax(xp.where(taken, -2, cosine[world]).astype(dtype)).astype(np.int32)
        axes.append(axis)
        taken = taken | (xp.arange(3, dtype=np.int32) == axis)
    chosen = xp.stack(axes)
    return chosen, start[chosen] > 0.5


def control_spacing(reference: Grid, count: Sequence[int], frame: str) -> Any:
    """Distance of neighbouring control points along each axis of their grid, mm."""
    xp = namespace(reference.affine)
    axes, _ = control_axes(reference, frame)
    voxels = reference.shape[axes].astype(reference.affine.dtype)
    return spacing(reference.affine)[axes] * (voxels + 0.25) / xp.asarray([n - 3 for n in count], voxels.dtype)


def elastic_map(points: Any, reference: Grid, frame: str) -> BSpline:
    """The map of control points (n0, n1, n2, 3), mm along the axes of their grid, over the reference grid."""
    xp = namespace(reference.affine)
    dtype = reference.affine.dtype
    axes, backwards = control_axes(reference, frame)
    voxels = reference.shape[axes].astype(dtype)
    slope = xp.asarray([n - 3 for n in points.shape[:3]], dtype) / (voxels + 0.25)
    offset = (xp.where(backwards, voxels - 1, 0) + 0.625) * slope + 1
    linear = xp.where(
        xp.arange(3, dtype=np.int32)[None, :] == axes[:, None], xp.where(backwards, -slope, slope)[:, None], 0
    ).astype(dtype)
    moved = xp.moveaxis(xp.asarray(points).astype(dtype), 3, 0)
    if frame == "world":
        along, thin = own_axes(reference)
        along = along * xp.asarray(LPS, dtype)[None, :]
    else:
        along, thin = direction(reference.affine), reference.shape == 1
    moved = xp.where(thin[:, None, None, None], 0, moved).astype(dtype)
    control = (along[:, :, None, None, None] * moved[None]).sum(1)
    return BSpline(control, matmul(homogeneous(linear, offset.astype(dtype)), inverse(reference.affine)))


def warn_of_folding(displacement: Any, grids: dict[str, Grid], count: Sequence[int], frame: str) -> None:
    """Warn where a displacement exceeds half the distance of control points, beyond which the field can fold."""
    if not grids:
        return  # no image is included
    reference = next(iter(grids.values()))
    thin = reference.shape[control_axes(reference, frame)[0]] == 1  # nothing moves along it
    limit = np.where(thin, np.inf, control_spacing(reference, count, frame) / 2)
    if np.any(np.asarray(displacement) > limit):
        asked, safe = (", ".join(f"{v:.3g}" for v in np.asarray(a)) for a in (displacement, limit))
        axes = "L, P, S" if frame == "world" else "the voxel axes"
        warnings.warn(
            f"max_displacement ({asked}) mm along {axes} exceeds half the spacing of control points, ({safe}) mm: the "
            "deformation may fold; use a smaller max_displacement, fewer control points, or capped=True",
            stacklevel=2,
        )


@abstract
class ControlPoints(Moving):
    """Abstract. Moves by a B-spline of control points."""

    default_pad_value: Fill = static(default="minimum", convert=move_fill, kw_only=True)
    default_pad_label: float = static(default=0.0, convert=finite(), kw_only=True)
    frame: str = static(default="world", convert=choice(*FRAMES), kw_only=True)

    def move(self, params: Params, reference: Grid) -> BSpline:
        return elastic_map(params["control_points"], reference, self.frame)


@transform
class ElasticDeformation(ControlPoints):
    """Deform by a cubic B-spline of given control points; the grid stays.

    p_in = p_out + d(p_out), d(x) = sum of B3 B3 B3 c over the control grid, coefficients used as they are.

    control_points: (n0, n1, n2, 3), mm; its axes and the vector's components are L, P, S of the world, as in ITK, over
    the field of view of the first image and an eighth of a voxel around.
    max_displacement: mm along L, P, S; it only feeds the warning of folding.
    frame: 'world', or 'voxel' for the axes 0, 1, 2 of the first image instead of L, P, S, so that the same points
    deform its voxels alike in any orientation.
    Fills and interpolations are as in `Affine`.

    Shapes: (C, I, J, K) -> same; images become float32, label maps keep their dtype.  A slice is moved within itself,
    along its own axes instead of L, P, S.  Warns where max_displacement exceeds half the spacing of control points.
    Source: TorchIO 1.2.1 / ITK; here labels outside are 0, not their minimum, and the warning names the true limit.
    """

    control_points: Any = leaf(convert=vector((None, None, None, 3), least=4))
    max_displacement: Any = number(default=0.0, low=0.0, shape=(3,))
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"control_points": jnp.asarray(self.control_points)}

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        warn_of_folding(self.max_displacement, grids, self.control_points.shape[:3], self.frame)


@transform
class RandomElasticDeformation(ControlPoints):
    """`ElasticDeformation` with control points drawn uniformly, once per subject and shared by its images.

    num_control_points: per axis L, P, S, at least 4.
    max_displacement: mm along L, P, S; each component of each point is uniform in (-D, D).
    locked_borders: 0, 1 or 2 outer layers of points that do not move, on all three axes: 1 freezes the ring outside the
    image, 2 also the ring on its border.
    capped: limit D along each axis to half the distance of control points of the first image, below which nothing folds
    (thin stacks).
    The rest is as in `ElasticDeformation`.

    Raises ValueError if locked_borders leaves no point free.  Source: TorchIO 1.2.1, which leaves the third axis
    unlocked and documents (0, D).
    """

    num_control_points: Any = static(default=7, convert=wholes(3, low=4))
    max_displacement: Any = number(default=7.5, low=0.0, shape=(3,))
    locked_borders: int = static(default=2, convert=choice(0, 1, 2))
    image_interpolation: str = static(default="linear", convert=interpolation)
    label_interpolation: str = static(default="nearest", convert=label_interpolation)
    capped: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def __post_init__(self):
        super().__post_init__()
        if self.locked_borders == 2 and 4 in self.num_control_points:
            raise ValueError("locked_borders=2 with 4 control points leaves none free: use 1 or 0, or 5 points or more")

    def draw(self, key: Key, grid: Grid) -> Params:
        reach = jnp.asarray(self.max_displacement)
        if self.capped:
            half = control_spacing(grid, self.num_control_points, self.frame) / 2
            reach = jnp.minimum(reach, half.astype(reach.dtype))
        shape = (*self.num_control_points, 3)
        unit = random.uniform(keys.for_name(key, "control_points"), shape, reach.dtype, -1, 1)
        movable = jnp.asarray(free(self.num_control_points, self.locked_borders), reach.dtype)[..., None]
        return {"control_points": unit * reach[None, None, None] * movable}

    def check(self, grids: dict[str, Grid], located: Params) -> None:
        if not self.capped:
            warn_of_folding(self.max_displacement, grids, self.num_control_points, self.frame)
