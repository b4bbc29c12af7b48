"""Which files a path stands for, and what tells that they are still the same: their places, sizes and times."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

Signature = list[tuple[str, int, int]]
"""(real path, bytes, nanoseconds of the last change) of each file."""
_OF_SEVERAL = (".hdr", ".hdr.gz", ".img", ".img.gz", ".par", ".rec", ".head", ".brik", ".brik.gz")
_NAMES_ANOTHER = (".mhd", ".nhdr", ".nrrd")
_NAMED = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


def signature_of(path: Path) -> Signature:
    """The signature of all files that are read when `path` is.

    Raises: OSError for what is not there; ValueError if it cannot be told which files they are.
    """
    files = sorted({os.path.realpath(file) for file in _files_of(path.expanduser())})
    states = [os.stat(file) for file in files]
    return [(file, state.st_size, state.st_mtime_ns) for file, state in zip(files, states, strict=True)]


def _files_of(path: Path) -> Iterator[Path]:
    name = path.name.lower()
    if path.is_dir() or name.startswith("dicomdir"):  # which lists files of its folder
        yield from (file for file in (path if path.is_dir() else path.parent).rglob("*") if file.is_file())
        return
    yield path
    if name.endswith(_OF_SEVERAL):
        stem = name.partition(".")[0]
        yield from (file for file in path.parent.iterdir() if file.name.lower().partition(".")[0] == stem)
    elif name.endswith(_NAMES_ANOTHER):
        with open(path, "rb") as file:
            found = _NAMED.search(file.read(1 << 16).partition(b"\n\n")[0])
        other = os.fsdecode(found[1]) if found else "LOCAL"
        if "%" in other or other.upper().startswith("LIST"):
            raise ValueError(f"{path} has its voxels in several files")
        if other.upper() != "LOCAL":
            yield path.parent / other
