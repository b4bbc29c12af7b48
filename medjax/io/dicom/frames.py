"""What a file says of each of its slices: where it lies, what kind of slice it is, how its values are scaled."""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from medjax.io.dicom.described import maker_of
from medjax.io.dicom.diffusion import Direction, diffusion
from medjax.io.dicom.files import Head, Stored
from medjax.io.dicom.tags import SIEMENS_CSA, Refused, as_numbers, items, number, numbers, private, quietly, words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # nibabel calls its DICOM part experimental
    from nibabel.nicom import csareader

_PER_FILE = 1 << 20  # frames of a file are numbered below this


class Frame(NamedTuple):
    """A slice.

    index, corner: of its frame in the file, and of its first row and column in the frame (of a mosaic).
    place: (3,) LPS mm, the centre of its first voxel.  axes: (2, 3) unit vectors along a row and down a column.
    size: rows and columns.  spacing: mm between rows, and between columns.
    thickness: mm to the next slice, if there is one; used where a volume has a single slice.
    kind: magnitude or phase, original or derived; frames of two kinds are no one image.
    scale: slope and intercept.  echo: ms.  time: index.  b, direction: of `diffusion`.
    number: by which slices that are alike so far are ordered; None if the file gives none.
    """

    stored: Stored
    uid: str
    index: int
    corner: tuple[int, int]
    place: np.ndarray
    axes: np.ndarray
    size: tuple[int, int]
    spacing: tuple[float, float]
    thickness: float
    kind: str
    scale: tuple[float, float]
    echo: float
    time: int
    b: float | None
    direction: Direction
    number: int | None

    @property
    def identity(self) -> tuple:
        """What tells the volumes of a series apart, but for a number."""
        return self.echo, self.time, -1.0 if self.b is None else self.b, self.direction


def frames_of(head: Head) -> list[Frame]:
    """The slices of a file. Raises Refused for a file that is no stack of slices."""
    header, stored = head.header, head.stored
    _refuse_pictures(header)
    shared, parts = groups_of(header)
    maker, csa = maker_of(header), _csa(header)
    if parts and len(parts) != stored.frames:
        raise Refused(f"it describes {len(parts)} frames and holds {stored.frames}")
    if parts:
        return [_frame(head, index, [part, *shared, header], maker, csa) for index, part in enumerate(parts)]
    frame = _frame(head, 0, [header], maker, csa)
    if "MOSAIC" in frame.kind.split("/"):
        return list(_tiles(frame, csa))
    return list(_dose_planes(frame, header, stored.frames)) if stored.frames > 1 else [frame]


def groups_of(header: Dataset) -> tuple[list[Dataset], list[Dataset]]:
    """The functional groups that the frames of a multi-frame file share, and those of each."""
    return items(header, "SharedFunctionalGroupsSequence"), items(header, "PerFrameFunctionalGroupsSequence")


def _refuse_pictures(header: Dataset) -> None:
    if words([header], "Modality")[:1] == ("SEG",):
        raise Refused("it is a segmentation, which is not read as an image")
    photometric = words([header], "PhotometricInterpretation")
    if number([header], "SamplesPerPixel", 1) != 1 or photometric not in (("MONOCHROME1",), ("MONOCHROME2",)):
        raise Refused("it is a picture in colour, no volume")
    if items(header, "ModalityLUTSequence"):
        raise Refused("its values are given by a table (Modality LUT), which is not read")


def _frame(head: Head, index: int, groups: Sequence[Dataset], maker: str, csa: Any) -> Frame:
    header, stored = head.header, head.stored
    place, axes, spacing = (
        np.array(numbers(groups, name), np.float64)
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    needed = (("position", place, 3), ("orientation", axes, 6), ("pixel spacing", spacing, 2))
    if missing := [what for what, values, count in needed if values.size != count]:
        raise Refused(f"it does not say where its slices lie: no {' and no '.join(missing)}")
    axes = axes.reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-2 or spacing.min() <= 0:
        raise Refused("its orientation is no pair of perpendicular unit vectors, or its pixel spacing is not positive")
    instance = numbers([header], "InstanceNumber")
    number_of = int(instance[0]) if instance else None
    if stored.frames > 1 or groups[0] is not header:
        number_of = (number_of or 0) * _PER_FILE + int(number([header], "ConcatenationFrameOffsetNumber", 0)) + index
    slope = number(groups, "RescaleSlope", number([header], "DoseGridScaling", 1))
    kind = words(groups[:-1], "FrameType") or words([header], "ImageType")
    thickness = abs(number(groups, "SpacingBetweenSlices", 0)) or abs(number(groups, "SliceThickness", 0))
    time = number(groups, "TemporalPositionIndex", number(groups, "TemporalPositionIdentifier", 0))
    b, direction = diffusion(header, groups, maker, csa)
    return Frame(
        stored, head.uid, index, (0, 0), place, axes / np.linalg.norm(axes, axis=1, keepdims=True),
        (stored.rows, stored.columns), (float(spacing[0]), float(spacing[1])), thickness,
        "/".join(kind + words(groups, "ComplexImageComponent")), (slope, number(groups, "RescaleIntercept", 0)),
        number(groups, "EffectiveEchoTime", number(groups, "EchoTime", 0)), int(time), b, direction, number_of,
    )  # fmt: skip


def _dose_planes(first: Frame, header: Dataset, count: int) -> Iterator[Frame]:
    """Frames without a word on each: the planes of a radiotherapy dose, or of something that cannot be placed."""
    # Relative to the first plane, or along the patient's axis (PS3.3 C.8.8.3.2): the differences are the same.
    offsets = np.array(numbers([header], "GridFrameOffsetVector"))
    if len(offsets) != count:
        raise Refused("it has many frames and does not say where each lies")
    for index, offset in enumerate(offsets - offsets[0]):
        place = first.place + offset * np.cross(*first.axes)
        yield first._replace(index=index, place=place, number=(first.number or 0) + index)


def _tiles(frame: Frame, csa: Any) -> Iterator[Frame]:
    """The slices of a Siemens mosaic, which lie side by side in one square picture."""
    count, normal = csa("NumberOfImagesInMosaic"), csa("SliceNormalVector")
    if not count or len(normal) != 3 or frame.thickness <= 0:
        raise Refused("it is a mosaic whose private header was stripped, so its slices cannot be placed")
    side = math.isqrt(int(count[0]) - 1) + 1
    rows, columns = frame.size
    if rows % side or columns % side:
        raise Refused(f"a mosaic of {rows} x {columns} is not {side} x {side} tiles")
    size = rows // side, columns // side
    # The position is that of a picture as large as the mosaic, centred on the slice.
    row, column = frame.axes
    shift = row * frame.spacing[1] * (columns - size[1]) / 2 + column * frame.spacing[0] * (rows - size[0]) / 2
    step = np.array(normal, np.float64) * frame.thickness
    for k in range(int(count[0])):
        corner = k // side * size[0], k % side * size[1]
        yield frame._replace(corner=corner, size=size, place=frame.place + shift + k * step)


def _csa(header: Dataset) -> Any:
    """A function that gives the numbers of Siemens' own header by name, () for what it has not."""
    raw = private(header, SIEMENS_CSA)
    read: list[dict] = []  # parsed when it is first asked for: few series need it

    def values(name: str) -> tuple:
        if raw is None:
            return ()
        with quietly("its private header (CSA) is damaged"):
            read.extend([csareader.read(raw[0])["tags"]] if not read else [])
        found = read[0].get(name, {}).get("items", [])
        return as_numbers(tuple(value for value in found if value not in ("", None)), name)

    return values
