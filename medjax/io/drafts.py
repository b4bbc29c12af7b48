"""Folders in which something is written before it takes its place, and what becomes of those whose process ended."""

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".medjax-"
"""How the names of such folders begin."""
ABANDONED = 24 * 3600.0
"""Seconds after which a draft belongs to nobody, wherever its process ran."""


@contextlib.contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    """A folder for a draft, removed in the end; what killed processes left in `parent` is removed first."""
    sweep(parent)
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{_here()}-{os.getpid()}-", dir=parent) as folder:
        yield Path(folder)


def write_text(path: Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    with folder_in(path.parent) as folder:
        (folder / path.name).write_text(text)
        (folder / path.name).replace(path)


def sweep(parent: Path) -> None:
    """Remove the drafts whose process is gone, and those that are old; never one that may still be written to."""
    for draft in parent.glob(PREFIX + "*"):
        where, _, number = draft.name.removeprefix(PREFIX).rpartition("-")[0].rpartition("-")
        gone = where == _here() and number.isdecimal() and not _runs(int(number))
        with contextlib.suppress(OSError):  # another process may have removed it meanwhile
            if gone or time.time() - draft.stat().st_mtime > ABANDONED:
                shutil.rmtree(draft, ignore_errors=True)


def _here() -> str:
    """Where process numbers mean what they mean here: the name of the machine, and the kernel's name space of them."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{platform.node()}-{space}"


def _runs(process: int) -> bool:
    """Whether a process of this machine is alive, as far as can be told."""
    if os.name != "posix":
        return True  # elsewhere signal 0 is not a question
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it belongs to another user; or it is no number of a process
    return True
