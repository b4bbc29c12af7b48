"""Segmentations written beside a series, read again by highdicom; without it they say what to install."""

import sys

import nibabel as nib
import numpy as np
import pytest
from synthetic_dicom import AXIAL, LPS, affine_of, uid, voxels, write_enhanced, write_series

import medjax as mj

OBLIQUE = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
OBLIQUE[2] = np.cross(OBLIQUE[0], OBLIQUE[1])
VOLUME = voxels(1, 5, 8, 6)
IN_FRAME = {"FrameOfReferenceUID": uid("frame")}
NAMES = {2: "tumour", 5: "oedema", 7: "not there"}


def label_map(axes=AXIAL):
    """Labels 2 and 5 in some slices of the grid (6, 8, 5) of VOLUME; the last slice is empty."""
    labels = np.zeros((1, 6, 8, 5), np.uint8)
    labels[0, 1:3, 2:5, 1:3], labels[0, 4, 5:, 2:4] = 2, 5
    return mj.LabelMap(labels, affine_of(axes))


def slices(folder, axes=AXIAL):
    return write_series(folder, VOLUME, lambda t, k: {**IN_FRAME, "PatientID": "7"}, axes)


def multi_frame(folder, axes=AXIAL):
    images = [(image, k, {}) for k, image in enumerate(VOLUME[0])]
    return write_enhanced(folder / "a.dcm", [images[k] for k in (3, 0, 4, 1, 2)], axes, **IN_FRAME, PatientID="7")


def in_the_world(data, affine):
    return nib.as_closest_canonical(nib.Nifti1Image(np.asarray(data, np.float64), affine))


@pytest.mark.parametrize("write", [slices, multi_frame])
@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("algorithm", [None, "U-Net 3"])
def test_what_is_written_is_read_by_highdicom(tmp_path, write, axes, algorithm):
    hd = pytest.importorskip("highdicom", reason="highdicom, of the extra dicom-seg, is not installed")
    source, labels = write(tmp_path / "in", axes), label_map(axes)
    mj.save_dicom_segmentation(tmp_path / "seg.dcm", labels, source, NAMES, algorithm=algorithm)
    found = hd.seg.segread(tmp_path / "seg.dcm")
    assert [d.SegmentLabel for d in found.SegmentSequence] == list(NAMES.values())
    assert {d.SegmentAlgorithmType for d in found.SegmentSequence} == {"AUTOMATIC" if algorithm else "MANUAL"}
    assert found.PatientID == "7" and found.NumberOfFrames == 3 * 5
    volume = found.get_volume(combine_segments=True)
    read = in_the_world(volume.array, LPS @ volume.affine)
    numbers = np.select([labels.data[0] == 2, labels.data[0] == 5], [1, 2])
    truth = in_the_world(numbers, labels.affine)
    np.testing.assert_array_equal(read.get_fdata(), truth.get_fdata())
    np.testing.assert_allclose(read.affine, truth.affine, atol=1e-4)
    with pytest.raises(ValueError, match="segmentation, which is not read as an image"):
        mj.ScalarImage(tmp_path / "seg.dcm").load()


def test_what_does_not_belong_together_is_refused(tmp_path):
    pytest.importorskip("highdicom", reason="highdicom, of the extra dicom-seg, is not installed")
    source, labels, path = slices(tmp_path / "in"), label_map(), tmp_path / "seg.dcm"
    with pytest.raises(TypeError, match="label_map must be a LabelMap, got ScalarImage"):
        mj.save_dicom_segmentation(path, mj.ScalarImage(labels.data), source, NAMES)
    with pytest.raises(ValueError, match="label_map must lie on the grid of the series"):
        mj.save_dicom_segmentation(path, mj.Flip(0)(mj.Crop(1)(labels)), source, NAMES)
    with pytest.raises(ValueError, match="label_map must lie on the grid of the series"):
        mj.save_dicom_segmentation(path, labels.replace(affine=affine_of(OBLIQUE)), source, NAMES)
    with pytest.raises(ValueError, match="names must name every label of label_map: 5 is missing"):
        mj.save_dicom_segmentation(path, labels, source, {2: "tumour"})
    for names in ({}, {0: "nothing"}, {2: "a", 5: ""}, {2: "a", 5: "b" * 65}, ["a"], {2.5: "a"}, {2: 1}):
        with pytest.raises(ValueError, match="names must give labels above 0 names"):
            mj.save_dicom_segmentation(path, labels, source, names)
    with pytest.raises(ValueError, match=r"\.dcm: nothing can refer to it, for it has no FrameOfReferenceUID"):
        mj.save_dicom_segmentation(path, labels, write_series(tmp_path / "lost", VOLUME), NAMES)
    series = write_enhanced(
        tmp_path / "b.dcm",
        [(image, k, {}) for _ in range(2) for k, image in enumerate(VOLUME[0])],
        InstanceNumber=1, **IN_FRAME,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"b\.dcm"):
        mj.save_dicom_segmentation(path, labels, series, NAMES)
    assert not path.exists() and not list(tmp_path.glob(".medjax*"))


def test_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[dicom-seg\]'"):
        mj.save_dicom_segmentation(tmp_path / "seg.dcm", label_map(), slices(tmp_path / "in"), NAMES)
