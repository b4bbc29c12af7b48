"""What benchmarks are run on, and the numbers that the same transform has in every library."""

from typing import NamedTuple

import numpy as np

rng = np.random.default_rng(0)
MOVE = dict(scales=(1.1, 0.9, 1.05), degrees=(5, -8, 10), translation=(2, 3, -4))
POINTS = rng.uniform(-7.5, 7.5, (7, 7, 7, 3)).astype(np.float32)
POINTS[[0, 1, -2, -1]] = POINTS[:, [0, 1, -2, -1]] = POINTS[:, :, [0, 1, -2, -1]] = 0
BIAS = rng.uniform(-0.5, 0.5, 20).astype(np.float32)
DEGREES = np.array([(2.5, -3, 4), (-4, 1.5, 2)], np.float32)
SHIFTS = np.array([(1, -0.7, 0.4), (-1.3, 0.6, 1)], np.float32)
TIMES = np.array([0.31, 0.66], np.float32)
POINT = np.array([(0.4, 0.53, 0.61)], np.float32)
PAIRS = rng.integers(0, 45, (2000, 2, 3))
PAIRS = PAIRS[(np.abs(PAIRS[:, 0] - PAIRS[:, 1]) >= 15).any(1)][:100]
CORNERS = [(1, 2, 3), (9, 5, 6), (7, 7, 0), (10, 10, 10)]


class Volume(NamedTuple):
    """An image from 0 to 1, float32 (1, I, J, K), its label uint8, and their affine (4, 4)."""

    data: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def synthetic(shape: tuple[int, int, int]) -> Volume:
    """A ball with a texture, in noise: it needs no file."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij")
    within = sum(a * a for a in axes) < 0.7
    waves = 0.6 + 0.3 * np.sin(9 * axes[0]) * np.cos(7 * axes[1] + 2 * axes[2])
    noise = np.abs(np.random.default_rng(0).normal(scale=0.02, size=shape)).astype(np.float32)
    data = np.clip(waves * within + noise, 0, 1).astype(np.float32)
    return Volume(data[None], within.astype(np.uint8)[None], np.eye(4))


def mni() -> Volume:
    """The MNI152 T1 of 197 x 233 x 189 voxels that nilearn brings, with its grey matter as label."""
    from tests.benchmarks.timer import volume

    data, label, affine = volume()
    return Volume(data.astype(np.float32) / data.max(), label, affine)
