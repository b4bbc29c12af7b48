"""Affines of files: whether they are sound, and how far apart two of them are."""

from typing import Any

import numpy as np

ONE_GRID = 0.05
"""Up to how many voxels apart the corners of what is called one grid may lie.

float32 headers of 512-voxel axes and origins of 200 mm put them up to 1.5e-4 voxels off (3000 random affines as sform
and in MGH), quaternions 1e-4 and, near half a turn, much more; a twentieth of a voxel is far from both and not seen.
"""


def check_affine(affine: Any, what: object) -> np.ndarray:
    """A float64 (4, 4) array; raises ValueError, beginning with `what`, for one that is unsound."""
    try:
        affine = np.asarray(affine, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: the affine must be 4 x 4 numbers, got {affine!r}") from error
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise ValueError(f"{what}: the affine must be 4 x 4, finite, with last row 0 0 0 1:\n{affine}")
    columns = affine[:3, :3]
    # Relative to the spacing; an affine that was singular before it was rounded to float32 is singular still.
    with np.errstate(all="ignore"):
        volume, largest = abs(np.linalg.det(columns)), np.prod(np.linalg.norm(columns, axis=0))
    if not volume > 1e-6 * largest or not np.isfinite(largest):
        raise ValueError(f"{what}: the affine is singular, so voxels have no volume:\n{affine}")
    return affine


def apart(one: np.ndarray, other: np.ndarray, shape: Any) -> float:
    """How far apart two affines place the corners of a grid of (I, J, K) voxels, in the finest spacing of the first."""
    last = np.asarray(shape, np.float64) - 1
    corners = np.vstack([np.indices((2, 2, 2)).reshape(3, 8) * last[:, None], np.ones(8)])
    gap = np.linalg.norm(((other - one) @ corners)[:3], axis=0).max()
    return float(gap / np.linalg.norm(one[:3, :3], axis=0).min())


def same_grid(one: np.ndarray, other: np.ndarray, shape: Any) -> bool:
    """Whether two affines are one but for how headers round them; see `ONE_GRID`."""
    return apart(one, other, shape) <= ONE_GRID
