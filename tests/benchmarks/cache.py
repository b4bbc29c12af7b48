"""What a cache saves: the second epoch of the guide's patch queue, and of a loader, against the first.

From eight .nii.gz files of 8.7 million voxels with labels. With and without a cache epochs take turns, so that a loaded
machine slows both; what is printed are ratios of medians.

python -m tests.benchmarks.cache [--files 8] [--rounds 3] [--only "queue, 1 "]
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

import medjax as mj
from tests.benchmarks.patch_queue import BATCH, FILES, PATCH, write

PIPELINE = mj.Compose(
    [
        mj.ZNormalization(),
        mj.RandomAffine(p=0.75),
        mj.RandomElasticDeformation(p=0.5),
        mj.RandomBiasField(p=0.5),
        mj.RandomNoise(p=0.5),
    ]
)


def epoch(batches) -> float:
    """Seconds of an epoch."""
    start = time.perf_counter()
    for batch in batches:
        jax.block_until_ready(jax.tree.leaves(batch))
    return time.perf_counter() - start


def compare(name: str, make: Callable, subjects: list[mj.Subject], folder: Path, rounds: int) -> None:
    """Print how much longer an epoch takes that fills the cache, or that has none, than one that reads from it."""
    plain = mj.SubjectsDataset(subjects, PIPELINE)
    epoch(make(plain))  # compiles
    seconds: dict[str, list[float]] = {"first": [], "none": [], "second": []}
    for number in range(rounds):
        cached = mj.SubjectsDataset(subjects, PIPELINE, cache=mj.Cache(folder / f"{name} {number}"))
        for kind, dataset in (("first", cached), ("second", cached), ("none", plain)):
            seconds[kind].append(epoch(make(dataset)))
        cached._prepared.cache.clear()
    first, none, second = (float(np.median(seconds[kind])) for kind in seconds)
    print(
        f"{name}: second epoch {first / second:.2f} times as fast as the first, {none / second:.2f} as without a cache",
        flush=True,
    )


def contestants() -> dict[str, Callable]:
    """What makes the batches of an epoch, by name."""

    def queue(count: int) -> Callable:
        options = {"samples_per_volume": count, "max_length": 40}
        return lambda dataset: mj.PatchQueue(dataset, mj.UniformSampler(PATCH), BATCH, jax.random.key(0), **options)

    queues = {f"queue, {count} patches a volume": queue(count) for count in (10, 1)}
    return {**queues, "loader": lambda dataset: mj.loader(dataset, 2, jax.random.key(0))}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each kind")
    parser.add_argument("--only", default="", help="what the names of those that run begin with")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        pairs = write(Path(folder), options.files)
        subjects = [mj.Subject(t1=mj.ScalarImage(a), label=mj.LabelMap(b)) for a, b in pairs]
        for name, make in contestants().items():
            if name.startswith(options.only):
                compare(name, make, subjects, Path(folder), options.rounds)


if __name__ == "__main__":
    main()
