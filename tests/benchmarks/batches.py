"""Whole batches on the device: volumes a second of pipelines, and each transform against a copy of its input.

The first minutes of a lent card: what matters most comes first, a row is started only while there is time, and each is
written before the next. Data are made here, and the batches lie on the device.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import medjax as mj
from tests.benchmarks.libraries import ours
from tests.benchmarks.pipelines import augmentations, guide, patch
from tests.benchmarks.volumes import Volume, synthetic


def subjects(volume: Volume, size: int, images: bool = True) -> mj.Subject:
    """A batch on the device."""
    affine = np.tile(volume.affine.astype(np.float32), (size, 1, 1))
    label = mj.LabelMap.of(np.repeat(volume.label[None], size, 0), affine)
    image = {"image": mj.ScalarImage.of(np.repeat(volume.data[None], size, 0), affine)} if images else {}
    return jax.device_put(mj.Subject(**image, label=label))


def timed(run: Callable[[int], Any], repeats: int) -> dict[str, float]:
    """Milliseconds of a call with a seed: the median, with the host waiting for each, and of calls in a row; first call."""
    start = time.perf_counter()
    jax.block_until_ready(run(0))
    first = time.perf_counter() - start
    alone = []
    for seed in range(1, repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(run(seed))
        alone.append(time.perf_counter() - start)
    start = time.perf_counter()
    results = [run(seed) for seed in range(repeats)]
    jax.block_until_ready(results[-1])
    stream = (time.perf_counter() - start) / repeats
    return {"ms": 1e3 * statistics.median(alone), "ms in a row": 1e3 * stream, "compile s": first - alone[0]}


def pipeline_row(pipeline: mj.Transform, batch: mj.Subject, size: int, repeats: int) -> dict[str, float]:
    """A pipeline of which every call draws anew: inside a compiled function, as in a training step, and as its `batch`."""
    keys = [jax.random.key(seed) for seed in range(repeats + 1)]
    start = time.perf_counter()
    program = jax.jit(lambda batch, key: pipeline.batch(batch, key)).lower(batch, keys[0]).compile()
    spent = time.perf_counter() - start
    inside = timed(lambda seed: program(batch, keys[seed]), repeats)
    called = timed(lambda seed: pipeline.batch(batch, keys[seed]), repeats)
    return {
        **inside,
        "compile s": spent,
        "volumes/s": 1e3 * size / inside["ms in a row"],
        "volumes/s of .batch": 1e3 * size / called["ms in a row"],
        "temporary MB": program.memory_analysis().temp_size_in_bytes / 2**20,
    }


def drawn(shape: tuple[int, ...], size: int) -> list[tuple[str, mj.Transform, tuple[int, ...], int]]:
    """Pipelines whose result has this shape or, of patches, less; the shape and the number of what they are given."""
    larger, small = tuple(n * 6 // 5 for n in shape), patch(tuple(n * 8 // 5 for n in shape))
    return [
        ("augmentations", mj.Compose(augmentations(mj, shape)), shape, size),
        ("guide", guide(mj, shape), larger, size),
        ("nnU-Net's list", mj.presets.nnunet(small), tuple(n * 8 // 5 for n in small), 2),
        ("SynthSeg", mj.presets.synthseg(range(2), patch_size=small), larger, 2),
    ]


def rows(shape: tuple[int, int, int], size: int, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Every row with its numbers, one at a time."""
    volume = synthetic(shape)
    batch = subjects(volume, size)
    data = batch.image.data
    copied = timed(lambda seed: jnp.add(data, seed), 3 * repeats)
    bandwidth = 2 * data.nbytes / copied["ms in a row"] / 1e6
    yield "copy", {**copied, "GB/s": bandwidth}
    for name, pipeline, before, count in drawn(shape, size):
        given = subjects(synthetic(before), count, images=name != "SynthSeg")
        yield f"{name}, batch of {count}", pipeline_row(pipeline, given, count, repeats)
    image = mj.Subject(image=batch.image)
    for name, t in ours.transforms(shape).items():
        compiled = jax.jit(lambda batch, t=t: t.batch(batch, jax.random.key(0)).image.data)
        try:
            found = timed(lambda seed, run=compiled: run(image), repeats)
        except ValueError as error:  # its shape depends on values, and it says so
            yield name, {"refused": str(error)[:200]}
            continue
        yield name, {**found, "of a copy": copied["ms in a row"] / found["ms in a row"]}


def within(found: Iterator[tuple[str, dict[str, Any]]], limit: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows for as long as there is time to start one."""
    start = time.perf_counter()
    for row in found:
        yield row
        if time.perf_counter() - start > limit:
            return
