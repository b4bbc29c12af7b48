"""Affines, voxel grids and coordinate maps, in NumPy float64 on the host and in JAX under a trace alike.

World coordinates are millimetres, RAS+. An affine (4, 4) takes a voxel index to the world; voxel centres lie at
integer indices. Every product is in full precision: TF32 operands would move a voxel by a fifth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce, wraps
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from medjax.arguments import as_numbers
from medjax.errors import needs_concrete
from medjax.typing import Affine, Shape3, Tracer, working

T = TypeVar("T")
AXIS_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


class Grid(NamedTuple):
    """A voxel grid: affine (4, 4), number of voxels (3,), and that number once more if it is known statically."""

    affine: Any
    shape: Any
    fixed: Shape3 | None = None
    channels: int = 1


@partial(jax.tree_util.register_dataclass, data_fields=["affine"], meta_fields=["shape"])
@dataclass(frozen=True)
class Space:
    """A grid in the world that a transform goes to: affine (4, 4) and shape; part of the transform, unlike `Grid`."""

    affine: Any
    shape: Shape3

    def moved(self, offset: Any) -> "Space":
        """The grid moved by an offset (3,), mm."""
        shift = np.zeros((4, 4))
        shift[:3, 3] = offset
        return Space(np.asarray(self.affine, np.float64) + shift, self.shape)


def namespace(*arrays: Any) -> Any:
    """NumPy if every array is NumPy's, else jax.numpy."""
    for array in arrays:  # what is asked first is quick, what it spares is not
        if type(array) is not np.ndarray and isinstance(array, jax.Array):
            return jnp
    return np


def traced_once(function: Callable[..., T]) -> Callable[..., T]:
    """A function of arrays which, where they are JAX's, is traced once for all calls alike.

    A pipeline asks for dozens of inverses, and tracing one takes a hundred times as long as looking up that it was.
    What is compiled is the same: XLA makes it part of what calls it.
    """
    compiled = jax.jit(function)

    @wraps(function)
    def call(*arrays: Any) -> T:
        return function(*arrays) if namespace(*arrays) is np else compiled(*arrays)

    return call


def matmul(*matrices: Any) -> Any:
    """The product of small matrices, in full precision."""
    xp = namespace(*matrices)
    if xp is np:
        return reduce(np.matmul, matrices)
    # As sums, which XLA makes part of what is around them: each `dot` would be a kernel of its own.
    return reduce(lambda a, b: (a[:, :, None] * b[None]).sum(1), matrices)


def homogeneous(linear: Any, offset: Any) -> Any:
    """The 4x4 matrix of x -> linear x + offset."""
    xp = namespace(linear, offset)
    last = xp.asarray([[0, 0, 0, 1]], linear.dtype)
    return xp.concatenate([xp.concatenate([linear, offset[:, None]], 1), last], 0)


def identity(xp: Any, dtype: Any) -> Any:
    """The 4x4 identity."""
    return xp.eye(4, dtype=dtype)


def translation(offset: Any) -> Any:
    """The 4x4 matrix of x -> x + offset."""
    return homogeneous(namespace(offset).eye(3, dtype=offset.dtype), offset)


def scaling(factors: Any) -> Any:
    """The 4x4 matrix of x -> factors x."""
    xp = namespace(factors)
    return homogeneous(xp.diag(factors), xp.zeros(3, factors.dtype))


@traced_once
def inverse(matrix: Any) -> Any:
    """The inverse of a 4x4 affine in closed form: no linear algebra library, exact for scaled permutations."""
    xp = namespace(matrix)
    if xp is np:
        return inverse_on_host(matrix)
    a, b, c = matrix[0, :3], matrix[1, :3], matrix[2, :3]
    cofactors = xp.stack([xp.cross(b, c), xp.cross(c, a), xp.cross(a, b)], 1)
    linear = cofactors / (a * cofactors[:, 0]).sum()
    return homogeneous(linear, -transform_vector(linear, matrix[:3, 3]))


def inverse_on_host(matrix: np.ndarray) -> np.ndarray:
    """`inverse` in Python's numbers, of which a few are forty times faster than NumPy's arrays of three."""
    (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = matrix.tolist()
    cofactors = (
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    )
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    rows = [[v / determinant for v in row] for row in cofactors]
    rows = [[*row, -(row[0] * x + row[1] * y + row[2] * z)] for row in rows]
    return np.array([*rows, (0, 0, 0, 1)], matrix.dtype)


def transform_vector(linear: Any, vector: Any) -> Any:
    """linear (3, 3) times vector (3,), in full precision."""
    return (linear * vector[None, :]).sum(1)


def transform_point(matrix: Any, point: Any) -> Any:
    """The 4x4 `matrix` applied to a point (3,)."""
    return transform_vector(matrix[:3, :3], point) + matrix[:3, 3]


def spacing(affine: Affine) -> Any:
    """Voxel size in mm along each voxel axis, (..., 3)."""
    xp = namespace(affine)
    return xp.sqrt((affine[..., :3, :3] ** 2).sum(-2))


def direction(affine: Any) -> Any:
    """Unit vectors of the voxel axes in the world, as columns (3, 3)."""
    return affine[:3, :3] / spacing(affine)[None, :]


def center(grid: Grid) -> Any:
    """World position of the middle of a grid."""
    return transform_point(grid.affine, (grid.shape.astype(grid.affine.dtype) - 1) / 2)


def bounding_box(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest world coordinates of a field of view, (..., 3) mm; on the host, for batches too."""
    affine, shape = np.asarray(grid.affine, np.float64), np.asarray(grid.shape, np.float64)
    middle = (affine[..., :3, :3] * ((shape - 1) / 2)[..., None, :]).sum(-1) + affine[..., :3, 3]
    reach = (np.abs(affine[..., :3, :3]) * (shape / 2)[..., None, :]).sum(-1)
    return middle - reach, middle + reach


def check_overlap(grids: dict[str, Grid]) -> None:
    """Raise a ValueError unless the bounding box of every field of view meets that of the first; on the host."""
    boxes = {name: bounding_box(grid) for name, grid in grids.items()}
    names = list(boxes)
    for name in names[1:]:
        (low, high), (start, end) = boxes[names[0]], boxes[name]
        if not np.all((low < end) & (start < high)):
            spans = [" to ".join(str(np.round(v, 1).tolist()) for v in boxes[n]) for n in (names[0], name)]
            raise ValueError(
                f"{names[0]} and {name} do not overlap in the world, one spans {spans[0]} mm and the other "
                f"{spans[1]} mm: check their affines"
            )


SAME_GRID = 0.5
"""Voxels that the corners of two grids may lie apart where a voxel of one has to be that of the other."""


def corners_apart(first: Grid, other: Grid) -> np.ndarray:
    """The most voxels of the first that two grids of one shape lie apart at a corner, (...); for batches too."""
    ends = np.asarray(first.shape, np.float64)[..., None, :] - 1
    corners = np.indices((2, 2, 2)).reshape(3, 8).T * ends
    step = np.linalg.inv(np.asarray(first.affine, np.float64)) @ np.asarray(other.affine, np.float64)
    moved = corners @ np.swapaxes(step[..., :3, :3], -1, -2) + step[..., None, :3, 3]
    return np.abs(moved - corners).max((-1, -2))


def check_same_grid(grids: dict[str, Grid], who: str, tolerance: float = SAME_GRID) -> None:
    """Raise a ValueError unless all grids are the first, to `tolerance` of its voxels at the corners.

    Grids may be batches: affines (..., 4, 4), shapes (..., 3). Affines that are traced are not compared.
    """
    names = list(grids)
    known = not any(isinstance(grid.affine, Tracer) for grid in grids.values())
    for name in names[1:]:
        first, other = grids[names[0]], grids[name]
        shapes = [np.reshape(grid.shape, (-1, 3)) for grid in (first, other)]
        unlike = (shapes[0] != shapes[1]).any(-1)
        moved = known and not unlike.any() and not np.array_equal(first.affine, other.affine)
        apart = np.reshape(corners_apart(first, other), -1) if moved else np.zeros(1)
        if unlike.any() or apart.max() > tolerance:
            worst = int(np.argmax(unlike if unlike.any() else apart))
            one, two = (tuple(int(n) for n in shape[worst]) for shape in shapes)
            lie = "" if unlike.any() else f", corners up to {apart[worst]:.3g} voxels apart"
            raise ValueError(
                f"{who} needs images on one grid, but {names[0]!r} has shape {one} and {name!r} {two}{lie}: put "
                f"ToCanonical() before it if their axes run along different directions, else Resample({names[0]!r})"
            )


def is_traced(*values: Any) -> bool:
    """Whether any of these numbers, or arrays, or sequences of them, is known only while tracing."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def check_affine(affine: Any, what: str = "affine") -> Any:
    """A float64 (4, 4) array; raises ValueError if it is not one, not finite or singular.

    One that is traced stays a JAX array, float32 unless it is float64, and only its shape can be checked.
    """
    known = not is_traced(affine)
    matrix = np.array(as_numbers(what, affine), np.float64) if known else jnp.asarray(affine)
    if matrix.shape != (4, 4):
        raise ValueError(f"{what} must have shape (4, 4), got {matrix.shape}")
    if not known:
        return matrix.astype(working(matrix.dtype))
    if not np.isfinite(matrix).all():
        raise ValueError(f"{what} is not finite: {matrix.tolist()}")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12 * max(np.abs(matrix[:3, :3]).max(), 1e-30) ** 3:
        raise ValueError(f"{what} is singular: {matrix.tolist()}")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ValueError(f"the last row of {what} must be 0, 0, 0, 1, got {matrix[3].tolist()}")
    return matrix


@traced_once
def nearest_rotation(linear: Any) -> Any:
    """The orthogonal matrix nearest to a (3, 3) one, its polar factor, by Newton's iteration (Higham, 1986)."""
    whole = homogeneous(linear, namespace(linear).zeros(3, linear.dtype))
    for _ in range(12):
        whole = (whole + inverse(whole).T) / 2
    return whole[:3, :3]


def window(grid: Grid, first: Any, shape: Any, fixed: Shape3 | None) -> Grid:
    """The grid of `shape` voxels whose first is at index `first` of another grid; negative indices extend it."""
    origin = transform_point(grid.affine, first.astype(grid.affine.dtype))
    return Grid(homogeneous(grid.affine[:3, :3], origin), shape.astype(np.int32), fixed, grid.channels)


@traced_once
def world_axes(affine: Any) -> Any:
    """For each world axis R, A, S the voxel axis that lies closest to it, and the sign of its step: (3,), (3,).

    The largest direction cosine is taken first, then the next among the axes left, so that it is a permutation.
    """
    xp = namespace(affine)
    cosines = direction(affine)
    size = xp.abs(cosines)
    axes, signs = xp.zeros(3, np.int32), xp.zeros(3, affine.dtype)
    rows, columns = xp.arange(3, dtype=np.int32)[:, None], xp.arange(3, dtype=np.int32)[None, :]
    for _ in range(3):
        flat = xp.argmax(size).astype(np.int32)
        world, voxel = flat // 3, flat % 3
        here = xp.arange(3, dtype=np.int32) == world
        axes = xp.where(here, voxel, axes)
        signs = xp.where(here, xp.sign(cosines[world, voxel]), signs)
        size = xp.where((rows == world) | (columns == voxel), xp.asarray(-1, size.dtype), size)
    return axes, signs


def own_axes(grid: Grid) -> tuple[Any, Any]:
    """Unit vectors along which a grid is moved, columns (3, 3) in the order R, A, S, and which it is thin along, (3,).

    Those of the world for a volume. A slice or a line is moved within itself: along its own directions, the normal of
    a slice included, each taken for the world axis that lies closest.
    """
    xp = namespace(grid.affine)
    thin, dtype = grid.shape == 1, grid.affine.dtype
    known = grid.shape if xp is np else grid.fixed
    if known is not None and 1 not in tuple(known):
        return xp.eye(3, dtype=dtype), xp.zeros(3, bool)
    order = xp.argsort(thin.astype(np.int32), stable=True)  # what is thick first: of a sheared slice the normal is last
    columns: list[Any] = []
    for vector in direction(grid.affine)[:, order].T:
        for done in columns:
            vector = vector - (vector * done).sum() * done
        columns.append(vector / xp.sqrt((vector**2).sum()))
    axes, signs = world_axes(grid.affine)
    own = xp.stack(columns, 1)[:, xp.argsort(order)][:, axes] * signs[None, :]
    return xp.where(thin.any(), own, xp.eye(3, dtype=dtype)), thin[axes]


def orientation(affine: Any) -> tuple[str, str, str]:
    """The anatomical directions in which the voxel axes run, as ('R', 'A', 'S').

    Raises TypeError for an affine that is traced, ValueError for those of a batch.
    """
    if is_traced(affine):
        needs_concrete(
            "the orientation of an image", "ask before jit, grad or vmap, or bring it to one by ToCanonical()"
        )
    if np.ndim(affine) != 2:
        raise ValueError(f"affine must be (4, 4), got {np.shape(affine)}: medjax.unstack gives the subjects of a batch")
    axes, signs = world_axes(np.asarray(affine, np.float64))
    codes = [""] * 3
    for world, (voxel, sign) in enumerate(zip(axes, signs, strict=True)):
        codes[voxel] = AXIS_CODES[world][int(sign > 0)]
    return codes[0], codes[1], codes[2]


def flip_matrix(shape: Any, reverse: Any, dtype: Any) -> Any:
    """Index to index: reverses the axes where `reverse` (3,) is true in a grid of `shape` (3,) voxels."""
    xp = namespace(shape, reverse)
    sign = xp.where(reverse, -1, 1).astype(dtype)
    return homogeneous(xp.diag(sign), xp.where(reverse, shape - 1, 0).astype(dtype))


class Linear(NamedTuple):
    """A map of the world given by a 4x4 matrix: output mm to input mm."""

    matrix: Any


class BSpline(NamedTuple):
    """A map of the world x -> x + d(x), d a cubic B-spline of control points.

    control: (3, n0, n1, n2), mm, vector components along R, A, S. to_grid: 4x4, world mm to control coordinates,
    in which coefficient j sits at j.
    """

    control: Any
    to_grid: Any


class Inverted(NamedTuple):
    """The way back through a map that has none in closed form; found by iteration where it is evaluated."""

    forward: "BSpline | Flow"


class Flow(NamedTuple):
    """A map of the world: the flow of a stationary velocity field for unit time; integrated where it is evaluated.

    velocity: (3, n0, n1, n2), in steps of the lattice. to_lattice: 4x4, world mm to lattice coordinates. lattice: how
    many points it has, static.
    """

    velocity: Any
    to_lattice: Any
    lattice: Shape3


Map: TypeAlias = Linear | BSpline | Inverted | Flow


def inverted(move: Map) -> Map:
    """The map that takes a move back."""
    if isinstance(move, Linear):
        return Linear(inverse(move.matrix))
    if isinstance(move, Flow):  # but for its lattice, which between voxels reads smoother than the exact way back
        return move._replace(velocity=-move.velocity)
    return move.forward if isinstance(move, Inverted) else Inverted(move)


def plain(values: Any) -> Any:
    """Three floats as a tuple; arrays that are traced or batched as they are."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return tuple(float(v) for v in values)
    if isinstance(values, jax.Array) and not isinstance(values, Tracer) and values.ndim == 1:
        return tuple(float(v) for v in values)
    return values
