"""Maps of the world evaluated at points: what elastic fields, flows and their inverses do to coordinates; traced."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax import geometry
from medjax.annotations import Annotation, Directions, Points, turned
from medjax.geometry import BSpline, Flow, Inverted, Linear, Map
from medjax.ops import bspline, velocity, warp
from medjax.subject import Subject
from medjax.transforms.place import Place, matrices, way_back
from medjax.typing import Params, Shape3

if TYPE_CHECKING:  # transforms are called through what is built on this
    from medjax.transforms.transform import VoxelTransform

SOLVING_STEPS = 12
FLOW_STEPS = 6
HIGHEST = jax.lax.Precision.HIGHEST
FEW = 8
"""Up to how many control points along an axis a field is not stored."""


def is_halved(end: Place) -> bool:
    """Whether the moves are linear but for one, of few enough control points to sum over them at each voxel."""
    curved = [move for move in end.moves if not isinstance(move, Linear)]
    return len(curved) == 1 and isinstance(curved[0], BSpline) and max(curved[0].control.shape[1:]) <= FEW


def runs_along(end: Place, out: Shape3) -> Array:
    """Whether the new grid runs along the axes of the control points of the one elastic move."""
    matrix = end.grid.affine
    for move in reversed(end.moves):
        if isinstance(move, BSpline):
            return bspline.is_aligned(geometry.matmul(move.to_grid, matrix), out)
        matrix = geometry.matmul(*matrices(move), matrix)
    raise AssertionError("there is no elastic move")


def halved(begin: Place, end: Place, out: Shape3) -> tuple[Array, Array, Array]:
    """Voxels of the old grid from those of the new as a matrix and a displacement, the last product of it not done.

    Kept so through the linear moves, the displacement is a few sums at each voxel and is never stored.
    """
    matrix, half, weights = end.grid.affine, None, None
    for move in (*reversed(end.moves), Linear(geometry.inverse(begin.grid.affine))):
        if isinstance(move, BSpline):
            half, weights = bspline.halves(move.control, geometry.matmul(move.to_grid, matrix), out)
        elif isinstance(move, Linear):
            matrix = geometry.matmul(move.matrix, matrix)
            if half is not None:
                half = jnp.tensordot(move.matrix[:3, :3].astype(half.dtype), half, 1, precision=HIGHEST)
    return matrix, half, weights


def summed(half: Array, weights: Array) -> warp.Coordinates:
    """The last product of a displacement, (3, N, I, J) with (N, K), as sums that become part of what reads them."""
    x, y, z = (sum(part[n][:, :, None] * weights[n][None, None] for n in range(len(part))) for part in half)
    return x, y, z


def deform(end: Place, out: Shape3, index: warp.Coordinates, *, plain: bool, turned: bool = False) -> warp.Coordinates:
    """World positions in the input of the voxels of the new grid, all moves applied from the last to the first.

    Until the first elastic move the grid is kept as a matrix, so that a field along its axes costs three products;
    `plain` says that `index` is the grid itself, `turned` that it runs along no axes of control points. Fields are
    materialised, or every corner would compute them again.
    """
    matrix, regular = end.grid.affine, plain
    points = warp.map_coordinates(matrix, index)
    for move in reversed(end.moves):
        if isinstance(move, Linear):
            matrix = geometry.matmul(move.matrix, matrix)
            points = warp.map_coordinates(matrix, index) if regular else warp.map_coordinates(move.matrix, points)
            continue
        if isinstance(move, Inverted):
            points = solve(move.forward, points, bspline.field_at)
        else:
            coefficients, to_field, of = displacement(move)
            if regular:
                field_on = bspline.field_turned if turned else of.field_on
                field = field_on(coefficients, geometry.matmul(to_field, matrix), out)
            else:
                field = of.field_at(coefficients, warp.map_coordinates(to_field, points))
            points = added(points, jax.lax.optimization_barrier(field))
        regular = False
    return points


def displacement(move: BSpline | Flow) -> tuple[Array, Array, Any]:
    """Coefficients (3, ...) of a move's displacement, mm; the matrix from the world to them; the module to read them.

    That of a flow is integrated here, once for all points.
    """
    if isinstance(move, BSpline):
        return move.control, move.to_grid, bspline
    steps = velocity.flow(move.velocity, move.lattice)
    linear = geometry.inverse(move.to_lattice)[:3, :3].astype(steps.dtype)
    millimetres = warp.map_coordinates(
        geometry.homogeneous(linear, jnp.zeros(3, steps.dtype)), (steps[0], steps[1], steps[2])
    )
    return jax.lax.optimization_barrier(jnp.stack(millimetres)), move.to_lattice, velocity


def added(points: warp.Coordinates, field: Array | warp.Coordinates) -> warp.Coordinates:
    """Points moved by displacements (3, ...)."""
    x, y, z = (p + d for p, d in zip(points, field, strict=True))
    return x, y, z


def solve(move: BSpline | Flow, points: warp.Coordinates, field: Callable[..., Array]) -> warp.Coordinates:
    """Where the move comes from: x with move(x) = points, by x <- x + guess(points) - guess(move(x)).

    For a B-spline there is no guess but the point itself: each step divides the error by the inverse of the largest
    slope of the displacement, which is below 1 where nothing folds. A flow may stretch more than that; the flow of -v
    is its inverse but for the lattice, so a few steps take that away. `field` reads a B-spline.
    """
    if isinstance(move, BSpline):
        forward, guess, count = displacing(move, field), lambda x: x, SOLVING_STEPS
    else:
        back = move._replace(velocity=-move.velocity)
        forward, guess, count = displacing(move, field), displacing(back, field), FLOW_STEPS
    target = guess(points)

    def step(_: int, x: warp.Coordinates) -> warp.Coordinates:
        i, j, k = (a + t - b for a, t, b in zip(x, target, guess(forward(x)), strict=True))
        return i, j, k

    return jax.lax.fori_loop(0, count, step, target)


def displacing(move: BSpline | Flow, field: Callable[..., Array]) -> Callable[[warp.Coordinates], warp.Coordinates]:
    """A move as a function of points of the world; `field` reads a B-spline."""
    coefficients, to_field, _ = displacement(move)
    read = velocity.field_at if isinstance(move, Flow) else field
    return lambda points: added(points, read(coefficients, warp.map_coordinates(to_field, points)))


def carry(moves: Sequence[Map], xyz: Array) -> Array:
    """Points (N, 3) of the world taken through moves, output to input mm, from the last to the first; traced."""
    points = (xyz[:, 0], xyz[:, 1], xyz[:, 2])
    for move in reversed(moves):
        if isinstance(move, Linear):
            points = warp.map_coordinates(move.matrix, points)
        elif isinstance(move, Inverted):
            points = solve(move.forward, points, bspline.taps)
        else:
            points = displacing(move, bspline.taps)(points)
    return jnp.stack(points, 1)


def follow(moves: Sequence[Map], xyz: Array) -> Array:
    """Points (N, 3) of the input's world, mm, where the moves of a run have brought them: exactly, flows too."""
    back = [Linear(geometry.inverse(m.matrix)) if isinstance(m, Linear) else Inverted(m) for m in reversed(moves)]
    return carry(back, xyz)


def turn(moves: Sequence[Map], xyz: Array) -> Array:
    """Directions (N, 3) of the input's world as the linear moves of a run have turned them."""
    found = [move.matrix for move in moves if isinstance(move, Linear)]
    return turned(xyz, geometry.matmul(*found)[:3, :3]) if found else xyz


def annotated(subject: Subject, moves: Sequence[Map]) -> dict[str, Annotation]:
    """The points and directions of a subject after the moves of its first image."""
    return along(subject, partial(follow, moves), partial(turn, moves))


def annotated_back(subject: Subject, moves: Sequence[Map]) -> dict[str, Annotation]:
    """The points and directions of a subject before the moves of its first image."""
    return along(subject, partial(carry, moves), partial(turn, way_back(moves)))


def volumes_of(t: "VoxelTransform", drawn: Params, counts: dict[str, int], rows: int) -> Any:
    """Which rows are left of something that has one for each volume of an image; None if a step cuts no such image.

    drawn: for each image.  counts: how many volumes each has.
    """
    images = (name for name in drawn if counts[name] == rows) if t.cuts else iter(())
    return next((t.volumes(drawn[name]) for name in images), None)


def directions_left(subject: Subject, t: "VoxelTransform", drawn: Params) -> dict[str, Annotation]:
    """The directions of a subject that a step cuts, traced; their labels are metadata, which do not enter."""
    counts = {name: subject[name].shape[-4] for name in drawn}
    cut = {}
    for name, item in subject.annotations.items():
        rows = volumes_of(t, drawn, counts, len(item)) if isinstance(item, Directions) else None
        if rows is not None:
            cut[name] = item.of(jnp.asarray(item.xyz)[rows])
    return cut


def along(
    subject: Subject, points: Callable[[Array], Array], directions: Callable[[Array], Array]
) -> dict[str, Annotation]:
    """The points and directions of a subject taken along."""
    done = {}
    for name, item in subject.annotations.items():
        way = points if isinstance(item, Points) else directions
        done[name] = item.replace(xyz=way(jnp.asarray(item.xyz)).astype(item.xyz.dtype))
    return done
