"""A cache on a local disk: a folder for each entry, in it a `.npy` for each image, which is mapped.

An entry is made under another name and takes its place by one rename.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medjax.data.store import KEY, RECORD, Damaged, Entry, box_in, from_text, to_text
from medjax.io import drafts


class Local:
    """Entries in a folder, which is made if it is not there; see `Store`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, key: str) -> Entry | None:
        """An entry, whose arrays are mapped: what is written to them reaches no file."""
        path = self.folder / key
        try:
            record = from_text((path / RECORD).read_text())
            return Entry(record, [mapped(path, number) for number in range(len(record["images"]))])
        except (OSError, ValueError, EOFError) as error:
            if not path.exists():  # or has just left
                return None
            raise Damaged(str(error)) from error

    def box(self, key: str, number: int, start: Sequence[int], shape: Sequence[int]) -> np.ndarray | None:
        """A copy of a part of a mapped array; of it no checksum is compared."""
        found = self.read(key)
        if found is None:
            return None
        array = found.arrays[number]
        return array[box_in(array.shape, start, shape)].copy()

    def write(self, key: str, entry: Entry) -> None:
        """The arrays first, the record last, and all of it at once in its place."""
        with drafts.folder_in(self.folder) as draft:
            new = draft / key
            new.mkdir()
            for number, array in enumerate(entry.arrays):
                np.save(new / f"{number}.npy", array, allow_pickle=False)
            (new / RECORD).write_text(to_text(entry.record))
            with contextlib.suppress(FileExistsError):
                move(new, self.folder / key)

    def touch(self, key: str) -> None:
        """The time of a record's file is when its entry was last used."""
        with contextlib.suppress(OSError):  # a folder that is only read
            os.utime(self.folder / key / RECORD)

    def sizes(self) -> dict[str, int]:
        """The bytes of every entry."""
        found = {}
        for path in self.folder.iterdir():
            if KEY.fullmatch(path.name) and path.is_dir():
                with contextlib.suppress(OSError):  # it has just left
                    found[path.name] = sum(file.stat().st_size for file in os.scandir(path))
        return found

    def last_used(self, keys: Iterable[str]) -> dict[str, float]:
        """When entries were last used; 0 for one without a record."""
        found = dict.fromkeys(keys, 0.0)
        for key in found:
            with contextlib.suppress(OSError):
                found[key] = (self.folder / key / RECORD).stat().st_mtime
        return found

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """The records of entries that are there and whole."""
        found = []
        for key in keys:
            with contextlib.suppress(OSError, ValueError):
                found.append(from_text((self.folder / key / RECORD).read_text()))
        return found

    def remove(self, keys: Iterable[str]) -> None:
        """Remove entries, each by one rename. Who has mapped its arrays keeps them."""
        with contextlib.suppress(OSError), drafts.folder_in(self.folder) as gone:
            for key in keys:
                with contextlib.suppress(OSError):  # another process may have removed it
                    (self.folder / key).rename(gone / key)


def mapped(folder: Path, number: int) -> np.ndarray:
    """Array `number` of a folder; it begins on a 64-byte boundary, where JAX on a CPU takes it without a copy."""
    return np.load(folder / f"{number}.npy", mmap_mode="c", allow_pickle=False).view(np.ndarray)


def move(new: Path, place: Path) -> None:
    """Rename a folder; raises FileExistsError where there is one, whatever the system says of it."""
    try:
        new.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        raise FileExistsError(f"{place} is there") from None
