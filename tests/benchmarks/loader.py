"""Augmented volumes per second from files: the guide's pipeline from .nii.gz to batches of 2, against TorchIO.

python tests/benchmarks/loader.py [--noise] [--rounds N]

Each contestant runs in a process of its own, in turns; the clock starts at the first batch, so that workers are up and
programs compiled. Every volume is read and decoded each time it is drawn. --noise: a T1 with noise in its air, as a
scanner gives it, which deflates to four times the bytes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SUBJECTS, BATCH = 8, 2
VOLUMES = {"torchio": 16, "medjax": 64}
GOALS = (15, 25)


def write(folder: Path, noise: bool) -> None:
    """Subjects of an int16 T1 and a uint8 label, as .nii.gz."""
    from timer import volume

    import medjax as mj

    t1, label, affine = volume()
    rng = np.random.default_rng(0)
    for number in range(SUBJECTS):
        scan = t1 * np.float32(12 + number / 4)  # up to 3000, as scanners have it
        if noise:
            scan += np.abs(rng.normal(scale=15, size=t1.shape).astype(np.float32))
        mj.ScalarImage(scan.astype(np.int16), affine).save(folder / f"t1_{number}.nii.gz")
        mj.LabelMap(label, affine).save(folder / f"label_{number}.nii.gz")


def subjects(library, folder: Path) -> list:
    """The subjects of a folder, often enough for one pass."""
    pairs = [(folder / f"t1_{number}.nii.gz", folder / f"label_{number}.nii.gz") for number in range(SUBJECTS)]
    return [library.Subject(t1=library.ScalarImage(t1), label=library.LabelMap(label)) for t1, label in pairs]


def run_torchio(folder: Path) -> tuple[float, int]:
    """Seconds from the first batch to the last, and volumes in them."""
    import torch
    import torchio
    from pipelines import guide

    torch.manual_seed(0)
    many = subjects(torchio, folder) * (1 + VOLUMES["torchio"] // SUBJECTS)
    dataset = torchio.SubjectsDataset(many, guide(torchio))
    batches = iter(torchio.SubjectsLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=2))
    next(batches)
    start = time.perf_counter()
    for _ in range(VOLUMES["torchio"] // BATCH):
        next(batches)
    return time.perf_counter() - start, VOLUMES["torchio"]


def run_medjax(folder: Path) -> tuple[float, int]:
    """Seconds from the first batch to the last, and volumes in them; what a volume costs goes to stderr."""
    import jax
    from pipelines import guide

    import medjax as mj

    dataset = mj.SubjectsDataset(subjects(mj, folder), guide(mj))
    epochs = 1 + VOLUMES["medjax"] // SUBJECTS
    batches = iter(mj.loader(dataset, BATCH, jax.random.key(0), epochs=epochs))
    jax.block_until_ready(next(batches).t1.data)
    start, busy = time.perf_counter(), time.process_time()
    for _ in range(VOLUMES["medjax"] // BATCH):
        batch = next(batches)
        jax.block_until_ready((batch.t1.data, batch.label.data))
    spent = time.perf_counter() - start
    busy = (time.process_time() - busy) / VOLUMES["medjax"]
    batches.close()
    decoded = time.process_time()
    for index in range(len(dataset)):
        dataset.read(index)
    decoded = (time.process_time() - decoded) / len(dataset)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"  a volume: {1e3 * busy:.0f} ms of one core, {1e3 * decoded:.0f} of them decoding; peak {peak:.2f} GB",
        file=sys.stderr,
    )
    return spent, VOLUMES["medjax"]


def measure(name: str, folder: Path) -> float:
    """Volumes per second of a contestant in a fresh process."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(here), "--contestant", name, "--folder", str(folder)]
    text = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    spent, volumes = text.stdout.split()[-2:]
    return int(volumes) / float(spent)


def main() -> None:
    """Print volumes per second of both, in turns, and the ratio of each round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", choices=VOLUMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        print(*{"torchio": run_torchio, "medjax": run_medjax}[options.contestant](options.folder))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, options.noise)
        size = (folder / "t1_0.nii.gz").stat().st_size / 2**20
        print(f"{SUBJECTS} subjects, 197x233x189 int16 T1 of {size:.1f} MB and label, batches of {BATCH}")
        ratios = []
        for number in range(options.rounds):
            peer, ours = measure("torchio", folder), measure("medjax", folder)
            ratios.append(ours / peer)
            print(
                f"round {number}: TorchIO {peer:.2f}, medjax {ours:.2f} volumes/s, {ratios[-1]:.1f} times", flush=True
            )
        print(f"median {np.median(ratios):.1f} times TorchIO (goal {GOALS[0]}, aim {GOALS[1]})")


if __name__ == "__main__":
    main()
