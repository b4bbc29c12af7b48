"""Run every Python block of a guide for TorchIO users, in order in one process, on torch_bridge instead.

    python tests/run_guide.py [../shared/reference/torchio_guide.md] [--limit SECONDS]

Only the import is changed. Each block has a time limit; beyond it the process prints its stacks and ends, so that a hang
fails. The five subjects are made of the MNI152 template that nilearn brings. Without the guide there is nothing to do.
"""

import argparse
import faulthandler
import os
import re
import sys
import tempfile
import time
import traceback
from pathlib import Path

import nibabel
import nilearn
import numpy as np

NILEARN = Path(nilearn.__file__).parent / "datasets" / "data"
STEP = (3, 3, 2)
"""Every third, third and second voxel: no axis is shorter than the guide's patches of 64."""


def write_subjects(folder: Path, count: int = 5, step: tuple[int, int, int] = STEP) -> None:
    """Files sub-01_T1w.nii.gz, T2w, FLAIR and seg (grey matter) of several subjects, whose contrast differs."""
    every = tuple(slice(None, None, n) for n in step)
    volumes = []
    for kind in ("t1", "gm"):
        image = nibabel.load(NILEARN / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz")
        volumes.append(np.asarray(image.dataobj)[every].astype(np.float32))
        affine = image.affine @ np.diag([*step, 1.0])
    t1, grey = (volume / volume.max() for volume in volumes)
    for i in range(count):
        contrasts = {"T1w": t1 ** (1 + 0.1 * i), "T2w": (1 - t1) * (t1 > 0.1), "FLAIR": t1 * (1 - grey)}
        files = {name: (800 * volume).astype(np.int16) for name, volume in contrasts.items()}
        files["seg"] = (grey > 0.4 + 0.02 * i).astype(np.uint8)
        for name, volume in files.items():
            nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"sub-{i + 1:02d}_{name}.nii.gz")


def blocks_of(text: str) -> list[tuple[str, str]]:
    """The Python blocks of a Markdown text, each with the heading that it stands under."""
    found, heading = [], ""
    for match in re.finditer(r"^#+ ([^\n]+)$|^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            found.append((heading, match[2]))
    return found


def bridged(block: str) -> str:
    """A block that imports torch_bridge instead of torchio."""
    return re.sub(r"^(\s*(?:import|from)) torchio\b", r"\1 torch_bridge", block, flags=re.MULTILINE)


def run(blocks: list[tuple[str, str]], limit: float) -> int:
    """Run the blocks in one namespace, print a line for each, and return how many failed."""
    import __main__  # what the guide defines must be found by name, as in a script

    failures = 0
    for number, (heading, block) in enumerate(blocks, 1):
        start = time.monotonic()
        faulthandler.dump_traceback_later(limit, exit=True)
        try:
            exec(compile(bridged(block), f"block {number}", "exec"), vars(__main__))
        except Exception:
            failures += 1
            traceback.print_exc()
        finally:
            faulthandler.cancel_dump_traceback_later()
        print(f"==== block {number} of {len(blocks)}, {heading}: {time.monotonic() - start:.1f} s", flush=True)
    return failures


def main() -> int:
    """Run the guide in a folder of its own, and return how many blocks failed."""
    parser = argparse.ArgumentParser(description="Run the Python blocks of a guide on torch_bridge.")
    default = Path(__file__).parents[2] / "shared" / "reference" / "torchio_guide.md"
    parser.add_argument("guide", nargs="?", type=Path, default=default)
    parser.add_argument("--limit", type=float, default=120, help="seconds for each block (default: 120)")
    arguments = parser.parse_args()
    if not arguments.guide.exists():
        print(f"there is no {arguments.guide}: nothing to run")
        return 0
    blocks = blocks_of(arguments.guide.read_text(encoding="utf-8"))
    os.environ.setdefault("MPLBACKEND", "agg")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        write_subjects(Path(folder))
        failures = run(blocks, arguments.limit)
        os.chdir("/")
    print(f"{len(blocks) - failures} of {len(blocks)} blocks ran")
    return failures


if __name__ == "__main__":
    sys.exit(main())
