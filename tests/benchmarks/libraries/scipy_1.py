"""SciPy and NumPy: what a careful user writes by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage

from tests.benchmarks.volumes import MOVE, Volume

DISTRIBUTION = "scipy"


def calls(volume: Volume) -> dict[str, Callable[[], Any]]:
    """Each row as a call."""
    x, rng = volume.data[0], np.random.default_rng(0)
    matrix = np.diag(MOVE["scales"]) + np.full((3, 3), 0.05)
    return {
        "affine": lambda: ndimage.affine_transform(x, matrix, order=1),
        "affine, cubic": lambda: ndimage.affine_transform(x, matrix, order=3),
        "flip": lambda: x[::-1].copy(),
        "pad": lambda: np.pad(x, 10),
        "z-norm": lambda: (x - x.mean()) / x.std(),
        "percentiles": lambda: np.interp(x, np.percentile(x, (1, 99)), (0, 1)).astype(np.float32),
        "clamp": lambda: np.clip(x, 0.1, 0.9),
        "gamma": lambda: x ** np.float32(1.2),
        "noise": lambda: x + rng.normal(0, 0.1, x.shape).astype(np.float32),
        "blur": lambda: ndimage.gaussian_filter(x, 1.0),
        "median": lambda: ndimage.median_filter(x, 3),
    }
