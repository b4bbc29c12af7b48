"""What is known of a volume's patches before their voxels; on the host."""

from typing import NamedTuple

import numpy as np

from medjax.geometry import Grid
from medjax.patches.samplers import fitting
from medjax.typing import Shape3


class Plan(NamedTuple):
    """How far beyond a patch is read, and from which voxel to before which a patch's centre comes if it can."""

    margin: Shape3
    around: tuple[np.ndarray, np.ndarray]


FAR = np.full(3, np.iinfo(np.int32).max, np.int32)
"""Beyond the last voxel of any grid."""


def first_of_each(coins: dict[int, np.ndarray]) -> list[int]:
    """The first number of each combination of coins (S,)."""
    return [0] if not coins else sorted(np.unique(np.stack(list(coins.values())), axis=1, return_index=True)[1])


def around(begin: Grid, end: Grid, size: Shape3) -> tuple[np.ndarray, np.ndarray]:
    """The voxels [low, high) before a run around which, if nothing moves, a patch lies in the grid after it.

    Affines are (S, 4, 4): of all draws together, and of what is oblique the box.
    """
    low, high = (np.broadcast_to(edge, end.shape.shape) for edge in fitting(end.shape, size))
    edges = np.stack([low - 0.499, high - 1 + 0.499], 1)  # rounded, a centre on the way is one of them
    corners = np.where(np.indices((2, 2, 2)).reshape(3, 8).T[None] == 0, edges[:, :1], edges[:, 1:])
    step = np.linalg.inv(begin.affine.astype(np.float64)) @ end.affine
    index = corners @ np.swapaxes(step[:, :3, :3], 1, 2) + step[:, None, :3, 3]
    limit = begin.shape.max(0)
    first, last = np.ceil(index.min((0, 1))), np.floor(index.max((0, 1))) + 1
    return np.clip(first, 0, limit).astype(np.int32), np.clip(last, 0, limit).astype(np.int32)
