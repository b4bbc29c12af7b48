"""The native grid filled as planes of scores come, where its axes run along those of the scores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from medjax.ops.election import Line, all_on_lines, in_tiles, on_lines, span
from medjax.ops.warp import SLACK
from medjax.prediction.scores import Planes
from medjax.prediction.target import Target, raise_if_nan
from medjax.prediction.way import Way
from medjax.typing import Matrix, Shape3

TILE = (8, 32, 64)
"""Voxels of a tile along each axis at most: few enough that one class of it stays in a core's cache."""
ASKEW = 1e-3
"""Voxels of the scores by which a corner may be off where grids count as running along each other."""
WHOLE = 1e-6
"""Of a step between scores, by which a voxel may be off the score at which it counts as lying."""


class Axis(NamedTuple):
    """The native voxels along an axis of the scores that these show: all of `shown`, which score each lies at, (n,),
    and how far on to the next, or None if every voxel lies at a score; `step`: how many scores to the next voxel."""

    shown: slice
    cell: np.ndarray
    fraction: np.ndarray | None
    step: float


class Layout(NamedTuple):
    """How the native grid lies on the scores.

    target: with the axes of the scores, in their direction.  axes: three.  lines: the tiles along the last two.
    window: how many scores a tile reads at most.
    """

    target: Target
    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]
    window: Shape3


def axes_along(matrix: Matrix | None, shape: Shape3) -> Shape3 | None:
    """For each axis of the scores the native axis that runs along it, or None if they run askew."""
    if matrix is None:
        return None
    linear = np.abs(matrix[:3, :3])
    i, j, k = (int(axis) for axis in linear.argmax(1))
    linear[[0, 1, 2], [i, j, k]] = 0
    straight = sorted((i, j, k)) == [0, 1, 2] and (linear * (np.asarray(shape) - 1)).sum(1).max() < ASKEW
    return (i, j, k) if straight else None


def layout_of(part: Planes, way: Way, matrix: Matrix, order: Shape3, target: Target) -> Layout:
    """How the native grid lies on scores; matrix: from an index of it to one of them."""
    turn = tuple(slice(None, None, 1 if matrix[a, order[a]] > 0 else -1) for a in range(3))
    labels = target.labels.transpose(order)[turn]
    probabilities = target.probabilities
    if probabilities is not None:
        probabilities = probabilities.transpose(0, *(a + 1 for a in order))[(slice(None), *turn)]
    axes = tuple(axis_of(part.shape[a], way, matrix[a], order[a], a == way.nearest) for a in range(3))
    # The last two axes in equal tiles: of a last one of which little is real, all would be interpolated.
    sizes = (TILE[0], *(evenly(len(axis.cell), most) for axis, most in zip(axes[1:], TILE[1:], strict=True)))
    _, *lines = (in_tiles(axis.cell, axis.fraction, size) for axis, size in zip(axes, sizes, strict=True))
    i, j, k = (
        min(n, span(axis.step, size, axis.fraction is not None))
        for axis, size, n in zip(axes, sizes, part.buffer.shape[1:], strict=True)
    )
    turned = target._replace(labels=labels, probabilities=probabilities)
    return Layout(turned, axes, tuple(lines), (i, j, k))


def evenly(size: int, most: int) -> int:
    """The length of as few equal pieces of `size` voxels as there can be of at most `most`."""
    return max(1, -(-size // -(-max(size, 1) // most)))


def axis_of(size: int, way: Way, row: np.ndarray, native: int, nearest: bool) -> Axis:
    """Where native voxels lie along an axis of `size` scores.

    row: of the matrix, for that axis.  native: the axis of the native grid.  nearest: at the nearest score, ties up.
    """
    index = np.arange(way.native.spatial_shape[native])
    at = row[native] * index + row[3]
    seen = np.ones(len(index), bool)
    for matrix, shape in way.reaches:
        along = int(np.abs(matrix[:3, native]).argmax())
        there = matrix[along, native] * index + matrix[along, 3]
        seen &= (there >= -0.5 - SLACK) & (there < shape[along] - 0.5 + SLACK)
    if row[native] < 0:
        at, seen = at[::-1], seen[::-1]
    shown = np.flatnonzero(seen)
    begin, end = (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (0, 0)
    at = np.clip(at[begin:end], 0, size - 1)
    whole = np.minimum(np.floor(at + 0.5 + WHOLE), size - 1)
    step = abs(float(row[native]))
    if nearest or np.all(np.abs(at - whole) < WHOLE):
        return Axis(slice(begin, end), whole.astype(np.int32), None, step)
    at = np.where(np.abs(at - whole) < WHOLE, whole, at)
    cell = np.minimum(np.floor(at), size - 2).astype(np.int32)
    return Axis(slice(begin, end), cell, (at - cell).astype(np.float32), step)


def fill_along_axes(planes: Iterator[Planes], layout: Layout, pool: ThreadPoolExecutor) -> None:
    """Fill rows of the native grid, several tiles at a time, as soon as no plane is to come that they need.

    Raises ValueError for scores that are NaN.
    """
    row, axis = 0, layout.axes[0]
    last = axis.cell if axis.fraction is None else axis.cell + 1
    for part in planes:
        stop = int(np.searchsorted(last, part.first + part.done))
        tiles = [slice(n, min(n + TILE[0], stop)) for n in range(row, stop, TILE[0])]
        raise_if_nan(any(list(pool.map(partial(labelled, part, layout), tiles))))
        if layout.target.probabilities is not None:
            for n in range(row, stop):
                probable(part, layout, slice(n, n + 1))
        row = stop


def rows_of(part: Planes, axis: Axis, rows: slice, size: int, depth: int) -> tuple[Any, Line]:
    """Planes, and rows of the native grid as a tile of them.

    depth: how many planes rows read at most. From the host's memory no other goes to the device.
    """
    line = in_tiles(axis.cell[rows] - (part.first - 1), None if axis.fraction is None else axis.fraction[rows], size)
    if not isinstance(part.buffer, np.ndarray):
        return part.buffer, line
    first = min(int(line.first[0]), part.buffer.shape[1] - depth)
    return part.buffer[:, first : first + depth], line._replace(first=line.first - np.int32(first))


def box_of(layout: Layout, rows: slice) -> tuple[slice, ...]:
    """Where rows of what is shown lie in the native grid."""
    first, *others = (axis.shown for axis in layout.axes)
    return slice(first.start + rows.start, first.start + rows.stop), *others


def labelled(part: Planes, layout: Layout, rows: slice) -> bool:
    """Fill in the labels of some rows, and say whether a score is NaN."""
    planes, line = rows_of(part, layout.axes[0], rows, TILE[0], layout.window[0])
    labels, bad = on_lines(planes, layout.target.decision, (line, *layout.lines), window=layout.window)
    there = layout.target.labels[box_of(layout, rows)]
    there[...] = np.asarray(labels)[tuple(map(slice, there.shape))]
    return bool(bad)


def probable(part: Planes, layout: Layout, row: slice) -> None:
    """Fill in the probabilities of one row."""
    found = layout.target.probabilities
    assert found is not None
    whole = [in_tiles(axis.cell, axis.fraction, len(axis.cell)) for axis in layout.axes[1:]]
    planes, line = rows_of(part, layout.axes[0], row, 1, min(2, part.buffer.shape[1]))
    values = all_on_lines(planes, (line, *whole), finish=layout.target.finish)
    found[(slice(None), *box_of(layout, row))] = np.asarray(values)
