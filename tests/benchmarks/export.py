"""Class scores to labels on the native grid: against torch and SciPy; and what `predict` holds for 117 classes.

python tests/benchmarks/export.py [classes ...]; python tests/benchmarks/export.py memory
"""

import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import torch
from scipy import ndimage
from timer import alternate

import medjax as mj
from medjax.ops.election import Decision
from medjax.prediction.aligned import axes_along, fill_along_axes, layout_of
from medjax.prediction.predict import as_it_is, workers
from medjax.prediction.scores import Planes
from medjax.prediction.target import target_of
from medjax.prediction.way import Reach, Way

SHAPE, FINER = (96, 112, 96), 1.5


def scores_like(kind: str, classes: int) -> np.ndarray:
    """Scores of organs in a body; of level sets of smooth noise, many in each tile; or noise: all contend everywhere."""
    rng = np.random.default_rng(0)
    if kind == "organs":
        at = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).astype(np.float32)
        centres, radii = rng.uniform(0.15, 0.85, (classes - 1, 3)) * SHAPE, rng.uniform(5, 17, (classes - 1, 3))
        found = [
            10 - 10 * np.linalg.norm((at - c) / r, axis=-1).clip(0, 4) for c, r in zip(centres, radii, strict=True)
        ]
        whole = np.stack([np.full(SHAPE, 3), *found])  # the body first
        return (whole + rng.normal(0, 0.3, whole.shape)).astype(np.float32)
    if kind == "noise":
        return rng.normal(size=(classes, *SHAPE)).astype(np.float32)
    base = ndimage.gaussian_filter(rng.normal(size=SHAPE), 5)
    base = (base - base.min()) / np.ptp(base) * (classes - 1)
    found = np.stack([-((base - c) ** 2) for c in range(classes)]).astype(np.float32)
    return found + rng.normal(scale=0.05, size=found.shape).astype(np.float32)


def ours(scores: np.ndarray, shape: tuple[int, int, int]) -> Callable[[], np.ndarray]:
    """What `predict` does with scores that are there whole."""
    step = np.diag([*(a / b for a, b in zip(SHAPE, shape)), 1.0])
    step[:3, 3] = np.diag(step)[:3] / 2 - 0.5
    way = Way(mj.ScalarImage(np.zeros((1, *shape), np.uint8)), step, (Reach(step, SHAPE),))
    buffer = jnp.asarray(np.pad(scores, [(0, 0), (1, 0), (0, 0), (0, 0)]))
    part = Planes(buffer, 0, SHAPE[0], (1, 1, 1), SHAPE)
    labels = np.arange(len(scores)).astype(np.uint8)

    def run() -> np.ndarray:
        target = target_of(shape, len(scores), Decision(labels), as_it_is, False)
        with ThreadPoolExecutor(workers()) as pool:
            fill_along_axes(iter([part]), layout_of(part, way, step, axes_along(step, shape), target), pool)
        return target.labels

    return run


def running(scores: torch.Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """torch's interpolation class by class, and a running maximum."""
    best, winner = torch.full(shape, -torch.inf), torch.zeros(shape, dtype=torch.uint8)
    for number, one in enumerate(scores):
        values = torch.nn.functional.interpolate(one[None, None], size=shape, mode="trilinear")[0, 0]
        winner[values > best] = number
        torch.maximum(best, values, out=best)
    return winner.numpy()


def at_once(scores: torch.Tensor, shape: tuple[int, int, int]) -> np.ndarray:
    """torch's interpolation of all classes, and argmax."""
    return torch.nn.functional.interpolate(scores[None], size=shape, mode="trilinear")[0].argmax(0).numpy()


def by_scipy(scores: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """SciPy's zoom class by class, and a running maximum."""
    best, winner = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.uint8)
    for number, one in enumerate(scores):
        values = ndimage.zoom(one, np.divide(shape, SHAPE), order=1, mode="nearest", grid_mode=True)
        winner[values > best] = number
        np.maximum(best, values, out=best)
    return winner


def compare(classes: int, kind: str) -> None:
    """One row: times in turns, and how many voxels differ."""
    i, j, k = (int(n * FINER) for n in SHAPE)
    values = scores_like(kind, classes)
    tensor = torch.from_numpy(values)
    calls = {
        "medjax": ours(values, (i, j, k)),
        "torch, running maximum": lambda: running(tensor, (i, j, k)),
        "torch, whole": lambda: at_once(tensor, (i, j, k)),
    }
    if kind != "noise":
        calls["scipy"] = lambda: by_scipy(values, (i, j, k))
    differ = np.mean(calls["medjax"]() != calls["torch, running maximum"]())
    best = alternate(calls, repeats=3)
    own = best.pop("medjax")
    ratios = ", ".join(f"{own / spent:.3f} of {name}" for name, spent in best.items())
    print(f"{classes} classes, {kind}: {own * 1e3:.0f} ms, {ratios}; {differ:.1e} of the voxels differ", flush=True)


def memory() -> None:
    """117 classes on a native grid of 512 x 512 x 300, in windows of 64 x 96 x 96."""
    data = ndimage.zoom(ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(64, 64, 38)), 2), 8, order=1)
    data = data[:, :, :300].astype(np.float32)
    data = ((data - data.min()) / np.ptp(data) * 1000).astype(np.int16)
    subject = mj.Subject(ct=mj.ScalarImage(data[None], np.diag([0.75, 0.75, 1.0, 1.0])))
    pipeline, centres = mj.Compose([mj.Resample(1.5)]), np.linspace(0, 1000, 117).tolist()
    ready = pipeline(subject).ct.spatial_shape

    def network(batch: mj.Subject) -> jax.Array:
        return jnp.concatenate([-(((batch["ct"].data - c) / 10) ** 2) for c in centres], 1)

    base, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = mj.predict(network, subject, pipeline, patch_size=(64, 96, 96), overlap=0.25)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    buffer = 117 * 65 * ready[1] * ready[2] * 4
    limit = (1.25 * buffer + found.data.nbytes) / 2**30 + 0.3
    print(
        f"117 classes to {found.spatial_shape}: {(peak - base) / 2**20:.2f} GiB above the base (goal {limit:.2f}: planes "
        f"in work {buffer / 2**30:.2f}; all scores there {117 * data.size * 4 / 2**30:.0f}); "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        memory()
    else:
        for count in map(int, sys.argv[1:] or (25, 117)):
            for kind in ("organs", "smooth", "noise"):
                compare(count, kind)
