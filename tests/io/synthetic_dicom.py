"""DICOM files with a known truth: classic slices, multi-frame files, Siemens mosaics. No header of a person."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

SPACING = (2.0, 1.5, 3.0)  # between rows, columns, slices
ORIGIN = np.array([-10.0, 5.0, 20.0])
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AXIAL = np.eye(3)  # rows: along a row, down a column, the normal


def uid(*parts: object) -> str:
    return generate_uid(entropy_srcs=[str(part) for part in parts])


def voxels(*shape: int, seed: int = 0, high: int = 4000) -> np.ndarray:
    """(T, K, rows, columns), uint16."""
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint16)


def affine_of(axes: np.ndarray = AXIAL, spacing=SPACING, origin=ORIGIN) -> np.ndarray:
    """Voxel index to RAS+ mm, from the definition of the standard (PS3.3 C.7.6.2.1.1), written out."""
    affine = np.eye(4)
    affine[:3, 0] = axes[0] * spacing[1]
    affine[:3, 1] = axes[1] * spacing[0]
    affine[:3, 2] = axes[2] * spacing[2]
    affine[:3, 3] = origin
    return LPS @ affine


def image_tags(image: np.ndarray, sop_class: str, syntax=ExplicitVRLittleEndian) -> FileDataset:
    """A file that holds `image`, (rows, columns) or (frames, rows, columns), and nothing on where it lies."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, syntax
    one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    one.SOPClassUID, one.Modality, one.ImageType = sop_class, "MR", ["ORIGINAL", "PRIMARY", "M"]
    one.SeriesInstanceUID, one.StudyInstanceUID = uid("series"), uid("study")
    one.Rows, one.Columns = image.shape[-2:]
    if image.ndim == 3:
        one.NumberOfFrames = len(image)
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = image.dtype.itemsize * 8
    one.HighBit, one.PixelRepresentation = one.BitsStored - 1, int(image.dtype.kind == "i")
    one.PixelData = image.astype(image.dtype.newbyteorder("<")).tobytes()
    return one


def save(one: FileDataset, path: Path, **tags: object) -> Path:
    for name, value in tags.items():
        delattr(one, name) if value is None else setattr(one, name, value)
    if "SOPInstanceUID" not in one:
        one.SOPInstanceUID = uid("instance", path)
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def write_slice(path: Path, image: np.ndarray, k: float, axes: np.ndarray = AXIAL, **tags: object) -> Path:
    """A classic slice, the k-th along the normal; a tag that is None is left out."""
    one = image_tags(image, MRImageStorage)
    one.PixelSpacing, one.SliceThickness = list(SPACING[:2]), SPACING[2]
    one.ImageOrientationPatient = axes[:2].ravel().round(9).tolist()
    one.ImagePositionPatient = (ORIGIN + axes[2] * SPACING[2] * k).round(9).tolist()
    one.InstanceNumber = 1
    return save(one, path, **tags)


def write_series(
    folder: Path, volumes: np.ndarray, tags: Callable[[int, int], dict] = lambda t, k: {}, axes: np.ndarray = AXIAL
) -> Path:
    """volumes (T, K, rows, columns) as classic slices, numbered volume by volume; names tell nothing."""
    names = iter(np.random.default_rng(1).permutation(volumes.shape[0] * volumes.shape[1]))
    for t, volume in enumerate(volumes):
        for k, image in enumerate(volume):
            own = {"InstanceNumber": t * len(volume) + k + 1, **tags(t, k)}
            write_slice(folder / f"{next(names):04d}.dcm", image, k, axes, **own)
    return folder


def group(**tags: object) -> Dataset:
    one = Dataset()
    for name, value in tags.items():
        setattr(one, name, Sequence(value) if name.endswith("Sequence") else value)
    return one


def write_enhanced(
    path: Path, images: list[tuple[np.ndarray, float, dict]], axes: np.ndarray = AXIAL, **tags: object
) -> Path:
    """A multi-frame file of (image, k, functional groups of its own)."""
    one = image_tags(np.stack([image for image, _, _ in images]), EnhancedMRImageStorage)
    measures = group(PixelSpacing=list(SPACING[:2]), SliceThickness=SPACING[2])
    orientation = group(ImageOrientationPatient=axes[:2].ravel().round(9).tolist())
    one.SharedFunctionalGroupsSequence = Sequence(
        [group(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])]
    )
    frames = []
    for _, k, own in images:
        place = group(ImagePositionPatient=(ORIGIN + axes[2] * SPACING[2] * k).round(9).tolist())
        frames.append(group(PlanePositionSequence=[place], **own))
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return save(one, path, **tags)


def csa_header(**fields: list[str]) -> bytes:
    """Siemens' own header (CSA2): named lists of texts."""
    made = b"SV10\4\3\2\1" + struct.pack("<2I", len(fields), 77)
    for name, values in fields.items():
        made += struct.pack("<64si4s3i", name.encode(), len(values), b"FD", 4, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            made += struct.pack("<4i", len(text), len(text), 77, 0) + text + bytes(-len(text) % 4)
    return made


def write_mosaic(
    path: Path, volume: np.ndarray, axes: np.ndarray = AXIAL, up: int = 1, csa: dict | None = None, **tags: object
) -> Path:
    """volume (K, rows, columns) as one square picture; the slices follow each other up or down (-1) the normal."""
    count, rows, columns = volume.shape
    side = int(np.ceil(np.sqrt(count)))
    picture = np.zeros((side * rows, side * columns), volume.dtype)
    for n, image in enumerate(volume[::up]):
        y, x = n // side * rows, n % side * columns
        picture[y : y + rows, x : x + columns] = image
    first = ORIGIN + axes[2] * SPACING[2] * (0 if up > 0 else count - 1)
    corner = first - axes[0] * SPACING[1] * (side - 1) * columns / 2 - axes[1] * SPACING[0] * (side - 1) * rows / 2
    one = image_tags(picture, MRImageStorage)
    one.ImageType, one.Manufacturer = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"], "SIEMENS"
    one.PixelSpacing, one.SliceThickness, one.SpacingBetweenSlices = list(SPACING[:2]), SPACING[2] - 1, SPACING[2]
    one.ImageOrientationPatient = axes[:2].ravel().round(9).tolist()
    one.ImagePositionPatient, one.InstanceNumber = corner.round(9).tolist(), 1
    header = {"NumberOfImagesInMosaic": [str(count)], "SliceNormalVector": [f"{x:.9f}" for x in up * axes[2]]}
    block = one.private_block(0x29, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", csa_header(**header | (csa or {})))
    return save(one, path, **tags)
