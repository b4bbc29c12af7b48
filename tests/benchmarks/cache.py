"""What a cache saves: the second epoch of the guide's patch queue, and of a loader, against the first.

From eight .nii.gz files of 8.7 million voxels with labels. With and without a cache epochs take turns, so that a loaded
machine slows both; what is printed are ratios of medians.

python tests/benchmarks/cache.py
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from patch_queue import BATCH, PATCH, write

import medjax as mj

PIPELINE = mj.Compose(
    [
        mj.ZNormalization(),
        mj.RandomAffine(p=0.75),
        mj.RandomElasticDeformation(p=0.5),
        mj.RandomBiasField(p=0.5),
        mj.RandomNoise(p=0.5),
    ]
)
ROUNDS = 3


def epoch(batches) -> float:
    """Seconds of an epoch."""
    start = time.perf_counter()
    for batch in batches:
        jax.block_until_ready(jax.tree.leaves(batch))
    return time.perf_counter() - start


def compare(name: str, make: Callable, subjects: list[mj.Subject], folder: Path) -> None:
    """Print how much longer an epoch takes that fills the cache, or that has none, than one that reads from it."""
    plain = mj.SubjectsDataset(subjects, PIPELINE)
    epoch(make(plain))  # compiles
    seconds: dict[str, list[float]] = {"first": [], "none": [], "second": []}
    for number in range(ROUNDS):
        cached = mj.SubjectsDataset(subjects, PIPELINE, cache=mj.Cache(folder / f"{name} {number}"))
        for kind, dataset in (("first", cached), ("second", cached), ("none", plain)):
            seconds[kind].append(epoch(make(dataset)))
        cached._prepared.cache.clear()
    first, none, second = (float(np.median(seconds[kind])) for kind in seconds)
    print(
        f"{name}: second epoch {first / second:.2f} times as fast as the first, {none / second:.2f} as without a cache"
    )


def main() -> None:
    """Print the ratios."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        subjects = [mj.Subject(t1=mj.ScalarImage(a), label=mj.LabelMap(b)) for a, b in write(Path(folder))]
        for count in (10, 1):

            def queue(dataset: mj.SubjectsDataset, count: int = count) -> mj.PatchQueue:
                options = {"samples_per_volume": count, "max_length": 40}
                return mj.PatchQueue(dataset, mj.UniformSampler(PATCH), BATCH, jax.random.key(0), **options)

            compare(f"queue, {count} patches a volume", queue, subjects, Path(folder))
        compare("loader", lambda dataset: mj.loader(dataset, 2, jax.random.key(0)), subjects, Path(folder))


if __name__ == "__main__":
    main()
