"""Strict settings for every test, and the real volumes they share."""

import gc
import itertools
import os
import random
import signal
import sys

# Without LLVM's optimisations, in child processes too: volumes are small here, and compiling costs more than it saves.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

if version("jaxlib").startswith("0.10."):  # an unknown flag ends the process
    # Fused loops made by MLIR take twice as long to compile. The guide and the notebooks have them.
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax
import nibabel
import nilearn
import numpy as np
import pytest

import medjax as mj

DONE = pytest.StashKey[int]()

gc.set_threshold(100_000, 20, 100)  # what was traced lives on, and looking through it again and again takes its time

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so a shell begins what runs behind it; tests interrupt
    signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

NILEARN = Path(nilearn.__file__).parent / "datasets" / "data"
NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
T1 = NILEARN / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
GREY = NILEARN / "mni_icbm152_gm_tal_nlin_sym_09a_converted.nii.gz"
OBLIQUE = np.array([[0.94, -0.36, 0.42, 200.0], [0.30, 1.86, 0.31, -150.0], [-0.17, -0.64, 1.41, 320.0], [0, 0, 0, 1]])
"""An oblique affine with anisotropic spacing (1, 2, 1.5) mm and an origin hundreds of millimetres away."""
OBLIQUE[:3, :3] = np.linalg.qr(OBLIQUE[:3, :3])[0] * np.sign(np.diag(np.linalg.qr(OBLIQUE[:3, :3])[1])) * (1, 2, 1.5)


def oriented(codes, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    """An affine whose voxel axes run along the world axes that `codes` names, as "PIR"."""
    affine = np.zeros((4, 4))
    for axis, code in enumerate(codes):
        world = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[world, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    affine[:3, 3], affine[3, 3] = origin, 1
    return affine


def blobs(shape=(23, 31, 18), seed=0):
    """An asymmetric volume (I, J, K) of smooth blobs from 0 to 1, float32."""
    from scipy.ndimage import gaussian_filter

    data = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return ((data - data.min()) / np.ptp(data)).astype(np.float32)


def small_subject(affine=OBLIQUE, shape=(23, 31, 18), seed=0, **metadata):
    """A subject of blobs with a label map of values 0, 1 and 3."""
    data = blobs(shape, seed)
    label = ((data > 0.5) + 2 * (data > 0.6)).astype(np.uint8)
    return mj.Subject(t1=mj.ScalarImage(data[None], affine), label=mj.LabelMap(label[None], affine), **metadata)


@pytest.fixture
def subject():
    """A small subject on an oblique anisotropic grid."""
    return small_subject(name="small")


@pytest.fixture(scope="session")
def mni():
    """The MNI152 T1 (int16 or float, 197 x 233 x 189, 1 mm) with a label map of its grey matter."""
    grey = mj.LabelMap((mj.ScalarImage(GREY).numpy() > 0.5 * mj.ScalarImage(GREY).numpy().max()).astype(np.uint8),
                       mj.ScalarImage(GREY).affine)  # fmt: skip
    return mj.Subject(t1=mj.ScalarImage(T1).load(), label=grey)


MAPPINGS = 30000
"""Mappings of memory after which compiled programs are dropped; a process may have 65530, and each program holds some."""


@pytest.fixture(autouse=True)
def drop_programs(request):
    """Forget compiled programs before they fill the process: thousands of them end in a segmentation fault."""
    yield
    done = request.config.stash.get(DONE, 0) + 1
    request.config.stash[DONE] = done
    maps = Path("/proc/self/maps")
    if done % 20 == 0 and maps.exists() and maps.read_text().count("\n") > MAPPINGS:
        jax.clear_caches()


@pytest.fixture(autouse=True)
def seeded():
    """What draws from a process's own generators draws the same whatever ran before it."""
    random.seed(0), np.random.seed(0)  # noqa: NPY002
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def as_users_run(request):
    """`test_modes` compiles what users write with LLVM's optimisations, as they do."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", before and request.path.stem != "test_modes")
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@contextmanager
def compilations():
    """Counts the programs that are compiled inside: `with compilations() as count: ...; count()`."""
    jax.random.key(0)  # its own program is not the test's, and may just have been forgotten
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield lambda: len(seen)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


CASES = itertools.count(1)


def forget_programs(every=60):
    """Drop compiled programs now and then: a process that keeps thousands runs out of memory maps."""
    if next(CASES) % every == 0:
        jax.clear_caches()
