"""What the entries of a cache are kept in: a record and arrays under a key, all of them or nothing."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from medjax.arguments import sizes, wholes

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

KEY = re.compile("[0-9a-f]{32}")
RECORD = "record.json"


class Damaged(ValueError):
    """What is there is not what was written."""


class Entry(NamedTuple):
    """What there is under a key: a record as JSON can hold it, and an array (C, I, J, K) for each of its images."""

    record: dict[str, Any]
    arrays: list[np.ndarray]


class Store(Protocol):
    """Entries by keys of 32 hexadecimal digits, which several processes may read, write and remove at the same time.

    Nobody ever sees a part of an entry, whenever whoever writes or removes it is killed. Methods raise OSError for a
    store that cannot be reached, and where it is only read.
    """

    def read(self, key: str) -> Entry | None:
        """An entry, whose arrays begin on a 64-byte boundary; None if there is none. Raises Damaged."""
        ...

    def box(self, key: str, number: int, start: Sequence[int], shape: Sequence[int]) -> np.ndarray | None:
        """The voxels (C, *shape) from `start` on of array `number`, reading little else; None if there is no entry.

        Raises ValueError for a box that is not inside the array, Damaged for voxels that are not what was written.
        """
        ...

    def write(self, key: str, entry: Entry) -> None:
        """Keep an entry; nothing if there is one."""
        ...

    def touch(self, key: str) -> None:
        """Note that an entry is used; nothing where nothing can be noted."""
        ...

    def sizes(self) -> dict[str, int]:
        """The bytes of every entry."""
        ...

    def last_used(self, keys: Iterable[str]) -> dict[str, float]:
        """When entries were last used, in seconds since 1970; 0 where nothing tells."""
        ...

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """The records of entries, those left out that are not there or damaged."""
        ...

    def remove(self, keys: Iterable[str]) -> None:
        """Remove entries; who has their arrays keeps them."""
        ...


def to_text(record: dict[str, Any]) -> str:
    """A record with its checksum."""
    return json.dumps({"record": record, "crc32": crc32(json.dumps(record).encode())})


def from_text(text: str | bytes) -> dict[str, Any]:
    """The record of which `to_text` made this; raises Damaged."""
    try:
        found = json.loads(text)
        if found["crc32"] == crc32(json.dumps(found["record"]).encode()):
            return found["record"]
    except (ValueError, KeyError, TypeError):
        pass
    raise Damaged("its record is not what was written")


def box_in(whole: Sequence[int], start: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    """The slices of a box of an array of shape `whole` (C, I, J, K); raises ValueError if it is not inside."""
    first, size = wholes(low=0)("start", start), sizes("shape", shape)
    if any(a + n > most for a, n, most in zip(first, size, whole[1:], strict=True)):
        raise ValueError(f"the box of start={first}, shape={size} is not inside the array of {tuple(whole[1:])}")
    return (slice(None), *(slice(a, a + n) for a, n in zip(first, size, strict=True)))
