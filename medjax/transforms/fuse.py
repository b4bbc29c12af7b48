"""Runs of neighbouring spatial transforms: planned as one map, read once for each image.

A plan keeps, for every image, the grid it has come to, the list of moves of the world so far, and what part of the
grid shows the image. It is a pure function of steps, params and grids, in NumPy float64 on the host and in JAX under a
trace: the same code draws, applies, replays and writes affines. An output voxel i then reads the input at
A_in^-1 . T1 ... Tn . A_out . i. What was drawn decides the cost: nothing, indexing, a linear map or a deformed one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import geometry
from medjax.annotations import Annotation, Points, turned
from medjax.errors import needs_concrete
from medjax.geometry import BSpline, Flow, Grid, Inverted, Linear, Map, inverted
from medjax.image import Image
from medjax.ops import axis, bspline, velocity, warp
from medjax.subject import Subject
from medjax.transforms.spatial import sampling
from medjax.transforms.spatial.sampling import NOTHING, Sampling
from medjax.typing import Params, Shape3, working

NOTHING_DONE, INDEXED, LINEAR, DEFORMED = range(4)
SOLVING_STEPS = 12
FLOW_STEPS = 6
HIGHEST = jax.lax.Precision.HIGHEST
FEW = 8
"""Up to how many control points along an axis a field is not stored."""
Known = tuple[Shape3, bool]
"""A shape that the host worked out for an array, and whether all of it is real."""


class Step(NamedTuple):
    """A member of a pipeline, and whether it is certain to be applied (no coin, no choice above it)."""

    transform: Any
    certain: bool


class Place(NamedTuple):
    """Where an image has come to: its grid, the box [low, high) of it that shows the image, the moves, the cost."""

    grid: Grid
    low: Any
    high: Any
    label: bool
    moves: tuple[Map, ...] = ()
    cost: Any = NOTHING_DONE


def start(image: Image, xp: Any) -> Place:
    """The place of an image before a run."""
    dtype = np.float64 if xp is np else working(jnp.asarray(image.affine).dtype)
    padded = image.extent is not None
    shape = xp.asarray(image.extent if padded else image.spatial_shape, np.int32)
    i, j, k = image.spatial_shape
    grid = Grid(xp.asarray(image.affine, dtype), shape, None if padded else (i, j, k), image.shape[0])
    return Place(grid, xp.zeros(3, np.int32), shape, sampling.is_label(image))


def runs(steps: Sequence[Step]) -> list[list[int]]:
    """The indices of the steps, neighbouring spatial ones that can be read at once together.

    A run also ends before a second change of spacing, before a step that must see voxels, and where interpolation or
    fill clash. It depends on the types and settings alone, never on what was drawn or on any grid.
    """
    groups: list[list[int]] = []
    asked, rescaled, open_run = NOTHING, False, False
    for index, (t, _) in enumerate(steps):
        if t.kind != "spatial":
            groups.append([index])
            open_run = False
            continue
        wanted = t.sampling()
        blind = t.locates and not t.follows
        if not open_run or blind or (t.rescales and rescaled) or t.copies or sampling.clash(asked, wanted):
            groups.append([])
            asked, rescaled, open_run = NOTHING, False, True
        groups[-1].append(index)
        asked, rescaled = asked.merged(wanted), rescaled or t.rescales
    return groups


def advance(places: dict[str, Place], step: Step, params: Params, located: Params) -> dict[str, Place]:
    """The places after one step; the first image is the reference of centre, field and flip plane."""
    t, draw = step.transform, {**params["draw"], **located}
    on = True if step.certain else params["on"]
    reference = places[t.anchor or next(iter(places))].grid
    move = t.move(draw, reference)
    xp = geometry.namespace(reference.affine)
    if move is not None and not step.certain:
        move = switched(move, on, xp)
    return {
        name: advance_one(place, t, draw, on, reference, move, xp) if included(t, name, place.label) else place
        for name, place in places.items()
    }


def advance_one(place: Place, t: Any, draw: Params, on: Any, reference: Grid, move: Map | None, xp: Any) -> Place:
    """The place of one image after one step."""
    old, new = place.grid, t.regrid(place.grid, draw, reference)
    if new is not old and on is not True:
        fixed = new.fixed if new.fixed == old.fixed else None
        affine, shape = xp.where(on, new.affine, old.affine), xp.where(on, new.shape, old.shape)
        new = Grid(affine, shape, fixed, new.channels)
    if t.relabels:
        move = Linear(geometry.matmul(old.affine, geometry.inverse(new.affine)))
    cost = INDEXED if t.exact else LINEAR if move is None or isinstance(move, Linear) else DEFORMED
    low, high = xp.zeros(3, np.int32), new.shape
    if new is not old or t.exact:
        asked = t.sampling()
        step = geometry.matmul(geometry.inverse(old.affine), *matrices(move), new.affine)
        indexing = True
        if not t.exact:
            indexing = is_whole(step)
            if asked.antialias:  # indexing would leave out the smoothing for a coarser grid
                indexing = indexing & ((step[:3, :3] ** 2).sum(1) < 1 + 1e-5).all()
            cost = xp.where(indexing, INDEXED, cost)
        if asked.fill is None:  # else what lies around the image is of the new grid, as its fill
            box = seen(place, step, new.shape, xp)
            low, high = xp.where(indexing, box[0], low), xp.where(indexing, box[1], high)
    if on is not True:
        low, high = xp.where(on, low, place.low), xp.where(on, high, place.high)
        cost = xp.where(on, cost, NOTHING_DONE)
    moves = place.moves if move is None else (*place.moves, move)
    return Place(new, low, high, place.label, moves, xp.maximum(place.cost, cost))


def is_whole(step: Any) -> Any:
    """Whether a map of indices (4, 4) takes every voxel to a voxel, so that to read through it is to index."""
    xp = geometry.namespace(step)
    tolerance = np.array([1e-5, 1e-5, 1e-5, warp.SLACK], step.dtype)  # turns and scales grow with the index, shifts not
    return (xp.abs(step - xp.round(step)) < tolerance[None]).all()


def cost_back(begin: Place, end: Place) -> Any:
    """What the way back through a run costs: every second voxel can be indexed, but not the voxels between them."""
    xp = geometry.namespace(end.grid.affine)
    back = end._replace(grid=begin.grid, moves=way_back(end.moves))
    whole = is_whole(linear_part(begin._replace(grid=end.grid), back))
    return xp.where((end.cost == INDEXED) & ~whole, LINEAR, end.cost)


def seen(place: Place, step: Any, shape: Any, xp: Any) -> tuple[Any, Any]:
    """The box of the new grid that shows the image; `step` takes an index of it to one of the old grid.

    The box is the image's, not the window's: a crop leaves it as it is, though it reach beyond the grid, so that what
    was padded before still mirrors the image and not the crop. Along an axis on which the new grid goes on beyond the
    old one it ends with the old one, for what was cut off does not come back.
    """
    within = 0.01  # of a voxel: rounding
    ends = xp.stack([geometry.transform_point(step, at.astype(step.dtype)) for at in (0 * shape, shape - 1)])
    last = place.grid.shape.astype(step.dtype) - 1
    beyond = (ends.min(0) < -within) | (ends.max(0) > last + within)
    low = xp.where(beyond, xp.maximum(place.low, 0), place.low)
    high = xp.where(beyond, xp.minimum(place.high, place.grid.shape), place.high)
    back = geometry.inverse(step)
    ends = xp.stack([geometry.transform_point(back, at.astype(step.dtype)) for at in (low, high - 1)])
    return (
        xp.ceil(ends.min(0) - within).astype(np.int32),
        xp.floor(ends.max(0) + within).astype(np.int32) + 1,
    )


def copied(places: dict[str, Place], step: Step, params: Params) -> dict[str, Place]:
    """The places with those of the copies that a step makes: of a name that there is already only if it is on."""
    t, made = step.transform, {}
    for old, new in t.copies:
        place = places[old]._replace(label=places[old].label and not t.synthesises)
        if new in places and not step.certain:
            place = chosen(params["on"], place, places[new])
        made[new] = place
    return places | made


def chosen(on: Any, one: Place, other: Place) -> Place:
    """One place or the other, before anything has moved there."""
    xp = geometry.namespace(one.grid.affine)
    affine = xp.where(on, one.grid.affine, other.grid.affine)
    shape, low, high = (
        xp.where(on, a, b)
        for a, b in ((one.grid.shape, other.grid.shape), (one.low, other.low), (one.high, other.high))
    )
    fixed = one.grid.fixed if one.grid.fixed == other.grid.fixed else None
    return one._replace(grid=Grid(affine, shape, fixed, one.grid.channels), low=low, high=high)


def switched(move: Linear | BSpline | Flow, on: Any, xp: Any) -> Map:
    """A move, or the identity if it is off."""
    if isinstance(move, Linear):
        return Linear(xp.where(on, move.matrix, xp.eye(4, dtype=move.matrix.dtype)))
    if isinstance(move, Flow):
        return move._replace(velocity=xp.where(on, move.velocity, xp.zeros_like(move.velocity)))
    return BSpline(xp.where(on, move.control, xp.zeros_like(move.control)), move.to_grid)


def matrices(move: Map | None) -> list[Any]:
    """The matrix of a linear move in a list, or an empty one."""
    return [move.matrix] if isinstance(move, Linear) else []


def included(t: Any, name: str, label: bool) -> bool:
    """Whether a transform is for the image of this name and kind; a copy that it keeps is not."""
    if t.scalars_only if label else t.labels_only:
        return False
    if any(name == new for _, new in t.keep or ()):
        return False
    return (t.include is None or name in t.include) and (t.exclude is None or name not in t.exclude)


def asked_of(steps: Sequence[Step]) -> tuple[Sampling, bool]:
    """Which interpolation and fill a run asks for, and whether it may interpolate at all."""
    asked = NOTHING
    for step in steps:
        asked = asked.merged(step.transform.sampling())
    return asked, any(not step.transform.exact for step in steps)


def dtype_after(dtype: Any, label: bool, interpolates: bool) -> np.dtype:
    """The dtype of an image after a run that may interpolate or not, whatever was drawn."""
    return np.dtype(dtype) if label or not interpolates else working(dtype)


def read(image: Image, steps: Sequence[Step], begin: Place, end: Place, known: Known | None = None) -> Image:
    """The image on the grid of `end`, gathered once.

    known: the shape of the array, worked out by the host, and whether all of it is real. Without it the grid must have
    a static shape, or the run must keep the one that is there.
    """
    reshaped = any(step.transform.reshapes for step in steps)
    out = end.grid.fixed or (known[0] if known else None if reshaped else image.spatial_shape)
    if out is None:
        needs_concrete(
            f"the shape after {', '.join(type(s.transform).__name__ for s in steps)}",
            "end the run with a fixed shape, as CropOrPad((160, 192, 160)), or call the transform outside of jit",
        )
    whole = end.grid.fixed is not None or (known is not None and known[1])
    data = read_data(image, *asked_of(steps), begin, end, out)
    return type(image).of(data, end.grid.affine, None if whole else end.grid.shape)


def read_back(
    image: Image, steps: Sequence[Step], begin: Place, end: Place, known: Known, interpolation: str | None
) -> Image:
    """The image on the grid of `begin`, from where a run has brought it: the run's map inverted, gathered once.

    interpolation: instead of the run's own; labels have theirs where it would make values that are no labels. What the
    run cut off is 0.
    """
    asked, interpolates = asked_of(steps)
    label = interpolation if interpolation in sampling.LABEL_INTERPOLATIONS else asked.label
    back = Sampling(interpolation or asked.image, label, fill=0.0, label_fill=0.0)
    there = Place(end.grid, None, None, begin.label)
    here = Place(begin.grid, None, None, begin.label, way_back(end.moves), cost_back(begin, end))
    data = read_data(image, back, interpolates, there, here, known[0])
    return type(image).of(data, begin.grid.affine, None if known[1] else begin.grid.shape)


def read_data(image: Image, asked: Sampling, interpolates: bool, begin: Place, end: Place, out: Shape3) -> Array:
    """The voxels of `read`: one branch for each cost that the run can have."""
    label = sampling.is_label(image)
    dtype = dtype_after(image.dtype, label, interpolates)
    extent = begin.grid.shape
    fill = asked.label_fill if label else asked.fill
    pad = asked.label_pad if label else asked.pad
    edge = warp.EDGE_OF.get(pad, pad) if pad in (*warp.EDGES, *warp.EDGE_OF) else None
    outside = pad if fill is None and edge is None else fill
    method = (asked.label if label else asked.image) or ("nearest" if label else "linear")

    def data() -> Array:
        """Asked for in the branch that reads it (see `ElementVoxels`)."""
        return jnp.asarray(image.data)

    def lines() -> list[Array]:
        axes = [jnp.arange(n, dtype=jnp.int32) for n in out]
        if edge is None:
            return axes
        return [warp.fold(v, low, high, edge) for v, low, high in zip(axes, end.low, end.high, strict=True)]

    def voxels() -> warp.Coordinates:
        i, j, k = (jax.lax.broadcast_in_dim(v, out, (along,)) for along, v in enumerate(lines()))
        return i, j, k

    def sample(coordinates: warp.Coordinates, within: Array) -> Array:
        """within: whether all coordinates lie in the volume, so that no fill is needed."""
        blank = jnp.zeros_like(within, dtype, (image.shape[0],))
        value = jax.lax.cond(within, lambda: blank, lambda: sampling.fill_value(image, outside, dtype))
        source = data()
        if asked.antialias and not label:
            source = axis.gaussian_blur(source.astype(dtype), antialiasing(begin, end).astype(dtype), extent=extent)
        how = outside if outside in warp.EDGES else None
        return warp.sample(
            source, coordinates, extent=extent, interpolation=method, is_label=label, dtype=dtype, fill=value, edge=how
        )

    def unchanged() -> Array:
        return copy_of(data(), chosen != 0).astype(dtype)

    def indexed() -> Array:
        matrix = jnp.round(linear_part(begin, end)).astype(jnp.int32)
        return warp.reindex(data(), matrix, lines(), extent=extent, fill=sampling.fill_value(image, outside, dtype))

    def linear() -> Array:
        matrix = linear_part(begin, end)
        ends = warp.map_coordinates(matrix, warp.corners_of(out))
        return sample(warp.map_coordinates(matrix, voxels()), warp.inside(ends, extent).all())

    def deformed() -> Array:
        points = deform(end, out, voxels(), plain=edge is None)
        coordinates = warp.map_coordinates(geometry.inverse(begin.grid.affine), points)
        return sample(coordinates, warp.inside(coordinates, extent).all())

    few = edge is None and is_halved(end)
    weights = halved(begin, end, out)[2] if few else None  # an operand of the switch, or every voxel would compute them

    def deformed_along() -> Array:
        matrix, half, _ = halved(begin, end, out)
        steps = summed(jax.lax.optimization_barrier(half), weights)
        reach = jnp.abs(half).max((1, 2, 3))
        ends = warp.map_coordinates(matrix, warp.corners_of(out))
        within = jnp.stack([warp.inside(added(ends, side * reach), extent) for side in (-1, 1)])
        return sample(added(warp.map_coordinates(matrix, voxels()), steps), within.all())

    def deformed_either() -> Array:
        return jax.lax.cond(runs_along(end, out), deformed_along, deformed)

    branches = [indexed]
    if interpolates:
        branches.append(linear)
    if any(not isinstance(move, Linear) for move in end.moves):
        branches.append(deformed_either if few else deformed)
    chosen = jnp.clip(end.cost, 1, len(branches)) - 1
    if image.spatial_shape == out:
        branches.insert(0, unchanged)
        chosen = jnp.clip(end.cost, 0, len(branches) - 1)
    # Differentiated, a switch saves what any branch needs in every branch: nothing is saved, so that cost follows p.
    branches = [jax.checkpoint(branch) for branch in branches]
    values = jax.lax.switch(chosen, branches) if len(branches) > 1 else branches[0]()
    if pad in warp.EDGE_OF:
        ramp = warp.ramp(out, end.low, end.high, working(dtype))
        return (values.astype(ramp.dtype) * ramp[None]).astype(dtype)
    if pad is None or edge is not None:
        return values
    shown = [
        (v >= low) & (v < high) for v, low, high in zip(warp.indices(out, jnp.int32), end.low, end.high, strict=True)
    ]
    value = sampling.fill_value(image, pad, dtype)
    return jnp.where((shown[0] & shown[1] & shown[2])[None], values, value[:, None, None, None])


def copy_of(data: Array, never: Array) -> Array:
    """The data, written anew, for a branch of a conditional; `never` is False, but not known to be.

    Of a branch that gives its argument back XLA makes one that copies before the conditional, whichever is taken.
    """
    return jnp.where(never, jnp.zeros((), data.dtype), data)


def linear_part(begin: Place, end: Place) -> Array:
    """The 4x4 map from an index of the new grid to one of the old, elastic moves left out."""
    moves = [move.matrix for move in end.moves if isinstance(move, Linear)]
    return geometry.matmul(geometry.inverse(begin.grid.affine), *moves, end.grid.affine)


def antialiasing(begin: Place, end: Place) -> Array:
    """Standard deviation, in voxels along each input axis, of the Gaussian that a coarser grid is smoothed with first.

    (k^2 - 1) / (8 ln 2) is the variance that takes a voxel's width at half maximum to k voxels.
    """
    step = geometry.matmul(geometry.inverse(begin.grid.affine), end.grid.affine)[:3, :3]
    coarser = jnp.maximum((step**2).sum(1) - 1, 0)
    return jnp.where(coarser > 0, jnp.sqrt(jnp.where(coarser > 0, coarser, 1) / (8 * np.log(2))), 0)


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


def deform(end: Place, out: Shape3, index: warp.Coordinates, *, plain: bool) -> warp.Coordinates:
    """World positions in the input of the voxels of the new grid, all moves applied from the last to the first.

    Until the first elastic move the grid is kept as a matrix, so that a field along its axes costs three products;
    `plain` says that `index` is the grid itself. Fields are materialised, or every corner would compute them again.
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
                field = of.field_on(coefficients, geometry.matmul(to_field, matrix), out)
            else:
                field = of.field_at(coefficients, warp.map_coordinates(to_field, points))
            points = added(points, jax.lax.optimization_barrier(field))
        regular = False
    return points


def summed(half: Array, weights: Array) -> warp.Coordinates:
    """The last product of a displacement, (3, N, I, J) with (N, K), as sums that become part of what reads them."""
    x, y, z = (sum(part[n][:, :, None] * weights[n][None, None] for n in range(len(part))) for part in half)
    return x, y, z


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


def way_back(moves: Sequence[Map]) -> tuple[Map, ...]:
    """The moves that take back moves."""
    return tuple(inverted(move) for move in reversed(moves))


def follow(moves: Sequence[Map], xyz: Array) -> Array:
    """Points (N, 3) of the input's world, mm, where the moves of a run have brought them."""
    return carry(way_back(moves), xyz)


def turn(moves: Sequence[Map], xyz: Array) -> Array:
    """Directions (N, 3) of the input's world as the linear moves of a run have turned them."""
    found = [move.matrix for move in moves if isinstance(move, Linear)]
    return turned(xyz, geometry.matmul(*found)[:3, :3]) if found else xyz


def annotated(subject: Subject, moves: Sequence[Map]) -> dict[str, Annotation]:
    """The points and directions of a subject after the moves of its first image."""
    done = {}
    for name, item in subject.annotations.items():
        way = follow if isinstance(item, Points) else turn
        done[name] = item.replace(xyz=way(moves, jnp.asarray(item.xyz)).astype(item.xyz.dtype))
    return done
