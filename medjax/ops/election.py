"""Labels of interpolated class scores, tile by tile, without the interpolated scores of any but one class at a time.

Linear interpolation stays between the least and the largest of what it reads. So of the scores that a tile reads these
two say which classes can win somewhere in it, most often one or two, and only those are interpolated.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from medjax.ops.warp import SLACK, linear
from medjax.typing import Shape3

MOST = 1e30
"""What counts for an infinite score: differences of it stay finite."""


class Decision(NamedTuple):
    """How scores become a label.

    labels: (C,) uint8 or uint16, the label of each class.  thresholds: None: the class of the largest score, of equal
    ones the first; or (C,) float32: the last class whose score is above its own, and label 0 if none is.
    """

    labels: Shaped[np.ndarray, "C"]
    thresholds: Float[np.ndarray, "C"] | None = None


class Line(NamedTuple):
    """The N tiles of T voxels along an axis, by the scores that they read.

    first: (N,) the first score of a tile.  cell: (N, T) the lower score that a voxel lies at, from there on.
    fraction: (N, T) of a step from it to the next, or None if every voxel lies at a score.
    """

    first: Int[np.ndarray, "N"]
    cell: Int[np.ndarray, "N T"]
    fraction: Float[np.ndarray, "N T"] | None


def in_tiles(cell: np.ndarray, fraction: np.ndarray | None, size: int) -> Line:
    """Voxels along an axis in tiles of `size`, the last filled up with the last voxel; on the host."""
    pad = (0, -len(cell) % size)
    cell = np.pad(cell, pad, mode="edge").reshape(-1, size).astype(np.int32)
    first = cell.min(1)
    if fraction is not None:
        fraction = np.pad(fraction, pad, mode="edge").reshape(-1, size).astype(np.float32)
    return Line(first, cell - first[:, None], fraction)


def span(step: float, size: int, mixed: bool) -> int:
    """The most scores that a tile of `size` voxels, a step apart, can read along an axis."""
    return int(np.ceil((size - 1) * step + 1e-5)) + (2 if mixed else 1)


@partial(jax.jit, static_argnames="window")
def on_lines(
    scores: Float[Array, "C I J K"], decision: Decision, lines: Sequence[Line], *, window: Shape3
) -> tuple[Shaped[Array, "X Y Z"], Bool[Array, ""]]:
    """The labels of the tiles of three lines, and whether a score among those that they read is NaN.

    window: how many scores a tile reads along each axis at most.
    """
    counts = tuple(len(line.first) for line in lines)
    size = tuple(line.cell.shape[1] for line in lines)

    def tile(at: Sequence[Array]) -> tuple[Array, Array]:
        first = [line.first[n] for line, n in zip(lines, at, strict=True)]
        origin = origin_of(first, scores.shape[1:], window)
        cells = [line.cell[n] + (f - o) for line, n, f, o in zip(lines, at, first, origin, strict=True)]

        def interpolated(values: Array) -> Array:
            # The last axis first: along it voxels are gathered one by one, and so the fewest are.
            for axis in (2, 1, 0):
                fraction = lines[axis].fraction
                values = along(values, axis, cells[axis], None if fraction is None else fraction[at[axis]])
            return values

        return elected(scores, decision, origin, window, size, interpolated)

    return over_tiles(tile, counts, size, decision)


def along(values: Array, axis: int, cell: Array, fraction: Array | None) -> Array:
    """A block interpolated along an axis."""
    if axis == 0:  # plane by plane: XLA copies a plane three times as quickly as it gathers its voxels
        cells, fractions = list(cell), [None] * len(cell) if fraction is None else list(fraction)
        return jnp.stack([plane(values, c, f) for c, f in zip(cells, fractions, strict=True)])
    low = jnp.take(values, cell, axis, mode="clip")
    if fraction is None:
        return low
    high = jnp.take(values, jnp.minimum(cell + 1, values.shape[axis] - 1), axis, mode="clip")
    mixed = low + jnp.expand_dims(fraction, [a for a in range(3) if a != axis]) * (high - low)
    return jax.lax.optimization_barrier(mixed)  # or XLA would interpolate anew for every reader


def plane(values: Array, cell: Array, fraction: Array | None) -> Array:
    """A plane of a block, between two of its own."""
    low = jax.lax.dynamic_index_in_dim(values, cell, keepdims=False)
    if fraction is None:
        return low
    high = jax.lax.dynamic_index_in_dim(values, cell + 1, keepdims=False)  # the last voxel may lie at the last plane
    return low + fraction * (high - low)


@partial(jax.jit, static_argnames=("window", "size"))
def at_points(
    scores: Float[Array, "C I J K"],
    decision: Decision,
    points: Float[Array, "3 X Y Z"],
    begin: Int[Array, "3"],
    extent: Int[Array, "3"],
    *,
    window: Shape3,
    size: Shape3,
) -> tuple[Shaped[Array, "X Y Z"], Bool[Array, ""]]:
    """The labels at points, in units of the scores, and whether a score that may be read is NaN.

    points: whole tiles of `size`, 0 being at the score `begin`.  extent: how many scores from there on are real; what
    lies outside of them has label 0.
    window: how many scores the points of a tile that lie inside span along each axis at most.
    """
    counts = tuple(n // t for n, t in zip(points.shape[1:], size, strict=True))
    last = (extent - 1).astype(points.dtype)[:, None, None, None]

    def tile(at: Sequence[Array]) -> tuple[Array, Array]:
        corner = [n * t for n, t in zip(at, size, strict=True)]
        x = jax.lax.dynamic_slice(points, (jnp.zeros_like(corner[0]), *corner), (3, *size))
        inside = ((x >= -0.5 - SLACK) & (x < last + (0.5 + SLACK))).all(0)
        x = jnp.clip(x, 0, last)
        fraction = x - jnp.floor(x)
        cell = jnp.floor(x).astype(jnp.int32) + begin[:, None, None, None]
        least = jnp.where(inside[None], cell, jnp.iinfo(jnp.int32).max).min((1, 2, 3))
        origin = origin_of(least, scores.shape[1:], window)
        low = [jnp.clip(c - o, 0, w - 1) for c, o, w in zip(cell, origin, window, strict=True)]
        high = [jnp.minimum(c + 1, w - 1) for c, w in zip(low, window, strict=True)]

        def interpolated(values: Array) -> Array:
            total = jnp.zeros(size, jnp.float32)
            for corner in product((0, 1), repeat=3):
                ends = [(low, high)[c][a] for a, c in enumerate(corner)]
                weight = [(1 - fraction[a], fraction[a])[c] for a, c in enumerate(corner)]
                index = (ends[0] * window[1] + ends[1]) * window[2] + ends[2]
                total += weight[0] * weight[1] * weight[2] * values.ravel().at[index].get(mode="promise_in_bounds")
            return total

        nothing = jnp.zeros(size, decision.labels.dtype), jnp.zeros((), bool)
        labels, bad = jax.lax.cond(
            inside.any(), lambda: elected(scores, decision, origin, window, size, interpolated), lambda: nothing
        )
        return jnp.where(inside, labels, 0), bad

    return over_tiles(tile, counts, size, decision)


def origin_of(first: Sequence[Array] | Array, shape: Sequence[int], window: Shape3) -> list[Array]:
    """The first score of the block that a tile reads, which lies in the scores whole."""
    return [jnp.clip(f, 0, n - w) for f, n, w in zip(first, shape, window, strict=True)]


def over_tiles(
    tile: Callable[[Sequence[Array]], tuple[Array, Array]], counts: Shape3, size: Shape3, decision: Decision
) -> tuple[Array, Array]:
    """The labels of all tiles, one after the other, and whether any of them is bad."""
    labels = jnp.zeros([n * t for n, t in zip(counts, size, strict=True)], decision.labels.dtype)

    def step(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, bad = state
        at = (number // (counts[1] * counts[2]), number // counts[2] % counts[1], number % counts[2])
        found, worse = tile(at)
        begin = [n * t for n, t in zip(at, size, strict=True)]
        return jax.lax.dynamic_update_slice(labels, found, begin), bad | worse

    return jax.lax.fori_loop(0, counts[0] * counts[1] * counts[2], step, (labels, jnp.zeros((), bool)))


def elected(
    scores: Array,
    decision: Decision,
    origin: Sequence[Array],
    window: Shape3,
    size: Shape3,
    interpolated: Callable[[Array], Array],
) -> tuple[Array, Array]:
    """The labels of a tile that reads a block of the scores, and whether one of these is NaN.

    interpolated: a block of one class at the voxels of the tile.
    """
    zero = jnp.zeros_like(origin[0])
    labels = jnp.asarray(decision.labels)
    block = jax.lax.dynamic_slice(scores, (zero, *origin), (len(scores), *window))
    least, most = block.min((1, 2, 3)), block.max((1, 2, 3))
    bar = least.max() if decision.thresholds is None else jnp.asarray(decision.thresholds)
    may = most >= bar if decision.thresholds is None else most > bar
    count = may.sum(dtype=jnp.int32)
    classes = jnp.nonzero(may, size=len(may), fill_value=0)[0].astype(jnp.int32)

    def step(n: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        best, winner = state
        number = classes[n]
        values = jax.lax.dynamic_slice(scores, (number, *origin), (1, *window))[0]
        values = interpolated(jnp.clip(values.astype(jnp.float32), -MOST, MOST))
        better = values > (best if decision.thresholds is None else jnp.asarray(decision.thresholds)[number])
        return jnp.where(better, values, best), jnp.where(better, labels[number], winner)

    def vote() -> Array:
        nobody = jnp.full(size, -jnp.inf, jnp.float32), jnp.zeros(size, labels.dtype)
        return jax.lax.fori_loop(0, count, step, nobody)[1]

    one = 1 if decision.thresholds is None else 0
    alone = jnp.where(count == 0, 0, labels[classes[0]]).astype(labels.dtype)
    found = jax.lax.cond(count == one, lambda: jnp.full(size, alone), vote)
    return found, jnp.isnan(block).any()


@partial(jax.jit, static_argnames="finish")
def all_on_lines(
    scores: Float[Array, "C I J K"], lines: Sequence[Line], *, finish: Callable[[Array], Array]
) -> Float[Array, "C X Y Z"]:
    """What `finish` makes of the scores of all classes at the voxels of one tile."""
    for axis, line in enumerate(lines, 1):
        cell = line.first[0] + line.cell[0]
        low = jnp.take(scores, cell, axis, mode="clip")
        if line.fraction is not None:
            high = jnp.take(scores, jnp.minimum(cell + 1, scores.shape[axis] - 1), axis, mode="clip")
            low += jnp.expand_dims(line.fraction[0], [a for a in range(4) if a != axis]) * (high - low)
        scores = low
    return finish(scores)


@partial(jax.jit, static_argnames="finish")
def all_at_points(
    scores: Float[Array, "C I J K"], points: Float[Array, "3 X Y Z"], *, finish: Callable[[Array], Array]
) -> Float[Array, "C X Y Z"]:
    """What `finish` makes of the scores of all classes at points that lie among them."""
    i, j, k = points
    return finish(linear(scores, (i, j, k), jnp.asarray(scores.shape[1:], jnp.int32), scores.dtype))
