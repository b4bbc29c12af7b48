"""The tags of a DICOM header that medjax looks at, and their values; no other tag is ever decoded.

So names, dates, identifiers and descriptions reach neither metadata nor a message, a warning or a log: pydicom decodes
(and complains of) an element when it is asked for, and here the bytes of the few that are listed are decoded instead.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.tag import Tag

# Where multi-frame files keep an attribute: in a functional group (PS3.3 C.7.6.16.2), itself or one sequence below.
_GROUPS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("PlanePositionSequence",): ("ImagePositionPatient",),
    ("PlaneOrientationSequence",): ("ImageOrientationPatient",),
    ("PixelMeasuresSequence",): ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    ("PixelValueTransformationSequence",): ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    ("MREchoSequence",): ("EffectiveEchoTime",),
    ("FrameContentSequence",): ("TemporalPositionIndex",),
    ("MRDiffusionSequence",): ("DiffusionBValue",),
    ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"): ("DiffusionGradientOrientation",),
    ("MRTimingAndRelatedParametersSequence",): ("RepetitionTime", "FlipAngle"),
    ("MRModifierSequence",): ("InversionTimes",),
    ("CTReconstructionSequence",): ("ConvolutionKernel",),
    ("CTXRayDetailsSequence",): ("KVP",),
    ("MRImageFrameTypeSequence",): ("FrameType", "ComplexImageComponent"),
    ("CTImageFrameTypeSequence",): ("FrameType",),
    ("PETFrameTypeSequence",): ("FrameType",),
    ("XAXRFFrameCharacteristicsSequence",): ("FrameType",),
}
_PATHS: dict[str, list[tuple[str, ...]]] = {}
for _path, _keywords in _GROUPS.items():
    for _keyword in _keywords:
        _PATHS.setdefault(_keyword, []).append(_path)

_PLAIN = (
    "MediaStorageSOPClassUID", "TransferSyntaxUID", "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID",
    "ReferencedFileID", "InstanceNumber", "TemporalPositionIdentifier", "ConcatenationFrameOffsetNumber", "Rows",
    "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "ModalityLUTSequence", "ImageType", "GridFrameOffsetVector", "DoseGridScaling",
    "DoseUnits", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence",
    "Modality", "Manufacturer", "MagneticFieldStrength", "EchoTime", "InversionTime", "PatientPosition", "Units",
)  # fmt: skip
_TAGS = {name: Tag(name) for name in {*_PLAIN, *_PATHS, *(n for p in _GROUPS for n in p)}}


class Refused(ValueError):
    """Why a file is not read, in words of ours: no value of a header is in them. `files.named` adds the file."""


@contextmanager
def quietly(what: str) -> Iterator[None]:
    """Around calls of libraries: what they raise becomes Refused(what), since their own text may quote a header."""
    try:
        yield
    except (MemoryError, ImportError, Refused):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it could not be opened: the system's refusal, not the file's content
        raise Refused(f"{what} ({type(error).__name__})") from None


class Private(NamedTuple):
    """An element of a maker's private block (PS3.5 7.8): the block is found by its creator's name."""

    group: int
    creator: str
    element: int
    vr: str


SIEMENS_CSA = Private(0x29, "SIEMENS CSA HEADER", 0x10, "OB")
SIEMENS_B = Private(0x19, "SIEMENS MR HEADER", 0x0C, "IS")
SIEMENS_DIRECTION = Private(0x19, "SIEMENS MR HEADER", 0x0E, "FD")
PHILIPS_B = Private(0x2001, "Philips Imaging DD 001", 0x03, "FL")
PHILIPS_DIRECTION = tuple(Private(0x2005, "Philips MR Imaging DD 001", element, "FL") for element in (0xB0, 0xB1, 0xB2))
GE_B = Private(0x43, "GEMS_PARM_01", 0x39, "IS")
_PRIVATE = (SIEMENS_CSA, SIEMENS_B, SIEMENS_DIRECTION, PHILIPS_B, *PHILIPS_DIRECTION, GE_B)
_BLOCKS = range(0x10, 0x20)  # a file has a handful of creators for a group, counted from 10

READ: list[int] = sorted(
    {*_TAGS.values()}
    | {(p.group << 16) + block for p in _PRIVATE for block in _BLOCKS}
    | {(p.group << 16) + (block << 8) + p.element for p in _PRIVATE for block in _BLOCKS}
)
"""What is read of a file at all."""

_BINARY = {"US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}


def items(header: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; none if it is not there."""
    if (tag := _TAGS[keyword]) not in header:
        return []
    with quietly(f"its {keyword} is damaged"):
        return list(header[tag].value or [])


def words(groups: Sequence[Dataset], keyword: str) -> tuple[str, ...]:
    """The values of a text, () if it is not there or empty, of the first of the groups that has it."""
    return tuple(str(value) for value in _values(groups, keyword))


def numbers(groups: Sequence[Dataset], keyword: str) -> tuple[float, ...]:
    """As `words`, for numbers. Raises Refused if one is none."""
    return as_numbers(_values(groups, keyword), keyword)


def number(groups: Sequence[Dataset], keyword: str, default: float) -> float:
    """The first of `numbers`, or the default."""
    return next(iter(numbers(groups, keyword)), default)


def private(header: Dataset, *wanted: Private) -> tuple | None:
    """The values of private elements, numbers or bytes, one after the other; None if one is missing.

    A block whose creator was stripped is taken at 10xx, where makers write it and some anonymizers leave it.
    """
    found: tuple = ()
    for one in wanted:
        creators = {block: _element(header, (one.group << 16) + block) for block in _BLOCKS}
        named = (block for block, e in creators.items() if e is not None and _words(e.value)[:1] == (one.creator,))
        if (element := _element(header, (one.group << 16) + (next(named, 0x10) << 8) + one.element)) is None:
            return None
        value = element.value
        if one.vr != "OB":
            value = as_numbers(_decoded(element, one.vr), "a private number")
        if not value:
            return None
        found += (value,) if isinstance(value, bytes) else value
    return found


def _values(groups: Sequence[Dataset], keyword: str) -> tuple:
    for group in groups:
        for path in ((), *_PATHS.get(keyword, ())):
            found: Dataset | None = group
            for sequence in path:
                found = next(iter(items(found, sequence)), None) if found is not None else None
            element = None if found is None else _element(found, _TAGS[keyword])
            if element is not None and (values := _decoded(element, dictionary_VR(_TAGS[keyword]))):
                return values
    return ()


def _element(header: Dataset, tag: int) -> Any:
    """A raw element, as it stands in the file; without `keep_deferred` pydicom would decode an empty one."""
    return header.get_item(tag, keep_deferred=True)


def _decoded(element: Any, vr: str) -> tuple:
    """Values of a raw element: text or binary, as the file says, or the dictionary where the file is mute."""
    if not isinstance(element.value, bytes):
        return (str(element.value),) if element.value else ()  # pydicom has asked for it itself: the transfer syntax
    vr = vr if element.VR in (None, "UN") else element.VR
    if vr in _BINARY:
        dtype = np.dtype(_BINARY[vr]).newbyteorder("<" if element.is_little_endian else ">")
        if len(element.value) % dtype.itemsize:
            raise Refused("what should be a binary number is none")
        return tuple(np.frombuffer(element.value, dtype).tolist())
    return _words(element.value)


def _words(value: object) -> tuple[str, ...]:
    parts = value.decode("latin-1").strip(" \0").split("\\") if isinstance(value, bytes) else ()
    return tuple(part.strip(" \0") for part in parts) if any(parts) else ()


def as_numbers(values: tuple, name: str) -> tuple[float, ...]:
    """Finite floats. Raises Refused if a value is none."""
    try:
        found = tuple(map(float, values))
    except ValueError:
        raise Refused(f"{name} holds no number") from None
    if not np.isfinite(found).all():
        raise Refused(f"{name} is not finite")
    return found
