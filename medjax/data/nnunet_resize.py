"""Volumes resized along the axes of their grids as nnU-Net does it: on the host, in NumPy.

Resizing is a product with a matrix along each axis, made of the weights of a line.
"""

from collections.abc import Sequence

import numpy as np

ANISOTROPIC = 3
"""Above which ratio of the largest to the smallest spacing the coarse axis is resampled on its own."""
PADDING = 12
"""How often the edge voxel is repeated before the spline filter; what is left beyond is 1e-7."""
TIED = 1e-5


def separate(old: np.ndarray, new: np.ndarray) -> int | None:
    """The axis that is resampled on its own, if any, for resampling from one spacing to another."""
    for spacing in (old, new):
        if spacing.max() / spacing.min() > ANISOTROPIC:
            coarse = np.flatnonzero(np.isclose(spacing, spacing.max(), rtol=1e-5, atol=0))
            return int(coarse[0]) if len(coarse) == 1 else None
    return None


def resize(x: np.ndarray, shape: Sequence[int], axis: int | None) -> np.ndarray:
    """A channel (I, J, K) brought to a shape by cubic B-splines, clipped to its range; float32.

    axis: the one that is resized afterwards, by the nearest slice; then each slice is clipped to its own range.
    """
    if x.shape == tuple(shape):
        return x
    over = tuple(a for a in range(3) if a != axis)
    low, high = x.min(over, keepdims=True), x.max(over, keepdims=True)
    smooth = np.clip(weighted(x, shape, over, 3), low, high)
    return smooth if axis is None else taken(smooth, shape, (axis,))


def resize_linearly(x: np.ndarray, shape: Sequence[int], axis: int | None) -> np.ndarray:
    """A channel brought to a shape by linear interpolation, along `axis` the nearest slice; float32."""
    plane = weighted(x.astype(np.float32), shape, tuple(a for a in range(3) if a != axis), 1)
    return plane if axis is None else taken(plane, shape, (axis,))


def resize_labels(x: np.ndarray, shape: Sequence[int], axis: int | None) -> np.ndarray:
    """Labels (I, J, K) brought to a shape by the vote of their linearly interpolated indicators; keeps the type.

    Where labels tie the nearest voxel decides, or else the smallest label. axis: as in `resize`.
    """
    if x.shape == tuple(shape):
        return x
    over = tuple(a for a in range(3) if a != axis)
    near = taken(x, shape, over)
    winner, best = near.copy(), np.zeros(near.shape, np.float32)
    for label in np.unique(x):
        score = weighted((x == label).astype(np.float32), shape, over, 1)
        tied = np.abs(score - best) <= TIED
        better = np.where(tied, near == label, score > best)
        winner[better] = label
        np.maximum(best, score, out=best)
    return winner if axis is None else taken(winner, shape, (axis,))


def weighted(x: np.ndarray, shape: Sequence[int], axes: Sequence[int], order: int) -> np.ndarray:
    """A volume resized along some axes, by a product with a matrix along each whose size changes."""
    for axis in axes:
        if x.shape[axis] != shape[axis]:
            matrix = weights(x.shape[axis], int(shape[axis]), order).astype(np.float32)
            x = np.moveaxis(np.tensordot(matrix, x, (1, axis)), 0, axis)
    return x


def taken(x: np.ndarray, shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """A volume resized along some axes by the nearest voxel, ties up."""
    for axis in axes:
        index = np.floor(positions(x.shape[axis], int(shape[axis])) + 0.5).astype(int)
        x = np.take(x, np.clip(index, 0, x.shape[axis] - 1), axis)
    return x


def positions(size: int, count: int) -> np.ndarray:
    """Where `count` voxels lie among `size` voxels of the same field of view, in units of the latter."""
    return (np.arange(count) + 0.5) * (size / count) - 0.5


def weights(size: int, count: int, order: int) -> np.ndarray:
    """The matrix (count, size) that resizes a line, linearly (order 1) or by a cubic B-spline (3).

    The edge voxel goes on beyond the edge, for the spline's filter too: `scipy.ndimage.zoom` in mode 'nearest'.
    """
    at = positions(size, count)
    if order == 1:
        return np.maximum(1 - np.abs(np.clip(at, 0, size - 1)[:, None] - np.arange(size)[None]), 0)
    index = np.arange(-PADDING, size + PADDING)
    line = np.eye(size)[np.clip(index, 0, size - 1)]
    far = np.abs(index[:, None] - index[None])
    samples = np.where(far == 0, 2 / 3, np.where(far == 1, 1 / 6, 0.0))
    samples[0, 1] = samples[-1, -2] = 1 / 3  # mirrored about the last voxel
    return cubic(np.abs(at[:, None] - index[None])) @ np.linalg.solve(samples, line)


def cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic B-spline at a distance >= 0."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)
