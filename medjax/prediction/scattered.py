"""The native grid filled from all scores, where its voxels lie among them on no lines: after turns and deformations."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from medjax.ops.election import all_at_points, at_points
from medjax.ops.warp import SLACK
from medjax.prediction.scores import Planes
from medjax.prediction.target import Target, raise_if_nan
from medjax.prediction.way import Way
from medjax.typing import Matrix, Shape3

TILE = (8, 16, 32)
STEP = 4
"""Windows are of multiples of it, so that few programs serve many deformations."""


def fill_points(part: Planes, way: Way, to_scores: Matrix, target: Target, pool: ThreadPoolExecutor) -> None:
    """Fill the native grid, several rows of tiles at a time; to_scores: from an index of the volume to one of them.

    Raises ValueError for scores that are NaN.
    """
    points = None if way.points is None else way.points()
    matrix = to_scores if way.matrix is None else to_scores @ way.matrix
    window = reach_of(matrix, TILE) if points is None else spans_of(points, to_scores, part.shape)
    i, j, k = (min(-(-n // STEP) * STEP, size) for n, size in zip(window, part.buffer.shape[1:], strict=True))
    begin = np.array([1 - part.first, 0, 0], np.int32)

    def fill(first: int) -> bool:
        rows = slice(first, min(first + TILE[0], len(target.labels)))
        at = placed(matrix, way, rows) if points is None else mapped(to_scores, points[:, rows])
        pad = [(0, 0), *((0, -n % t) for n, t in zip(at.shape[1:], TILE, strict=True))]
        tiles = np.pad(at, pad, mode="edge")
        extent = np.array(part.shape, np.int32)
        labels, bad = at_points(part.buffer, target.decision, tiles, begin, extent, window=(i, j, k), size=TILE)
        target.labels[rows] = np.asarray(labels)[tuple(map(slice, at.shape[1:]))]
        if target.probabilities is not None:
            probable(part, at, begin, rows, target)
        return bool(bad)

    raise_if_nan(any(list(pool.map(fill, range(0, len(target.labels), TILE[0])))))


def placed(matrix: Matrix, way: Way, rows: slice) -> np.ndarray:
    """Where some rows of the native grid lie among the scores, (3, n, J, K) float32; -1 where they were cut off."""
    points = through(matrix, way.native.spatial_shape, rows).astype(np.float32)
    for reach in way.reaches[:-1]:
        points[:, ~within(through(reach.matrix, way.native.spatial_shape, rows), reach.shape)] = -1
    return points


def through(matrix: Matrix, shape: Shape3, rows: slice) -> np.ndarray:
    """Rows of voxels through a matrix, (3, n, J, K) float64."""
    i, j, k = np.ogrid[rows, : shape[1], : shape[2]]
    return np.stack([(a * i + d) + b * j + c * k for a, b, c, d in matrix[:3]])


def mapped(matrix: Matrix, points: np.ndarray) -> np.ndarray:
    """Points (3, ...) scaled and moved along the axes, float32."""
    return np.stack([matrix[a, a] * points[a] + matrix[a, 3] for a in range(3)]).astype(np.float32)


def reach_of(matrix: Matrix, tile: Shape3) -> list[int]:
    """How many scores a tile spans along each of their axes, through a matrix."""
    return [int(np.ceil(n)) + 2 for n in np.abs(matrix[:3, :3]) @ (np.asarray(tile) - 1)]


def spans_of(points: np.ndarray, matrix: Matrix, shape: Shape3) -> list[int]:
    """The most scores that what any tile shows spans along each of their axes, through points."""
    lows, highs = [], []
    for first in range(0, points.shape[1], TILE[0]):
        at = mapped(matrix, points[:, first : first + TILE[0]])
        inside = within(at, shape)[None]
        cut = [np.arange(0, n, t) for n, t in zip(at.shape[2:], TILE[1:], strict=True)]
        least = np.where(inside, at, np.inf).min(1)
        most = np.where(inside, at, -np.inf).max(1)
        for axis, starts in enumerate(cut, 1):
            least = np.minimum.reduceat(least, starts, axis)
            most = np.maximum.reduceat(most, starts, axis)
        lows.append(least), highs.append(most)
    spans = np.stack(highs) - np.stack(lows)
    spans = np.where(np.isfinite(spans), spans, 0)
    return [int(np.ceil(n)) + 2 for n in spans.max((0, 2, 3))]


def within(points: np.ndarray, shape: Shape3) -> np.ndarray:
    """Which points (3, ...) lie in scores of `shape`."""
    return np.all([(x >= -0.5 - SLACK) & (x < n - 0.5 + SLACK) for x, n in zip(points, shape, strict=True)], 0)


def probable(part: Planes, points: np.ndarray, begin: np.ndarray, rows: slice, target: Target) -> None:
    """Fill in the probabilities of some rows, one after the other."""
    found = target.probabilities
    assert found is not None
    for n, row in enumerate(range(rows.start, rows.stop)):
        at = points[:, n : n + 1]
        clipped = np.stack([np.clip(x, 0, size - 1) + b for x, size, b in zip(at, part.shape, begin, strict=True)])
        values = all_at_points(part.buffer, clipped.astype(np.float32), finish=target.finish)
        shown = within(at, part.shape)[None]
        there = found[:, row : row + 1]
        there[...] = np.where(shown, np.asarray(values), there)
