"""Reading a series of DICOM slices against SimpleITK: seconds, taking turns, and the memory that a fresh process takes.

python -m tests.benchmarks.dicom_series [--slices 400] [--side 512] [--rounds 5]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK

from medjax import io
from tests.io.synthetic_dicom import voxels, write_series


def by_medjax(folder: Path) -> np.ndarray:
    """Voxels (1, I, J, K)."""
    return io.read(folder)[0]


def by_simpleitk(folder: Path) -> np.ndarray:
    """Voxels (K, rows, columns)."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return SimpleITK.GetArrayFromImage(reader.Execute())


WAYS: dict[str, Callable[[Path], np.ndarray]] = {"medjax": by_medjax, "SimpleITK": by_simpleitk}


def used() -> int:
    """The most bytes that this process has had in memory, by Linux; getrusage counts those of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def grown(name: str, small: Path, folder: Path) -> float:
    """How many volumes more a process takes at most while it reads one; what is imported is imported by a small one."""
    WAYS[name](small)
    before = used()
    array = WAYS[name](folder)
    return (used() - before) / array.nbytes


def medians(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of each, all taking turns, after a call each that brings the files into memory."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name, read in WAYS.items():
            start = time.perf_counter()
            read(folder)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in seconds.items()}


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of a slice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--grown", nargs=3, help=argparse.SUPPRESS)  # who, a small series and a large one
    options = parser.parse_args()
    if options.grown:
        name, small, folder = options.grown
        print(grown(name, Path(small), Path(folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        small = write_series(Path(temporary) / "small", voxels(1, 3, 8, 8))
        folder = write_series(Path(temporary) / "large", voxels(1, options.slices, options.side, options.side))
        found = [by_medjax(folder)[0].T, by_simpleitk(folder)]
        np.testing.assert_array_equal(*found)
        del found
        seconds = medians(folder, options.rounds)
        for name in WAYS:
            command = [sys.executable, "-m", "tests.benchmarks.dicom_series", "--grown", name, str(small), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{name}: {seconds[name]:.2f} s, at most {float(done.stdout):.2f} volumes of memory")
        print(f"medjax takes {seconds['medjax'] / seconds['SimpleITK']:.2f} times the time of SimpleITK")


if __name__ == "__main__":
    main()
