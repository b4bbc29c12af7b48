"""The memory that a call takes: the highest resident size of a fresh process less that before the call.

python -m tests.benchmarks.memory LIBRARY ROW SIZE     (the process that `peak` starts)
"""

import resource
import subprocess
import sys
import warnings
from pathlib import Path

from tests.benchmarks.rows import installed
from tests.benchmarks.volumes import synthetic

ROOT = Path(__file__).parent.parent.parent


def peak(library: str, row: str, size: int) -> float:
    """Megabytes that the second call of a row takes above what the first left, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.memory", library, row, str(size)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main(library: str, row: str, size: int) -> None:
    """Print what the calls take: the first at an eighth of the voxels, so that libraries are loaded."""
    module = installed()[library]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.calls(synthetic((size // 2,) * 3))[row]()
        run = module.calls(synthetic((size,) * 3))[row]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
