"""Subjects that were read and prepared once, for several processes at the same time."""

import contextlib
import os
import re
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medjax.arguments import maybe, size_in_bytes
from medjax.data.entry import entry_of, verify
from medjax.data.local import Local
from medjax.data.remote import READ_ONLY, WRITTEN, Remote
from medjax.data.store import Damaged, Entry, Store
from medjax.errors import shown
from medjax.subject import Subject

LIMIT = "200GB"
SLACK = 64
"""One part in so many of the limit may be written before the store is looked through again."""
KINDS = (*WRITTEN, *READ_ONLY)
URL = re.compile("[A-Za-z][A-Za-z0-9+.-]+:/")
"""How a URL begins; of a disk, as in "C:/", the name is one letter."""


class Info(NamedTuple):
    """What is in a cache: entries, bytes, and the largest error of those kept as float16, in the unit of the voxels."""

    entries: int
    bytes: int
    error: float


class Cache:
    """Where `SubjectsDataset(subjects, transform, cache=Cache(folder))` keeps subjects as they are before anything
    random, so that nothing is decoded, resampled or normalised twice.

    folder: a path, of a folder on a local disk, which is made if it is not there, and of which arrays are mapped. Or a
    URL, in whose place compressed chunks are kept (zarr 3, by tensorstore): "gs://bucket/prefix", "s3://bucket/prefix",
    "file:///share/cache" for a file system that machines share, and "http://..." or "https://..." of one that was
    filled in another way, which is only read. Who may read buckets is known from where Google's and Amazon's own tools
    know it, another server of S3's kind from AWS_ENDPOINT_URL. Several processes may use it, also while it is filled.
    limit: bytes, or a text as "200GB" (1e9 bytes) or "500MiB" (2^20 bytes); entries that were not used for the longest
    time leave when it is reached, or a little before. None: without a limit. What is only read has none.
    dtype: numpy.float16 to keep fractions in half the space, rounded by at most 2^-11 of each value (of 6e-5, for
    smaller ones), every time in the same way; images with values beyond 65504 are kept as they are. `medjax cache info`
    says the largest error. None: as they are, bit for bit. Whole numbers are always as they are.

    An entry is found by what it was made of: path, size and time of the files, the steps with all their arguments, the
    files that define functions and transforms of one's own, dtype, and the versions of medjax and JAX. If any of it
    changes, it is made anew; the old entry leaves at the limit. What a function calls in other files, and what a
    `reader` reads beside its path, is not looked at: `clear` after such a change. Checksums are compared, of a path
    when a process first uses an entry, of a URL always; a damaged one is made anew, with a warning. Where a cache
    cannot be reached or written to, subjects are made without it, with a warning.

    Raises ValueError or TypeError for arguments that make no sense, OSError for a folder that cannot be made.

    >>> cache = mj.Cache("cache", limit="200GB")
    >>> dataset = mj.SubjectsDataset(subjects, pipeline, cache=cache)
    """

    def __init__(self, folder: str | os.PathLike, limit: str | int | None = LIMIT, dtype: Any = None):
        if not isinstance(folder, (str, os.PathLike)) or (is_url(folder) and not str(folder).startswith(KINDS)):
            raise ValueError(
                f"folder must be the path of a folder on a disk, or a text that begins with {', '.join(KINDS)}, "
                f"got {shown(folder)}"
            )
        self.folder = str(folder) if is_url(folder) else Path(folder).expanduser()
        self.limit = maybe(size_in_bytes)("limit", limit)
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype not in (None, np.float16):
            raise ValueError(f"dtype must be numpy.float16 or None, got {shown(dtype)}")
        if str(self.folder).startswith(READ_ONLY) and limit not in (LIMIT, None):
            raise ValueError(
                f"limit must be None for what is only read, got {shown(limit)}; {', '.join(WRITTEN)} have one"
            )
        self._begin()

    def _begin(self) -> None:
        self.store: Store = Local(self.folder) if isinstance(self.folder, Path) else Remote(self.folder)
        self._lock = threading.Lock()
        self._verified: set[str] = set()
        self._spare = 0  # bytes that may be written before the store is looked through again

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, limit={self.limit}, dtype={self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "limit": self.limit, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def get(self, key: str) -> Entry | None:
        """The record and the arrays of an entry, or None if there is none; a damaged one is removed, with a warning.

        Raises OSError for a store that cannot be reached.
        """
        try:
            found = self.store.read(key)
            if found is not None and key not in self._verified:
                verify(found)
                self._verified.add(key)
        except Damaged as error:
            warnings.warn(f"an entry of the cache {self.folder} is damaged and is made anew: {error}", stacklevel=2)
            self._remove([key])
            return None
        if found is not None:
            self.store.touch(key)
        return found

    def put(self, key: str, made: Subject, given: Subject) -> None:
        """Keep what a subject has become; nothing if another process has done so meanwhile.

        Raises TypeError for what cannot be kept, ValueError for what is larger than the limit, OSError for a store
        that is full or cannot be written to.
        """
        size = sum(image.data.nbytes for image in made.images.values())
        if self.limit is not None and size > self.limit:
            raise ValueError(f"{size} bytes are more than its limit of {self.limit}")
        self._make_room(size)
        self.store.write(key, entry_of(made, given, self.dtype))

    def info(self) -> Info:
        """How much there is. Raises OSError for a URL that is only read."""
        sizes = self.store.sizes()
        records = self.store.records(list(sizes))
        errors = [image["error"] for record in records for image in record["images"]]
        return Info(len(records), sum(sizes.values()), max(errors, default=0.0))

    def check(self) -> list[str]:
        """Compare every checksum; damaged entries are removed, and it is said what was wrong with each.

        Raises OSError for a URL that is only read.
        """
        problems = []
        for key in self.store.sizes():
            try:
                found = self.store.read(key)
                if found is not None:
                    verify(found)
            except Damaged as error:
                problems.append(str(error))
                self._remove([key])
        return problems

    def clear(self) -> None:
        """Remove all entries, and nothing else that is in the folder. Raises OSError for a URL that is only read."""
        self.store.remove(list(self.store.sizes()))
        self._verified.clear()

    def _make_room(self, size: int) -> None:
        """Let go of what was not used for the longest time, until `size` more bytes fit."""
        if self.limit is None:
            return
        with self._lock:
            self._spare -= size
            if self._spare >= 0:
                return
            sizes = self.store.sizes()
            total, slack, leaving = sum(sizes.values()) + size, self.limit // SLACK, []
            used = self.store.last_used(list(sizes)) if total > self.limit else {}
            for key in sorted(used, key=lambda key: used[key]):
                if total + slack <= self.limit:
                    break
                leaving.append(key)
                total -= sizes[key]
            self._remove(leaving)
            self._spare = min(slack, self.limit - total)

    def _remove(self, keys: list[str]) -> None:
        """Remove entries, as far as one may."""
        self._verified.difference_update(keys)
        if keys:
            with contextlib.suppress(OSError):
                self.store.remove(keys)


def is_url(folder: str | os.PathLike) -> bool:
    """Whether a cache is told by a URL, and not by a path."""
    return bool(URL.match(str(folder)))
