"""What must not be lost: by memory that ends, processes that are killed, and iterators that are dropped half way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import nibabel
import numpy as np
import psutil
import pytest

import medjax as mj

KEY = jax.random.key(1)

MEMORY = """
import sys, resource, numpy as np, jax, medjax as mj
jax.devices()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
subject = mj.Subject(a=mj.ScalarImage(np.ones((1, 8, 8, 8), np.float32)), name="sub-1")
limit = int(((used + 2**30) / 4) ** (1 / 3) * 1.2)  # of float32
transforms = {"pad": mj.CropOrPad(2 * limit), "resample": mj.Resample(8 / limit), "far": mj.Resample(0.002), "huge": mj.CropOrPad(3000)}
for name, t in transforms.items():
    dataset = mj.SubjectsDataset([subject] * 2, t)
    ways = {
        "call": lambda: t(subject),
        "dataset": lambda: dataset[1],
        "batch": lambda: t.batch(mj.stack([subject] * 2)),
        "loader": lambda: next(iter(mj.loader(dataset, 2, jax.random.key(0)))),
    }
    for way, make in ways.items():
        try:
            make()
            print(name, way, "nothing was raised")
        except (MemoryError, ValueError, TypeError) as error:
            told = "sub-1" in str(error) or way in ("call", "batch")
            print(name, way, "refused" if told and "voxels" in str(error) else f"{type(error).__name__}: {error}")
"""


def test_a_result_that_does_not_fit_is_refused_in_voxels():
    """In a process that may have 1 GB more than it has; neither an abort nor a hang."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.strip().splitlines()
    # A spacing that makes a shape of its own is none for a batch, which says so.
    other = [line for line in lines if not line.endswith("refused") and "known while tracing" not in line]
    assert len(lines) == 16 and not other, other
