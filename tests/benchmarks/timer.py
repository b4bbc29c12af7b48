"""One timer for all benchmarks: contestants take turns in one run, and what is printed are ratios."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import nilearn
import numpy as np

import medjax as mj
from medjax.io import memory

DATA = Path(nilearn.__file__).parent / "datasets" / "data"
T1 = DATA / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
GREY = DATA / "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz"


def volume() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The MNI152 T1 (1, 197, 233, 189) int16, its grey matter as labels 0 and 1, and their affine.

    Placed in memory as medjax's reader places what it reads.
    """
    t1, grey = mj.ScalarImage(T1), mj.ScalarImage(GREY).numpy()
    data, label = (memory.empty(t1.shape, np.dtype(dtype)) for dtype in (np.int16, np.uint8))
    data[...], label[...] = t1.numpy(), grey > grey.max() / 2
    return data, label, np.asarray(t1.affine)


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of a call, results awaited."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def alternate(contestants: dict[str, Callable[[], Any]], repeats: int = 5) -> dict[str, float]:
    """The best time of each, after one call to warm up, all taking turns."""
    for run in contestants.values():
        seconds(run)
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(repeats):
        for name, run in contestants.items():
            best[name] = min(best[name], seconds(run))
    return best
