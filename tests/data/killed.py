"""Preprocessing that is killed at one moment after the other, each by SIGKILL, and goes on: a script for tests.

python tests/data/killed.py FOLDER MOMENTS  prints how many were killed, and what was left of an end.

Children are forks of a process in which JAX has not begun, so that a moment costs no start of Python.
"""

import gzip
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import nibabel
import numpy as np

import medjax as mj
from medjax.data import job

NAMES = "sub-{id}_{modality}.nii.gz"
COUNT = 12


def halved(subject: mj.Subject) -> mj.Subject:
    """A pipeline in NumPy, slow enough to be killed in."""
    time.sleep(0.002)
    return subject.replace(**{n: i.replace(data=i.numpy()[:, ::2]) for n, i in subject.images.items()})


def write_inputs(folder: Path) -> None:
    """A data set of random volumes."""
    folder.mkdir()
    for n in range(COUNT):
        data = np.random.default_rng(n).normal(size=(1, 40, 40, 40)).astype(np.float32)
        mj.ScalarImage(data, np.diag([1.0, 1.0, 2.0, 1.0])).save(folder / f"sub-{n:02d}_T1w.nii.gz")


def work(folder: Path, out: str) -> mj.Preprocessed:
    """Do what is left."""
    dataset = mj.SubjectsDataset.from_folder(folder / "in" / NAMES)
    return mj.preprocess(dataset, halved, folder / out, names=NAMES)


def forked(folder: Path, out: str) -> int:
    """A child that does it; its number."""
    child = os.fork()
    if child == 0:
        job.IMPORTED_BY = os.getpid()  # no JAX has begun in its parent
        try:
            work(folder, out)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def outputs(folder: Path) -> dict[str, bytes]:
    """The files of a folder that are no drafts."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()}


def main(folder: Path, moments: int) -> None:
    """Kill it, and look at what is there after each time."""
    write_inputs(folder / "in")
    start = time.perf_counter()
    assert os.waitpid(forked(folder, "whole"), 0)[1] == 0
    takes = time.perf_counter() - start
    killed, broken = 0, 0
    for moment in range(moments):
        child = forked(folder, "cut")
        time.sleep(takes * (moment + 0.5) / moments / 3)
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for path in (folder / "cut").glob("*.nii.gz"):
            try:
                nibabel.load(path).get_fdata()
                gzip.decompress(path.read_bytes())
            except Exception:
                broken += 1
        done = sorted((folder / "cut").glob("*.nii.gz"))
        for path in done[moment % 2 :: 2]:  # so that there is always something to do
            path.unlink()
    assert os.waitpid(forked(folder, "cut"), 0)[1] == 0
    found, expected = outputs(folder / "cut"), outputs(folder / "whole")
    volumes = [name for name in expected if name.endswith(".nii.gz")]
    equal = sum(found.get(name) == expected[name] for name in volumes)
    drafts = sum(1 for _ in (folder / "cut").glob(".medjax-*"))
    print(f"{moments} moments, {killed} killed, {broken} broken, {equal} of {len(volumes)} equal, {drafts} drafts left")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
