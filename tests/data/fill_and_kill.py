"""Fill a cache under a URL in children that are killed at random moments, and print what is there after each as JSON.

python tests/data/fill_and_kill.py FOLDER KILLS

Of each kill [entries, parts of entries], then of two children that fill one cache at the same time. It is a process of
its own, for who forks must not have used tensorstore.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import tensorstore  # noqa: F401  so that no child imports it; nothing is started by it

import medjax as mj
from medjax.data import remote

COUNT = 6
SHAPE = (1, 40, 36, 33)


class Counted(mj.SubjectsDataset):
    """Counts what is read; touches NumPy and tensorstore only."""

    reads = 0

    def read(self, *arguments):
        self.reads += 1
        return super().read(*arguments)


def written(folder):
    """Subjects in files: noise, and labels that are nearly all zero."""
    subjects = []
    for i in range(COUNT):
        data = np.random.default_rng(i).normal(size=SHAPE).astype(np.float32)
        mj.ScalarImage(data).save(folder / f"{i}.nii")
        mj.LabelMap((data > 4).astype(np.uint8)).save(folder / f"{i}_label.nii")
        subjects.append(
            mj.Subject(t1=mj.ScalarImage(folder / f"{i}.nii"), label=mj.LabelMap(folder / f"{i}_label.nii"))
        )
    return subjects


def fill(subjects, url, order):
    """Fill a cache."""
    dataset = mj.SubjectsDataset(subjects, cache=mj.Cache(url))
    for index in order:
        dataset.prepared(index)
    return 0


def check(subjects, url):
    """How many entries there are. Fails unless they are right, and unless those that are not there can be made."""
    dataset = Counted(subjects, cache=mj.Cache(url))
    with warnings.catch_warnings(action="error"):
        for index, subject in enumerate(subjects):
            found, given = dataset.prepared(index), subject.load()
            for name, image in given.images.items():
                np.testing.assert_array_equal(found[name].data, image.data)
                np.testing.assert_array_equal(found[name].affine, image.affine)
    assert mj.Cache(url).check() == [] and mj.Cache(url).info().entries == COUNT
    return COUNT - dataset.reads


def forked(function, *arguments):
    """The number of a child that ends with what a function gives."""
    child = os.fork()
    if child == 0:
        remote.Fork.useless = False  # tensorstore is imported, but nobody has used it
        try:
            os._exit(function(*arguments))
        finally:
            os._exit(100)
    return child


def result(child):
    """What a child ended with."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 0 <= code <= COUNT, f"the child ended with {code}"
    return code


def killed(subjects, folder, due, pause):
    """What there is after a process that fills a cache was killed, some seconds after so many entries were there."""
    folder.mkdir()
    child = forked(fill, subjects, f"file://{folder}", range(COUNT))
    while sum(1 for _ in folder.glob("*/record.json")) < due and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts = sum(1 for entry in folder.iterdir() if not (entry / "record.json").exists())
    return result(forked(check, subjects, f"file://{folder}")), parts


def main(folder, kills):
    """Print what there was."""
    subjects, start = written(folder), time.perf_counter()
    assert result(forked(fill, subjects, f"file://{folder}/whole", range(COUNT))) == 0
    one, moments = (time.perf_counter() - start) / COUNT, random.Random(kills)
    found = []
    for kill in range(kills):
        due = moments.randrange(COUNT - 1)
        found.append(killed(subjects, folder / f"cache {kill}", due, moments.uniform(0, one)))
        assert found[-1][0] >= due
    orders = (range(COUNT), range(COUNT - 1, -1, -1))
    both = [forked(fill, subjects, f"file://{folder}/both", order) for order in orders]
    assert [result(child) for child in both] == [0, 0]
    print(json.dumps([found, result(forked(check, subjects, f"file://{folder}/both"))]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
