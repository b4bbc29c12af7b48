"""What was done to each subject: a file with a line of JSON for each attempt, which may be cut off at any byte."""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class Record:
    """An attempt at a subject. Nothing in it is of a person: paths are relative, and metadata are left out.

    subject: its outputs, as the names of files have them.  inputs: paths below the folder that holds all of them.
    signature: of all that the outputs are made of.  configuration: of the pipeline, whose text is `pipeline-*.json`.
    version: medjax's.  key: the words of the random key, or None.  seconds: of the work.
    outputs: bytes and CRC-32 of each file.  error: None where it is done.
    """

    subject: str
    inputs: list[str]
    signature: str
    configuration: str
    version: str
    key: list[Any] | None
    seconds: float
    outputs: Mapping[str, tuple[int, int]]
    error: str | None

    @property
    def bytes(self) -> int:
        """Of all outputs."""
        return sum(size for size, _ in self.outputs.values())

    def holds(self, signature: str, folder: Path) -> bool:
        """Whether the outputs are those of this signature, and all there."""
        if self.error is not None or self.signature != signature:
            return False
        try:
            return all((folder / name).stat().st_size == size for name, (size, _) in self.outputs.items())
        except OSError:
            return False


class Manifest:
    """The records in a folder, each appended at once; what cannot be written waits for the next time."""

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self._waiting: list[bytes] = []

    def latest(self) -> dict[str, Record]:
        """The last record of each subject."""
        return {record.subject: record for record in self}

    def __iter__(self) -> Iterator[Record]:
        known = {f.name for f in fields(Record)}
        for line in self.path.read_bytes().split(b"\n") if self.path.exists() else ():
            with contextlib.suppress(ValueError):  # a line that is torn
                found = json.loads(line)
                if isinstance(found, dict) and found.keys() == known:
                    yield Record(**found)

    def append(self, record: Record) -> None:
        """Add a record, if the disk takes it."""
        self._waiting.append(json.dumps(asdict(record)).encode() + b"\n")
        with contextlib.suppress(OSError):
            self.flush()

    def flush(self) -> None:
        """Write what waits; raises OSError where that is not possible."""
        if not self._waiting:
            return
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self.path, flags, 0o666)
        try:
            lines = b"".join(self._waiting)
            if os.fstat(descriptor).st_size:
                os.lseek(descriptor, -1, os.SEEK_END)
                lines = lines if os.read(descriptor, 1) == b"\n" else b"\n" + lines  # a torn line stays alone
            if os.write(descriptor, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._waiting.clear()
