"""Which files there are, and which series they belong to. Headers are read, voxels are not."""

import errno
import os
import struct
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medjax.io.dicom import SUFFIXES
from medjax.io.dicom.described import described
from medjax.io.dicom.tags import READ, Refused, items, number, quietly, words

_FLOATS = {0x7FE00008: "f4", 0x7FE00009: "f8"}
_INTEGERS = 0x7FE00010
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD

_DAMAGED = "it cannot be read, it is damaged or not DICOM"


class Stored(NamedTuple):
    """How the voxels of a file lie in it.

    dtype: of the decoded numbers, in native order.  bits: how many of each count (BitsStored).
    offset: of the first voxel, bytes, where they are neither compressed nor of another byte order; else None.
    """

    file: Path
    syntax: UID
    dtype: np.dtype
    bits: int
    frames: int
    rows: int
    columns: int
    offset: int | None


class Head(NamedTuple):
    """An image file: its header, how its voxels are stored, the UIDs of its series and of itself ("" if without)."""

    header: Dataset
    stored: Stored
    series: str
    uid: str


class Found(NamedTuple):
    """Image files by the UID of their series; and, with the reason, files that should be images and cannot be read."""

    series: dict[str, list[Head]]
    damaged: dict[Path, str]


@contextmanager
def named(file: Path) -> Iterator[None]:
    """Refused becomes a ValueError that names the file."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{file}: {error}.") from None


def choose(paths: Sequence[Path], series: str | None) -> list[Head]:
    """The files of one series. Raises ValueError if there is none, or several and no choice, or a part is damaged."""
    found = search(paths)
    where = ", ".join(map(str, paths[:3])) + ", ..." * (len(paths) > 3)
    if not found.series:
        raise ValueError(_reasons(found.damaged.values()) or f"{where}: no DICOM image is in it.")
    if series is None and len(found.series) > 1:
        raise ValueError(f"{where} holds {len(found.series)} series; choose one by series=uid:{_listing(found)}")
    if series is not None and series not in found.series:
        raise ValueError(f"{where} holds no series={series!r}, but{_listing(found)}")
    heads = found.series[series or next(iter(found.series))]
    # A file that cannot be read does not tell its series: beside slices it may be one of them.
    folders = {head.stored.file.parent for head in heads}
    if beside := [reason for file, reason in found.damaged.items() if file.parent in folders]:
        raise ValueError(
            f"{where}: beside the series lie files that may be a part of it and cannot be read; repair or remove them, "
            f"or give the files of the series. {_reasons(beside)}"
        )
    return heads


def _reasons(damaged: Collection[str]) -> str:
    return " ".join(list(damaged)[:5]) + f" And {len(damaged) - 5} more." * (len(damaged) > 5)


def _listing(found: Found) -> str:
    lines = []
    for uid, heads in found.series.items():
        modality = described(heads[0].header, [heads[0].header]).get("Modality", "of unknown modality")
        lines.append(f"\n  {uid}: {len(heads)} files, {modality}, {heads[0].stored.file.parent}")
    return "".join(lines)


def search(paths: Sequence[Path]) -> Found:
    """All image files of paths, which may be files, folders (with all below them) and DICOMDIRs.

    Raises FileNotFoundError for a path that is not there.
    """
    series: dict[str, list[Head]] = {}
    damaged: dict[Path, str] = {}
    for file, certain in dict(_candidates(paths)).items():
        try:
            head = _read_head(file, certain)
        except FileNotFoundError:
            damaged[file] = f"{file} is listed in the DICOMDIR and missing."
        except Refused as error:
            damaged[file] = f"{file}: {error}."
        else:
            if head is not None:
                series.setdefault(head.series, []).append(head)
    return Found(series, damaged)


def _candidates(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Files, and whether each must be DICOM or may be anything else that lies there."""
    for path in paths:
        path = path.expanduser()
        if path.is_dir():
            for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name[0] != "."):
                yield file, file.suffix.lower() in SUFFIXES or file.stat().st_size == 0
        elif not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        elif listed := list(_listed(path)):
            yield from ((file, True) for file in listed)
        else:
            yield path, True


def _listed(path: Path) -> Iterator[Path]:
    """The files that a DICOMDIR lists; none if it is another file."""
    if path.suffix.lower() in SUFFIXES and not path.stem.upper().startswith("DICOMDIR"):
        return  # spares reading every slice's header twice
    with named(path), quietly(_DAMAGED), open(path, "rb") as stream:
        header = read_partial(stream, lambda tag, vr, length: tag > 0x00041220, specific_tags=[0x00041220])
        for record in items(header, "DirectoryRecordSequence"):
            if parts := words([record], "ReferencedFileID"):
                if any("\0" in part for part in parts):
                    raise Refused("the name of a file that it lists is damaged")
                yield path.parent.joinpath(*parts)


def _read_head(file: Path, certain: bool) -> Head | None:
    """The header of an image; None for what is none. Raises Refused if it is damaged."""
    seen: list[tuple[int, str | None, int]] = []

    def at_voxels(tag: Any, vr: str | None, length: int) -> bool:
        if stop := tag in _FLOATS or tag == _INTEGERS:
            seen.append((int(tag), vr, length))
        return stop

    with open(file, "rb") as stream:
        try:
            with quietly(_DAMAGED):
                header = read_partial(stream, at_voxels, specific_tags=READ)
        except Refused:
            if certain or _is_dicom(stream):
                raise
            return None
        start = stream.tell()
        kind = UID((words([header], "SOPClassUID") or words([header.file_meta], "MediaStorageSOPClassUID") or ("",))[0])
        if not kind:
            raise Refused("it is truncated, or does not say what it is (SOP class)")
        if "Rows" not in header or "Spectroscopy" in kind.name:
            if "Image Storage" in kind.name:
                raise Refused("it is an image without Rows")
            return None
        if not seen:
            raise Refused("it is truncated, or has no voxels")
        stored = _stored(file, header, stream, start, *seen[0])
    series, uid = (next(iter(words([header], name)), "") for name in ("SeriesInstanceUID", "SOPInstanceUID"))
    return Head(header, stored, series, uid)


def _is_dicom(stream: BinaryIO) -> bool:
    stream.seek(128)
    return stream.read(4) == b"DICM"


def _stored(file: Path, header: Any, stream: BinaryIO, start: int, tag: int, vr: str | None, length: int) -> Stored:
    """How voxels lie in a file whose element of voxels begins at `start`. Raises Refused if they are not all there."""
    syntax = UID((words([header.file_meta], "TransferSyntaxUID") or ("",))[0])
    if not syntax.is_transfer_syntax:
        raise Refused("its transfer syntax is none that is known")
    allocated, rows, columns, samples, frames = (
        int(number([header], name, default))
        for name, default in (
            ("BitsAllocated", 0), ("Rows", 0), ("Columns", 0), ("SamplesPerPixel", 1), ("NumberOfFrames", 1),
        )
    )  # fmt: skip
    bits = int(number([header], "BitsStored", allocated))
    if allocated not in (1, 8, 16, 32, 64) or min(rows, columns, samples) < 1 or not 0 < bits <= allocated:
        raise Refused(f"voxels of {allocated} bits, {bits} of them used, {rows} rows, {columns} columns are not read")
    if number([header], "HighBit", bits - 1) != bits - 1:
        raise Refused("the used bits of its voxels are not the lowest ones (HighBit)")
    signed = number([header], "PixelRepresentation", 0) == 1
    dtype = np.dtype(_FLOATS.get(tag) or f"{'i' if signed else 'u'}{max(allocated, 8) // 8}")
    frames, first, offset = max(frames, 1), start + (8 if vr is None else 12), None
    if syntax.is_encapsulated:
        _check_fragments(stream, first)
    elif syntax != DeflatedExplicitVRLittleEndian and samples == 1:
        size, there = rows * columns * frames * allocated // 8, os.fstat(stream.fileno()).st_size - first
        if min(length, there) < size:
            raise Refused(f"it is truncated: {max(min(length, there), 0)} of {size} bytes of voxels are there")
        offset = None if syntax == ExplicitVRBigEndian or allocated == 1 else first
    return Stored(file, syntax, dtype, bits, frames, rows, columns, offset)


def _check_fragments(stream: BinaryIO, first: int) -> None:
    """Walk along the fragments of compressed voxels (PS3.5 A.4): some decoders take half an image for a whole one."""
    end = os.fstat(stream.fileno()).st_size
    stream.seek(first)
    while len(start := stream.read(8)) == 8:
        group, element, length = struct.unpack("<HHL", start)
        if (tag := group << 16 | element) == _END:
            return
        if tag != _ITEM or stream.tell() + length > end:
            break
        stream.seek(length, os.SEEK_CUR)
    if start:
        raise Refused("it is truncated: its compressed voxels are not all there")
