"""A folder of subjects that were read and prepared once, for several processes at the same time.

An entry is a folder named by its key. It is made under another name and takes its place by one rename, so there is
never half an entry, whenever whoever fills it is killed.
"""

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.arguments import maybe, size_in_bytes
from medjax.data import entry
from medjax.errors import shown
from medjax.io import drafts
from medjax.subject import Subject

KEY = re.compile("[0-9a-f]{32}")
SLACK = 64
"""One part in so many of the limit may be written before the folder is looked through again."""


class Stored(NamedTuple):
    """An entry of the folder: when it was last used (seconds), its bytes, and where it is."""

    used: float
    size: int
    path: Path


class Info(NamedTuple):
    """What is in a cache: entries, bytes, and the largest error of those kept as float16, in the unit of the voxels."""

    entries: int
    bytes: int
    error: float


class Cache:
    """A folder in which `SubjectsDataset(subjects, transform, cache=Cache(folder))` keeps subjects as they are before
    anything random, so that nothing is decoded, resampled or normalised twice.

    folder: on a local disk; it is made if it is not there. Several processes may use it, also while it is being filled.
    limit: bytes, or a text as "200GB" (1e9 bytes) or "500MiB" (2^20 bytes); entries that were not used for the longest
    time leave when it is reached, or a little before. None: without a limit.
    dtype: numpy.float16 to keep fractions in half the space, rounded by at most 2^-11 of each value (of 6e-5, for
    smaller ones), every time in the same way; images with values beyond 65504 are kept as they are. `medjax cache info`
    says the largest error. None: as they are, bit for bit. Whole numbers are always as they are.

    An entry is found by what it was made of: path, size and time of the files, the steps with all their arguments, the
    files that define functions and transforms of one's own, dtype, and the versions of medjax and JAX. If any of it
    changes, it is made anew; the old entry leaves at the limit. What a function calls in other files, and what a
    `reader` reads beside its path, is not looked at: `clear` after such a change. A checksum is compared when a process
    first uses an entry; a damaged one is made anew, with a warning.

    Raises ValueError or TypeError for arguments that make no sense, OSError for a folder that cannot be made.

    >>> cache = mj.Cache("cache", limit="200GB")
    >>> dataset = mj.SubjectsDataset(subjects, pipeline, cache=cache)
    """

    def __init__(self, folder: str | os.PathLike, limit: str | int | None = "200GB", dtype: Any = None):
        if not isinstance(folder, (str, os.PathLike)) or "://" in str(folder):
            raise ValueError(f"folder must be the path of a folder on a disk, got {shown(folder)}")
        self.folder = Path(folder).expanduser()
        self.limit = maybe(size_in_bytes)("limit", limit)
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype not in (None, np.float16):
            raise ValueError(f"dtype must be numpy.float16 or None, got {shown(dtype)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._verified: set[str] = set()
        self._spare = 0  # bytes that may be written before the folder is looked through again

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, limit={self.limit}, dtype={self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limit": self.limit, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def get(self, key: str) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """The record and the arrays of an entry, or None if there is none; a damaged one is removed, with a warning."""
        path = self.folder / key
        try:
            record, arrays = entry.read(path)
            if key not in self._verified:
                entry.verify(record, arrays)
                self._verified.add(key)
            with contextlib.suppress(OSError):  # a folder that is only read
                os.utime(path / entry.RECORD)
            return record, arrays
        except (OSError, ValueError) as error:
            if path.exists():  # else it has just left
                warnings.warn(f"an entry of the cache {self.folder} is damaged and is made anew: {error}", stacklevel=2)
                self._remove([path])
            return None

    def put(self, key: str, made: Subject, given: Subject) -> None:
        """Keep what a subject has become; nothing if another process has done so meanwhile.

        Raises TypeError for what cannot be kept, ValueError for what is larger than the limit, OSError for a folder
        that is full or cannot be written to.
        """
        record = entry.record_of(made, given)
        size = sum(image.data.nbytes for image in made.images.values())
        if self.limit is not None and size > self.limit:
            raise ValueError(f"{size} bytes are more than its limit of {self.limit}")
        self._make_room(size)
        with drafts.folder_in(self.folder) as draft:
            new = draft / key
            new.mkdir()
            entry.write(new, record, made, self.dtype)
            with contextlib.suppress(FileExistsError):
                move(new, self.folder / key)

    def info(self) -> Info:
        """How much there is."""
        stored = list(self._stored())
        errors = [image["error"] for one in stored for image in self._images(one)]
        return Info(len(stored), sum(one.size for one in stored), max(errors, default=0.0))

    def check(self) -> list[str]:
        """Compare every checksum; damaged entries are removed, and it is said what was wrong with each."""
        problems = []
        for _, _, path in self._stored():
            try:
                entry.verify(*entry.read(path))
            except (OSError, ValueError) as error:
                if path.exists():
                    problems.append(str(error))
                    self._remove([path])
        return problems

    def clear(self) -> None:
        """Remove all entries, and nothing else that is in the folder."""
        self._remove([one.path for one in self._stored()])
        self._verified.clear()

    def _make_room(self, size: int) -> None:
        """Let go of what was not used for the longest time, until `size` more bytes fit."""
        if self.limit is None:
            return
        with self._lock:
            self._spare -= size
            if self._spare >= 0:
                return
            stored = sorted(self._stored())
            total, slack, leaving = sum(one.size for one in stored) + size, self.limit // SLACK, []
            for one in stored if total > self.limit else ():
                if total + slack <= self.limit:
                    break
                leaving.append(one.path)
                total -= one.size
            self._remove(leaving)
            self._spare = min(slack, self.limit - total)

    def _stored(self) -> Iterator[Stored]:
        """All entries."""
        for path in self.folder.iterdir():
            if KEY.fullmatch(path.name) and path.is_dir():
                with contextlib.suppress(OSError):  # it has just left
                    states = {file.name: file.stat() for file in os.scandir(path)}
                    used = states[entry.RECORD].st_mtime if entry.RECORD in states else 0.0
                    yield Stored(used, sum(state.st_size for state in states.values()), path)

    def _images(self, one: Stored) -> list[dict[str, Any]]:
        """What the record of an entry says of its images."""
        with contextlib.suppress(OSError, ValueError):
            return entry.read(one.path)[0]["images"]
        return []

    def _remove(self, paths: list[Path]) -> None:
        """Remove entries, each at once: nobody sees half of one. Who has mapped its arrays keeps them."""
        if not paths:
            return
        with contextlib.suppress(OSError), drafts.folder_in(self.folder) as gone:
            for path in paths:
                self._verified.discard(path.name)
                with contextlib.suppress(OSError):  # another process may have removed it
                    path.rename(gone / path.name)


def move(new: Path, place: Path) -> None:
    """Rename a folder; raises FileExistsError where there is one, whatever the system says of it."""
    try:
        new.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        raise FileExistsError(f"{place} is there") from None
