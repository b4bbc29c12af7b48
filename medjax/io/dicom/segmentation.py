"""A label map as a DICOM segmentation beside the series that it is of, by highdicom. Needs the extra `dicom-seg`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.sr.coding import CodedConcept

from medjax.errors import shown
from medjax.io import drafts
from medjax.io.affines import apart
from medjax.io.dicom.volume import Volumes, arranged

_TISSUE = CodedConcept("85756007", "SCT", "Tissue")
_ARTIFICIAL = CodedConcept("123110", "DCM", "Artificial Intelligence")
_LONGEST = 64  # of a name, letters
_REQUIRED = ("StudyInstanceUID", "FrameOfReferenceUID")
# What a segmentation must have, be it empty, and a series may lack.
_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "ReferringPhysicianName",
    "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip
_OFF = 0.1  # voxels: headers round positions to a tenth of a millimetre


def write(
    path: Path,
    labels: np.ndarray,
    affine: np.ndarray,
    paths: Sequence[Path],
    series: str | None,
    names: Mapping[int, str],
    algorithm: str | None,
) -> None:
    """See `medjax.io.dicom.save_dicom_segmentation`; labels: (C, I, J, K)."""
    _check_names(labels, names)
    volumes, header = arranged(paths, series)
    if labels.shape != (1, *header.shape[1:]) or apart(header.affine, affine, header.shape[1:]) > _OFF:
        raise ValueError(
            f"label_map must lie on the grid of the series, {header.shape[1:]} voxels, got shape {labels.shape} and "
            f"affine\n{affine}\nfor\n{header.affine}: Resample and CropOrPad it to an image of the series first"
        )
    sources, order = _sources(volumes)
    frames = labels[0].transpose(2, 1, 0)[order]  # (K, rows, columns)
    segments = np.stack([frames == label for label in sorted(names)], -1)
    made = Segmentation(
        sources,
        segments.astype(np.uint8),
        "BINARY",
        [_description(n, names[label], algorithm) for n, label in enumerate(sorted(names), 1)],
        series_instance_uid=highdicom.UID(),
        series_number=int(sources[0].get("SeriesNumber") or 0) + 1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medjax",
        manufacturer_model_name="medjax",
        software_versions=f"highdicom {highdicom.__version__}",
        device_serial_number="0",
        omit_empty_frames=False,  # readers that count frames take what is left out for missing slices
    )
    with drafts.folder_in(path.parent) as folder:
        made.save_as(folder / path.name)
        (folder / path.name).replace(path)


def _check_names(labels: np.ndarray, names: Mapping[int, str]) -> None:
    right = isinstance(names, Mapping) and all(
        isinstance(label, int) and label > 0 and isinstance(name, str) and 0 < len(name) <= _LONGEST
        for label, name in names.items()
    )
    if not right or not names:
        raise ValueError(f"names must give labels above 0 names of 1 to {_LONGEST} letters, got {shown(names)}")
    if unnamed := set(np.unique(labels).tolist()) - {0, *names}:
        raise ValueError(f"names must name every label of label_map: {', '.join(map(str, sorted(unnamed)))} is missing")


def _sources(volumes: Volumes) -> tuple[list[Any], list[int]]:
    """The headers of the files of the first volume, and which of its slices belongs to each of their frames."""
    first = volumes[0]
    files = list(dict.fromkeys(frame.stored.file for frame in first))
    order = sorted(range(len(first)), key=lambda k: (files.index(first[k].stored.file), first[k].index))
    frames = sum({frame.stored.file: frame.stored.frames for frame in first}.values())
    if frames != len(first):
        raise ValueError(
            f"{files[0]}: a segmentation is written beside slices, or a multi-frame file of one volume; this holds "
            f"{len(first)} slices in {frames} frames"
        )
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    for file, source in zip(files, sources, strict=True):
        if lacking := [name for name in _REQUIRED if not source.get(name)]:
            raise ValueError(f"{file}: nothing can refer to it, for it has no {' and no '.join(lacking)}")
        for name in _EMPTY:
            if name not in source:
                setattr(source, name, "")
    return sources, order


def _description(number: int, name: str, algorithm: str | None) -> SegmentDescription:
    if algorithm is None:
        return SegmentDescription(number, name, _TISSUE, _TISSUE, "MANUAL")
    by = highdicom.AlgorithmIdentificationSequence(algorithm, _ARTIFICIAL, "unknown")
    return SegmentDescription(number, name, _TISSUE, _TISSUE, "AUTOMATIC", by)
