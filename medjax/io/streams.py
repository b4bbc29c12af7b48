"""Files that may be compressed, as streams of their content: gzip (by isal, if it is there), bzip2 and Zstandard.

How a file is compressed is asked of its first bytes, since names are wrong now and then.
"""

import bz2
import contextlib
from pathlib import Path
from typing import IO, Any, NamedTuple

from medjax.errors import needs_extra
from medjax.io.registry import check_file

try:
    from isal import igzip as gzip
except ImportError:
    import gzip


class Compression(NamedTuple):
    """How a file is compressed: the end of its name, its first bytes, and for how many bytes one of them may stand."""

    suffix: str
    magic: bytes
    most: int


GZIP = Compression(".gz", b"\x1f\x8b\x08", 1032)
BZIP2 = Compression(".bz2", b"BZh", 1 << 16)
ZSTANDARD = Compression(".zst", b"\x28\xb5\x2f\xfd", 1 << 16)
ALL = (GZIP, BZIP2, ZSTANDARD)


def compression_of(file: Path) -> Compression | None:
    """How a file is compressed, by its content; None if it is not."""
    check_file(file)
    with open(file, "rb") as stream:
        start = stream.read(4)
    return next((one for one in ALL if start.startswith(one.magic)), None)


def opened(file: Path, compression: Compression | None) -> Any:
    """A stream of what a file holds, uncompressed; it has `read`, `readinto`, `seek` forwards and `close`."""
    if compression is GZIP:
        return gzip.GzipFile(file)
    if compression is BZIP2:
        return bz2.open(file)
    if compression is ZSTANDARD:
        return _zstandard().open(file, "rb")
    return open(file, "rb")


def written(file: IO[bytes], name: str) -> Any:
    """A stream that compresses into a file as its name says, for `with`. The same content gives the same bytes."""
    name = name.lower()
    if name.endswith(GZIP.suffix):
        return gzip.GzipFile("", "wb", 1, file, mtime=0)  # no time and no name inside
    if name.endswith(BZIP2.suffix):
        return bz2.open(file, "wb")
    if name.endswith(ZSTANDARD.suffix):
        return _zstandard().open(file, "wb", closefd=False)
    return contextlib.nullcontext(file)


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        needs_extra("zstandard", "zstd", "reading or writing .zst")
    return zstandard
