"""Where an image has come to in a pipeline: its grid, what of it shows the image, and what reading it will cost.

Pure functions of steps, params and grids, in NumPy float64 on the host and in JAX under a trace: the same code draws,
applies, replays and writes affines. No voxel is seen here; `program.py` says which steps belong together, `read.py`
reads.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, cast

import jax.numpy as jnp
import numpy as np

from medjax import geometry
from medjax.geometry import BSpline, Flow, Grid, Linear, Map, inverted
from medjax.image import Image
from medjax.ops import warp
from medjax.typing import Coin, Cost, Index, Matrix, Params, Shape3, working

if TYPE_CHECKING:  # transforms are called through what is built on this
    from typing_extensions import TypeIs

    from medjax.transforms.transform import SpatialTransform, Transform, VoxelTransform

NOTHING_DONE, INDEXED, LINEAR, DEFORMED = range(4)
"""What it costs to read a run: nothing, indexing, a linear map or a deformed one; what was drawn decides."""
Known = tuple[Shape3, bool]
"""A shape that the host worked out for an array, and whether all of it is real."""


class Step(NamedTuple):
    """A member of a pipeline, and whether it is certain to be applied (no coin, no choice above it)."""

    transform: "Transform"
    certain: bool

    @property
    def spatial(self) -> "SpatialTransform":
        """The transform of a step of a spatial run."""
        return cast("SpatialTransform", self.transform)

    @property
    def voxels(self) -> "VoxelTransform":
        """The transform of any other step."""
        return cast("VoxelTransform", self.transform)


class Turn(NamedTuple):
    """What happens to a step: whether it is on, what was drawn for it, what it saw in voxels (None: not yet seen).

    draw: of a spatial step its own params, of another {image: params}.
    """

    on: Coin
    draw: Params
    located: Params | None = None

    def told(self) -> Params:
        """What `regrid` and `move` of a spatial step are given."""
        return {**self.draw, **(self.located or {})}


class Measured(NamedTuple):
    """What a step that is not spatial measured: whether it is on, and {image: what `measure` gave, none or one}."""

    on: Coin
    images: dict[str, tuple[Params, ...]]


Record = dict[int, Params | Measured]
"""What steps saw of voxels, by their number: spatial steps what they located, others what they measured."""


def is_spatial(t: "Transform") -> "TypeIs[SpatialTransform]":
    """Whether a transform says where voxels are read, instead of what becomes of them."""
    return t.spatial


class Place(NamedTuple):
    """Where an image has come to: its grid, the box [low, high) of it that shows the image, the moves, the cost."""

    grid: Grid
    low: Index
    high: Index
    label: bool
    moves: tuple[Map, ...] = ()
    cost: Cost = NOTHING_DONE

    def anew(self) -> "Place":
        """The place at which the next run begins: all of the grid shows, nothing has moved yet."""
        grid = self.grid
        if isinstance(grid.shape, np.ndarray):
            i, j, k = grid.shape.tolist()
            grid = grid._replace(fixed=(i, j, k))
        return Place(grid, 0 * grid.shape, grid.shape, self.label)

    def unfixed(self) -> "Place":
        """The place with a shape that only numbers tell."""
        return self._replace(grid=self.grid._replace(fixed=None))


def place_of(image: Image, xp: ModuleType) -> Place:
    """The place of an image before a run."""
    dtype = np.float64 if xp is np else working(jnp.asarray(image.affine).dtype)
    shape = xp.asarray(image.size, np.int32)
    fixed = image.spatial_shape if image.extent is None else None
    grid = Grid(xp.asarray(image.affine, dtype), shape, fixed, image.shape[0])
    return Place(grid, xp.zeros(3, np.int32), shape, image.is_label)


def included(t: "Transform", name: str, label: bool) -> bool:
    """Whether a transform is for the image of this name and kind; a copy that it keeps is not."""
    if t.scalars_only if label else t.labels_only:
        return False
    if any(name == new for _, new in t.keep or ()):
        return False
    return (t.include is None or name in t.include) and (t.exclude is None or name not in t.exclude)


def advance(places: dict[str, Place], step: Step, turn: Turn) -> dict[str, Place]:
    """The places after one spatial step; the first image is the reference of centre, field and flip plane."""
    t, draw = step.spatial, turn.told()
    on = True if step.certain else turn.on
    reference = places[t.anchor or next(iter(places))].grid
    move = t.move(draw, reference)
    xp = geometry.namespace(reference.affine)
    if move is not None and not step.certain:
        move = switched(move, on, xp)
    return {
        name: advance_one(place, t, draw, on, reference, move, xp) if included(t, name, place.label) else place
        for name, place in places.items()
    }


def advance_one(
    place: Place, t: "SpatialTransform", draw: Params, on: Coin, reference: Grid, move: Map | None, xp: ModuleType
) -> Place:
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
        # With a fill, what lies around the image is of the new grid; and the host reads no voxel.
        if asked.fill is None and xp is not np:
            box = seen(place, step, new.shape, xp)
            low, high = xp.where(indexing, box[0], low), xp.where(indexing, box[1], high)
    if on is not True:
        low, high = xp.where(on, low, place.low), xp.where(on, high, place.high)
        cost = xp.where(on, cost, NOTHING_DONE)
    moves = place.moves if move is None else (*place.moves, move)
    return Place(new, low, high, place.label, moves, xp.maximum(place.cost, cost))


def regridded(places: dict[str, Place], step: Step, turn: Turn) -> dict[str, Place]:
    """The places after one spatial step as far as grids go, on the host: what need not be read need not be moved."""
    t, draw = step.spatial, turn.told()
    if not (t.regrids and (step.certain or turn.on)):
        return places
    reference = places[t.anchor or next(iter(places))].grid
    return {
        name: place._replace(grid=t.regrid(place.grid, draw, reference)) if included(t, name, place.label) else place
        for name, place in places.items()
    }


def is_whole(step: Matrix) -> Coin:
    """Whether a map of indices (4, 4) takes every voxel to a voxel, so that to read through it is to index."""
    xp = geometry.namespace(step)
    tolerance = np.array([1e-5, 1e-5, 1e-5, warp.SLACK], step.dtype)  # turns and scales grow with the index, shifts not
    return (xp.abs(step - xp.round(step)) < tolerance[None]).all()


def linear_part(begin: Place, end: Place) -> Matrix:
    """The 4x4 map from an index of the new grid to one of the old, elastic moves left out."""
    moves = [move.matrix for move in end.moves if isinstance(move, Linear)]
    return geometry.matmul(geometry.inverse(begin.grid.affine), *moves, end.grid.affine)


def way_back(moves: Sequence[Map]) -> tuple[Map, ...]:
    """The moves that take back moves."""
    return tuple(inverted(move) for move in reversed(moves))


def cost_back(begin: Place, end: Place) -> Cost:
    """What the way back through a run costs: every second voxel can be indexed, but not the voxels between them."""
    xp = geometry.namespace(end.grid.affine)
    back = end._replace(grid=begin.grid, moves=way_back(end.moves))
    whole = is_whole(linear_part(begin._replace(grid=end.grid), back))
    return xp.where((end.cost == INDEXED) & ~whole, LINEAR, end.cost)


def seen(place: Place, step: Matrix, shape: Index, xp: ModuleType) -> tuple[Index, Index]:
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


def with_copies(places: dict[str, Place], step: Step, on: Coin) -> dict[str, Place]:
    """The places with those of the copies that a step makes: of a name that there is already only if it is on."""
    t, made = step.transform, {}
    for old, new in t.copies:
        place = places[old]._replace(label=places[old].label and not t.synthesises)
        if new in places and not step.certain:
            place = chosen(on, place, places[new])
        made[new] = place
    return places | made


def chosen(on: Coin, one: Place, other: Place) -> Place:
    """One place or the other, before anything has moved there."""
    xp = geometry.namespace(one.grid.affine)
    affine = xp.where(on, one.grid.affine, other.grid.affine)
    shape, low, high = (
        xp.where(on, a, b)
        for a, b in ((one.grid.shape, other.grid.shape), (one.low, other.low), (one.high, other.high))
    )
    fixed = one.grid.fixed if one.grid.fixed == other.grid.fixed else None
    return one._replace(grid=Grid(affine, shape, fixed, one.grid.channels), low=low, high=high)


def switched(move: Linear | BSpline | Flow, on: Coin, xp: ModuleType) -> Map:
    """A move, or the identity if it is off."""
    if isinstance(move, Linear):
        return Linear(xp.where(on, move.matrix, xp.eye(4, dtype=move.matrix.dtype)))
    if isinstance(move, Flow):
        return move._replace(velocity=xp.where(on, move.velocity, xp.zeros_like(move.velocity)))
    return BSpline(xp.where(on, move.control, xp.zeros_like(move.control)), move.to_grid)


def matrices(move: Map | None) -> list[Matrix]:
    """The matrix of a linear move in a list, or an empty one."""
    return [move.matrix] if isinstance(move, Linear) else []
