"""Preprocessing of real-size volumes to .nii.gz: medjax against the loop of the guide, TorchIO in spawned processes.

Reorient, resample to 1 mm, crop or pad, z-norm. Volumes are the MNI152 T1 at spacings from 0.9 to 1.1 mm, turned, each
with noise of its own. Everyone begins anew, so that what is compiled and imported counts. From int16 TorchIO's files are a
third as large, since SimpleITK rounds what it interpolates back to whole numbers; from float32 nothing is rounded.

python -m tests.benchmarks.preprocess [--count 64] [--cores 2] [--only torchio,threads,processes] [--dtype int16]
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

SHAPE = (192, 224, 192)
NAMES = "sub-{id}_{modality}.nii.gz"
CONTESTANTS = ("torchio", "threads", "processes")


def write(folder: Path, count: int, dtype: str) -> None:
    """The volumes."""
    import medjax as mj
    from tests.benchmarks.timer import T1

    image, rng = mj.ScalarImage(T1), np.random.default_rng(0)
    data, noise = image.numpy().astype(np.float32), rng.normal(scale=20, size=image.shape).astype(np.float32)
    folder.mkdir()
    for n in range(count):
        affine = np.diag([-1.0, 1, 1, 1]) * [*rng.uniform(0.9, 1.1, 3), 1]
        noisy = data + np.roll(noise, 1000 * n)
        voxels = np.rint(noisy).astype(dtype) if dtype == "int16" else noisy.astype(dtype)
        mj.ScalarImage(voxels[:, ::-1], affine).save(folder / f"sub-{n:02d}_T1w.nii.gz")


def one_by_torchio(path: Path, transform, out: Path) -> None:
    """The guide's `preprocess_single_subject`."""
    import torchio as tio

    subject = transform(tio.Subject(T1w=tio.ScalarImage(path)))
    subject.T1w.save(out / path.name)


def by_torchio(folder: Path, out: Path, cores: int) -> None:
    """The guide's loop, spawned, since forked it hangs."""
    import torchio as tio

    transform = tio.Compose([tio.ToCanonical(), tio.Resample(1), tio.CropOrPad(SHAPE), tio.ZNormalization()])
    out.mkdir()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(partial(one_by_torchio, transform=transform, out=out), sorted(folder.iterdir())))


def by_medjax(folder: Path, out: Path, cores: int, processes: bool) -> None:
    """`medjax.preprocess`."""
    import medjax as mj

    pipeline = mj.Compose([mj.ToCanonical(), mj.Resample(1.0), mj.CropOrPad(SHAPE), mj.ZNormalization()])
    dataset = mj.SubjectsDataset.from_folder(folder / NAMES)
    if processes:
        with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
            report = mj.preprocess(dataset, pipeline, out, names=NAMES, executor=pool)
    else:
        report = mj.preprocess(dataset, pipeline, out, names=NAMES)
    assert not report.failed, report.failed


def run(contestant: str, folder: Path, out: Path, cores: int) -> None:
    """Do it in this process."""
    if contestant == "torchio":
        by_torchio(folder, out, cores)
    else:
        by_medjax(folder, out, cores, contestant == "processes")


def main() -> None:
    """Print seconds and bytes of each, and ratios to TorchIO."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--only", default=",".join(CONTESTANTS))
    parser.add_argument("--dtype", default="int16", choices=("int16", "float32"))
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)  # what a contestant's own process is called with
    asked = parser.parse_args()
    if asked.inside:
        return run(asked.inside[0], Path(asked.inside[1]), Path(asked.inside[2]), asked.cores)
    with tempfile.TemporaryDirectory() as temporary:
        folder, first = Path(temporary) / "in", None
        write(folder, asked.count, asked.dtype)
        for name in asked.only.split(","):
            out = Path(temporary) / name
            start, before = time.perf_counter(), os.times()
            line = [sys.executable, "-m", "tests.benchmarks.preprocess", "--inside", name, str(folder), str(out)]
            subprocess.run([*line, "--cores", str(asked.cores)], check=True)
            seconds, after = time.perf_counter() - start, os.times()
            worked = sum(after[2:4]) - sum(before[2:4])
            size = sum(path.stat().st_size for path in out.glob("*.nii.gz"))
            first = first or (seconds, worked, size)
            print(
                f"{name}: {seconds:.1f} s, {worked:.1f} s of processors, {size / 1e6:.0f} MB; {first[0] / seconds:.2f} "
                f"times as fast as {asked.only.split(',')[0]} ({first[1] / worked:.2f} by processors), "
                f"files {size / first[2]:.3f} of its",
                flush=True,
            )
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
