"""A cache in a bucket, on a web server, or on a file system that machines share: zarr 3 arrays, by tensorstore.

    <key>/used                              when it was last used, written first
    <key>/<bytes>-<draft>/<number>/...      an array, compressed chunks in one object; the draft's name is its own
    <key>/record.json                       the record, which names the draft: written last, if nobody was faster

What is killed leaves no record, or the record of arrays that are all there.
"""

import contextlib
import functools
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import numpy as np

from medjax.data.store import KEY, RECORD, Damaged, Entry, box_in, from_text, to_text
from medjax.data.zarr import below, connected, decoded, each, encoded, reported

if TYPE_CHECKING:
    import tensorstore

READ_ONLY = ("http://", "https://")
WRITTEN = ("file://", "gs://", "s3://")
USED = "used"
PAUSE = 3600.0
"""Seconds for which a process does not say again that it uses an entry."""
ABANDONED = 24 * 3600.0
"""Seconds after which arrays without a record belong to nobody."""
DAMAGE = ("DATA_LOSS", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE")
"""How tensorstore's errors begin that are about what is stored, and not about the way to it."""
T = TypeVar("T")


class Fork:
    """What a forked child has to know: tensorstore does not survive a fork, and ends the process that uses it then.

    useless: whether this process was forked from one that has it.  ask: runs a function of some arguments in that
    process; whoever can do so says it here.
    """

    useless = False
    ask: Callable[[Callable[..., Any], tuple[Any, ...]], Any] | None = None


def _in_child() -> None:
    Fork.useless = Fork.useless or "tensorstore" in sys.modules


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def by_tensorstore(method: Callable[..., T]) -> Callable[..., T]:
    """A method of a store that is done, in a forked child without tensorstore, by the process that it comes from."""

    @functools.wraps(method)
    def done(store: "Remote", *arguments: Any) -> T:
        if not Fork.useless:
            with reported(store.url):
                return method(store, *arguments)
        if Fork.ask is None:
            raise OSError(f"{store.url} cannot be used in a process forked from one that has tensorstore: spawn it")
        return Fork.ask(methodcaller(method.__name__, *arguments), (store,))

    return done


class Remote:
    """Entries under a URL; see `Store`. Every chunk has a checksum, which is compared whenever it is read."""

    def __init__(self, url: str):
        self.url = url.rstrip("/") + "/"
        self._touched: dict[str, float] = {}

    @by_tensorstore
    def read(self, key: str) -> Entry | None:
        """An entry, all of its arrays at the same time."""

        def whole(record: dict[str, Any], objects: "tensorstore.KvStore") -> Entry:
            parts = [decoded(objects, n, image["shape"], image["kept"]) for n, image in enumerate(record["images"])]
            each([done for _, done in parts])
            return Entry(record, [data for data, _ in parts])

        return self._taken(key, whole)

    @by_tensorstore
    def box(self, key: str, number: int, start: Sequence[int], shape: Sequence[int]) -> np.ndarray | None:
        """Of the array's object the list of its chunks is read, and those in which the box lies."""

        def box(record: dict[str, Any], objects: "tensorstore.KvStore") -> np.ndarray:
            image = record["images"][number]
            place = box_in(image["shape"], start, shape)
            data, done = decoded(objects, number, image["shape"], image["kept"], place)
            done.result()
            return data

        return self._taken(key, box)

    @by_tensorstore
    def write(self, key: str, entry: Entry) -> None:
        """Arrays under a name of their own, then the record, unless another process has written one."""
        self._check_writable()
        kv, place = connected(self.url), f"{key}/{RECORD}"
        before = kv.read(place).result()
        if before.state == "value":
            return
        self._note(key)
        objects = encoded(entry.arrays)
        draft = f"{sum(map(len, objects.values()))}-{secrets.token_hex(8)}"
        text, kept = to_text({**entry.record, "draft": draft}), False
        try:
            each([kv.write(f"{key}/{draft}/{name}", value) for name, value in objects.items()])
            kept = bool(kv.write(place, text, if_equal=before.stamp.generation).result().generation)
        finally:
            if not kept:
                with contextlib.suppress(ValueError, RuntimeError):
                    kv.delete_range(below(f"{key}/{draft}")).result()

    def touch(self, key: str) -> None:
        """One small object, now and then."""
        if time.time() - self._touched.get(key, 0.0) > PAUSE:
            self._touched[key] = time.time()
            with contextlib.suppress(OSError):  # who may only read
                self._note(key)

    @by_tensorstore
    def _note(self, key: str) -> None:
        connected(self.url).write(f"{key}/{USED}", str(time.time())).result()

    @by_tensorstore
    def sizes(self) -> dict[str, int]:
        """The bytes of every entry, whole or being made; what killed processes left is removed after a day."""
        self._check_writable()
        parts = {tuple(name.decode().split("/")[:2]) for name in connected(self.url).list().result()}
        found: dict[str, int] = {}
        for key, *part in parts:
            if KEY.fullmatch(key) and part:
                size = part[0].partition("-")[0]
                found[key] = found.get(key, 0) + (int(size) if size.isdecimal() else 0)
        drafts = [key for key in found if (key, RECORD) not in parts]
        gone = [key for key, used in self.last_used(drafts).items() if time.time() - used > ABANDONED]
        self.remove(gone)
        return {key: size for key, size in found.items() if key not in gone}

    @by_tensorstore
    def last_used(self, keys: Iterable[str]) -> dict[str, float]:
        """What `touch` has noted."""
        keys = list(keys)
        found = dict.fromkeys(keys, 0.0)
        for key, text in zip(keys, self._texts(keys, USED), strict=True):
            with contextlib.suppress(ValueError):
                found[key] = float(text)
        return found

    @by_tensorstore
    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """The records of entries that are there and whole."""
        found = []
        for text in self._texts(keys, RECORD):
            with contextlib.suppress(Damaged):
                found += [from_text(text)] if text else []
        return found

    @by_tensorstore
    def remove(self, keys: Iterable[str]) -> None:
        """The records first, so that nobody begins to read what is about to go."""
        self._check_writable()
        kv, keys = connected(self.url), list(keys)
        each([kv.write(f"{key}/{RECORD}", None) for key in keys])
        each([kv.delete_range(below(key)) for key in keys])
        if self.url.startswith("file://"):
            for key in keys:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.join(unquote(self.url.removeprefix("file://")), key))

    def _taken(self, key: str, take: Callable[[dict[str, Any], "tensorstore.KvStore"], T]) -> T | None:
        """What is taken of an entry; None if there is none, or if it leaves while it is read."""
        kv, name = connected(self.url), f"{key}/{RECORD}"
        found = kv.read(name).result()
        if found.state != "value":
            return None
        try:
            record = from_text(found.value)
            return take(record, kv / f"{key}/{record['draft']}/")
        except ValueError as error:
            if not isinstance(error, Damaged) and not str(error).startswith(DAMAGE):
                raise
            if kv.read(name).result().value != found.value:
                return None
            raise Damaged(f"{key}: {error}") from error

    def _texts(self, keys: Iterable[str], name: str) -> list[bytes]:
        """An object of each entry, read at the same time; nothing for those that are not there."""
        kv = connected(self.url)
        return [found.value for found in each([kv.read(f"{key}/{name}") for key in keys])]

    def _check_writable(self) -> None:
        """Raises OSError for a web server."""
        if self.url.startswith(READ_ONLY):
            raise OSError(
                f"{self.url} is only read: fill it, look through it and empty it where it lies, as {', '.join(WRITTEN)}"
            )
