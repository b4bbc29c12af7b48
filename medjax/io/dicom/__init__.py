"""DICOM: series of slices, multi-frame files, mosaics and DICOMDIRs, read right or refused. Needs the extra `dicom`.

The door, which loads pydicom when it is first used: `files` finds series, `frames` says what a file tells of each of
its slices, `volume` puts them together or refuses, `pixels` reads voxels, `described` is what of a header may travel.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from medjax.errors import needs_extra
from medjax.io.registry import Format, Header, register

if TYPE_CHECKING:
    from medjax.io.dicom.volume import Series

SUFFIXES = (".dcm", ".dicom", ".ima")


def read_header(paths: Sequence[Path], series: str | None = None) -> Header:
    """Shape, affine, dtype and metadata of one series, without reading voxels (but of slices that are there twice).

    paths: files, folders (searched with all below them) or DICOMDIRs, together holding the series.
    series: its SeriesInstanceUID; needed if there are several.
    The shape is (C, I, J, K): I along a row, J along a column, K along the normal; times, echoes and b-values on C.
    dtype: of the voxels as stored, where no slice has a rescale; with slopes and intercepts that are whole numbers
    the first of int16, uint16, int32 that holds whatever the stored bits can; else float32.

    Raises: ImportError without pydicom; FileNotFoundError; ValueError, with the reason and the files, for several
        series without a choice, and for a series that is no volume or not all there.
    """
    return _volume().read_header(paths, series)


def read(paths: Sequence[Path], series: str | None = None) -> tuple[np.ndarray, Header]:
    """Voxels (C, I, J, K) and the header of `read_header`, in memory of their own.

    A voxel is slope * x + intercept of its slice. Raises: as `read_header`; ValueError for a codec that is missing.
    """
    return _volume().read(paths, series)


def gradients(paths: Sequence[Path], series: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """b-values (C,) in s/mm^2 and directions (C, 3) in the world, RAS+; zeros where a volume has none."""
    return _volume().gradients(paths, series)


def dicom_series(source: str | Path | Sequence[str | Path]) -> "list[Series]":
    """The image series of a folder (with all below it), a DICOMDIR, a file or a list of such; no voxels are read.

    Each has `uid`, for `ScalarImage(source, series=uid)`, `modality`, `files`, `shape` (C, I, J, K) and `problem`: why
    it is no volume (then shape is None), or None. Files that are damaged or no images are not listed.

    Raises: ImportError without pydicom; FileNotFoundError.

    >>> [one.uid for one in mj.dicom_series("study") if one.modality == "MR" and one.shape]  # doctest: +SKIP
    """
    return _volume().list_series(as_paths(source))


def save_dicom_segmentation(
    path: str | Path,
    label_map: Any,
    source: str | Path | Sequence[str | Path],
    names: Mapping[int, str],
    *,
    series: str | None = None,
    algorithm: str | None = None,
) -> None:
    """Write a label map as a DICOM segmentation of the series that it belongs to, a segment for each name.

    label_map: a `LabelMap` of one channel on the grid of the series; 0 is nothing.
    source, series: the series, as `ScalarImage` takes them: slices, or a multi-frame file that is one volume.
    names: {label: name of 1 to 64 letters} for every label; segments are numbered from 1 in the order of labels.
    algorithm: the name of what made it, as a network; None for what was drawn by hand.

    What the headers of the series say of the person and the study stands in the file, so that an archive puts it
    beside them. The file is written whole, or not at all.
    Raises: ImportError without highdicom (extra `dicom-seg`); TypeError for another image; ValueError, naming the
        argument or the file, for another grid, a label without a name, and a series without a frame of reference.

    >>> mj.save_dicom_segmentation("seg.dcm", subject.label, "study/T1", {1: "tumour"}, algorithm="U-Net 3")
    """
    if not getattr(label_map, "is_label", False):
        raise TypeError(f"label_map must be a LabelMap, got {type(label_map).__name__}")
    _volume()
    try:
        import highdicom  # noqa: F401
    except ImportError:
        needs_extra("highdicom", "dicom-seg", "writing DICOM segmentations")
    from medjax.io.dicom import segmentation

    labels, affine = label_map.numpy(), np.asarray(label_map.affine, np.float64)
    segmentation.write(Path(path).expanduser(), labels, affine, as_paths(source), series, names, algorithm)


def as_paths(source: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """One path or several, as a tuple."""
    return (Path(source),) if isinstance(source, (str, Path)) else tuple(map(Path, source))


def _volume() -> ModuleType:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        needs_extra("pydicom", "dicom", "reading DICOM")
    from medjax.io.dicom import volume

    return volume


FORMAT = Format(
    "DICOM",
    (*SUFFIXES, "/"),
    lambda path: read_header([path]),
    lambda path: read([path]),
    magic=(128, b"DICM"),
)
register(FORMAT)
