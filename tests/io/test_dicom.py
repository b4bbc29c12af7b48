"""Series with a known truth, pydicom's own files and real series: what is read, and that it is right."""

import gc
import pickle
import shutil
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_files
from pydicom.fileset import FileSet
from pydicom.uid import JPEGLSLossless, RLELossless
from synthetic_dicom import (
    AXIAL,
    LPS,
    ORIGIN,
    affine_of,
    group,
    uid,
    voxels,
    write_enhanced,
    write_mosaic,
    write_series,
    write_slice,
)

import medjax as mj
from medjax import io

OBLIQUE = np.linalg.qr([[0.94, -0.36, 0.42], [0.30, 0.86, 0.31], [-0.17, -0.64, 0.41]])[0].T
OBLIQUE[2] = np.cross(OBLIQUE[0], OBLIQUE[1])
VOLUME = voxels(1, 5, 8, 6)
SERIES = voxels(3, 4, 8, 6)
SHARED = Path(__file__).parents[3] / "shared" / "data" / "dicom2nifti"


def check(source, volumes: np.ndarray, axes: np.ndarray = AXIAL, dtype=None, **options) -> mj.ScalarImage:
    """That an image holds `volumes` (T, K, rows, columns) where they were put, and that its header said so."""
    image = mj.ScalarImage(source, **options)
    shape, found = image.shape, image.dtype
    np.testing.assert_allclose(image.affine, affine_of(axes), atol=1e-6)
    np.testing.assert_array_equal(image.data, volumes.transpose(0, 3, 2, 1))
    assert image.data.shape == shape and image.data.dtype == found == (dtype or volumes.dtype)
    return image


@pytest.mark.parametrize(
    "axes", [AXIAL, OBLIQUE, AXIAL[[1, 0, 2]] * [[1], [1], [-1]]], ids=["axial", "oblique", "swapped"]
)
def test_slices_are_ordered_by_where_they_lie(tmp_path, axes):
    numbers = [3, 1, 5, 2, 4]
    folder = write_series(tmp_path, VOLUME, lambda t, k: {"InstanceNumber": numbers[k]}, axes)
    check(folder, VOLUME, axes)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    truth = mj.ScalarImage(reader.Execute())
    np.testing.assert_array_equal(mj.ScalarImage(folder).data, truth.data)
    np.testing.assert_allclose(mj.ScalarImage(folder).affine, truth.affine, atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_any_series_is_read_as_it_was_made(tmp_path_factory, seed, times, count, by_slice):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes[2] = np.cross(axes[0], axes[1])
    if count == 1:
        times = 1
    volumes = voxels(times, count, 3, 4, seed=seed)
    slopes, shifts = rng.integers(1, 4, (times, count)), rng.integers(-9, 9, (times, count))
    tags = {"BitsStored": 12, "HighBit": 11}  # so that all values fit into int16
    folder = write_series(
        tmp_path_factory.mktemp("any"),
        volumes,
        lambda t, k: {
            **tags,
            "InstanceNumber": k * times + t if by_slice else t * count + k,
            "RescaleSlope": int(slopes[t, k]),
            "RescaleIntercept": int(shifts[t, k]),
        },
        axes,
    )
    truth = volumes.astype(np.int64) * slopes[..., None, None] + shifts[..., None, None]
    plain = (slopes == 1).all() and (shifts == 0).all()
    check(folder, truth, axes, dtype=np.uint16 if plain else np.int16)


def test_positions_rounded_to_a_tenth_of_a_mm(tmp_path):
    for k, image in enumerate(VOLUME[0]):
        write_slice(tmp_path / f"{k}.dcm", image, 0, ImagePositionPatient=[-10, 5, round(0.625 * k, 1)])
    image = mj.ScalarImage(tmp_path)
    np.testing.assert_array_equal(image.data, VOLUME.transpose(0, 3, 2, 1))
    assert image.spacing[2] == pytest.approx(0.625, abs=0.01)


def test_orientations_that_are_rounded(tmp_path):
    rounded = [0.9999, -0.0001, 0, 0.0001, 1, 0]
    check(write_series(tmp_path, VOLUME, lambda t, k: {"ImageOrientationPatient": rounded} if k % 2 else {}), VOLUME)


# -- values


def test_slopes_of_each_slice(tmp_path):
    slopes = [1, 1.7, 2.9, 0.01, 3.3]
    image = mj.ScalarImage(
        write_series(tmp_path, VOLUME, lambda t, k: {"RescaleSlope": slopes[k], "RescaleIntercept": 0.5})
    )
    truth = VOLUME * np.array(slopes)[:, None, None] + 0.5
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image.data, truth.astype(np.float32).transpose(0, 3, 2, 1))


@pytest.mark.parametrize(
    ("stored", "bits", "slope", "intercept", "dtype"),
    [
        ("uint16", 16, 1, 0, "uint16"),
        ("int16", 16, 1, 0, "int16"),
        ("uint8", 8, 1, 0, "uint8"),
        ("uint16", 12, 1, -1024, "int16"),
        ("int16", 12, 1, -1024, "int16"),
        ("uint8", 8, 3, 5, "int16"),
        ("uint16", 12, 10, 0, "uint16"),
        ("uint16", 16, 1, -1024, "int32"),
        ("int16", 16, -1, 0, "int32"),
        ("uint16", 16, 100_000, 0, "float32"),
        ("uint16", 12, 0.5, 0, "float32"),
        ("uint16", 12, 1, 0.25, "float32"),
        ("int32", 32, 1, 1, "float32"),
    ],
)
def test_the_dtype_holds_every_value_that_the_stored_bits_can_take(tmp_path, stored, bits, slope, intercept, dtype):
    info = np.iinfo(stored)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if info.min else (0, (1 << bits) - 1)
    image = np.array([[low, high, 1], [low // 2, high // 3, 0]], stored)
    tags = {"BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": slope, "RescaleIntercept": intercept}
    found = mj.ScalarImage(write_slice(tmp_path / "a.dcm", image, 0, **tags))
    assert found.dtype == dtype
    truth = (image.astype(np.float64) * slope + intercept).astype(dtype)
    np.testing.assert_array_equal(found.data[0, :, :, 0], truth.T)


def test_what_unused_bits_hold_is_no_value(tmp_path):
    values = np.array([[0, 5, 4095, 2048]], np.uint16)
    tags = {"BitsStored": 12, "HighBit": 11}
    with_overlay = write_slice(tmp_path / "a.dcm", values | 0xF000, 0, **tags)
    np.testing.assert_array_equal(mj.ScalarImage(with_overlay).data[0, :, :, 0], values.T)
    signed = write_slice(tmp_path / "b.dcm", values, 0, **tags, PixelRepresentation=1)  # 4095 is -1
    np.testing.assert_array_equal(mj.ScalarImage(signed).data[0, :, 0, 0], [0, 5, -1, -2048])


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=["RLE", "JPEG-LS"])
def test_compressed_slices(tmp_path, syntax):
    folder = write_series(tmp_path, VOLUME)
    for file in folder.iterdir():
        one = pydicom.dcmread(file)
        one.compress(syntax, generate_instance_uid=False)
        one.save_as(file)
    check(folder, VOLUME)


# -- several volumes


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param(lambda t, k: {}, id="volume by volume"),
        pytest.param(lambda t, k: {"InstanceNumber": 3 * k + t}, id="slice by slice"),
        pytest.param(lambda t, k: {"InstanceNumber": 1, "TemporalPositionIdentifier": t + 1}, id="time"),
        pytest.param(lambda t, k: {"InstanceNumber": None, "EchoTime": 5.0 * (t + 1)}, id="echo"),
    ],
)
def test_several_volumes(tmp_path, tags):
    check(write_series(tmp_path, SERIES, tags, OBLIQUE), SERIES, OBLIQUE)


def test_echo_times_are_told_where_there_are_several(tmp_path):
    folder = write_series(tmp_path, SERIES, lambda t, k: {"EchoTime": 5.0 * (t + 1)})
    assert mj.ScalarImage(folder).load().metadata["EchoTime"] == (5.0, 10.0, 15.0)


B_VALUES = (0.0, 1000.0, 0.0)


@pytest.mark.parametrize("numbered", ["InstanceNumber", "TemporalPositionIdentifier"])
def test_b_values_tell_volumes_apart_and_repeat(tmp_path, numbered):
    folder = write_series(
        tmp_path,
        SERIES,
        lambda t, k: {numbered: 3 * k + t if numbered[0] == "I" else t, "DiffusionBValue": B_VALUES[t]},
    )
    image = check(folder, SERIES)
    assert image.metadata["bvals"] == B_VALUES


def test_many_places_of_a_multi_frame_file(tmp_path):
    frames = []
    for t, volume in enumerate(SERIES):
        for k, image in enumerate(volume):
            scale = group(RescaleSlope=t + 1, RescaleIntercept=k, RescaleType="US")
            when = group(TemporalPositionIndex=t + 1)
            frames.append((image, k, {"PixelValueTransformationSequence": [scale], "FrameContentSequence": [when]}))
    order = np.random.default_rng(0).permutation(len(frames))
    file = write_enhanced(tmp_path / "a.dcm", [frames[n] for n in order], OBLIQUE, BitsStored=12, HighBit=11)
    truth = SERIES.astype(int) * np.array([1, 2, 3])[:, None, None, None] + np.arange(4)[:, None, None]
    check(file, truth, OBLIQUE, dtype=np.int16)


def test_a_multi_frame_file_for_each_time(tmp_path):
    for t, volume in enumerate(SERIES):
        write_enhanced(
            tmp_path / f"{9 - t}.dcm", [(image, k, {}) for k, image in enumerate(volume)], InstanceNumber=t + 1
        )
    check(tmp_path, SERIES)


@pytest.mark.parametrize("up", [1, -1])
def test_mosaics(tmp_path, up):
    for t, volume in enumerate(SERIES):
        write_mosaic(tmp_path / f"{9 - t}.dcm", volume, OBLIQUE, up, InstanceNumber=t + 1)
    check(tmp_path, SERIES, OBLIQUE)


def test_a_dose_of_radiotherapy(tmp_path):
    offsets = [0.0, 3.0, 6.0, 9.0, 12.0]
    for name, shift in (("relative", 0.0), ("along the patient", ORIGIN[2])):
        file = write_slice(
            tmp_path / f"{name}.dcm", VOLUME[0], 0, Modality="RTDOSE", DoseGridScaling=0.25,
            GridFrameOffsetVector=[shift + z for z in offsets], SliceThickness=None,
        )  # fmt: skip
        check(file, VOLUME * np.float32(0.25))


# -- gradients

DIRECTION = np.array([0.6, -0.48, 0.64])  # LPS


def write_diffusion(folder: Path, maker: str) -> Path:
    """A volume of b = 0, and one of b = 700 along DIRECTION, as a maker writes them."""
    for t, (b, direction) in enumerate([(0, np.zeros(3)), (700, DIRECTION)]):
        for k, image in enumerate(SERIES[t]):
            file = write_slice(folder / f"{t}{k}.dcm", image, k, InstanceNumber=4 * t + k, Manufacturer=maker)
            one = pydicom.dcmread(file)
            if maker.startswith("Philips"):
                one.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x03, "FL", float(b))
                block = one.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
                for element, x in zip((0xB0, 0xB1, 0xB2), direction):
                    block.add_new(element, "FL", float(x))
            elif maker == "SIEMENS":
                one.private_block(0x19, "another", create=True)  # so that the block is not the first
                block = one.private_block(0x19, "SIEMENS MR HEADER", create=True)
                block.add_new(0x0C, "IS", str(b))
                if b:
                    block.add_new(0x0E, "FD", direction.tolist())
            elif maker.startswith("GE"):
                one.private_block(0x43, "GEMS_PARM_01", create=True).add_new(0x39, "IS", [1_000_000_000 + b, 8, 0, 0])
            else:
                one.DiffusionBValue = float(b)
                if b:
                    one.DiffusionGradientOrientation = direction.tolist()
            one.save_as(file)
    return folder


@pytest.mark.parametrize("maker", ["SIEMENS", "Philips Medical Systems", "none that is known"])
def test_gradients_are_directions_in_the_world(tmp_path, maker):
    folder = write_diffusion(tmp_path, maker)
    bvals, directions = mj.dicom_gradients(folder)
    np.testing.assert_array_equal(bvals, [0, 700])
    assert isinstance(directions, mj.Directions)
    np.testing.assert_allclose(directions.xyz, [np.zeros(3), LPS[:3, :3] @ DIRECTION], atol=1e-6)
    assert mj.ScalarImage(folder).load().metadata["bvals"] == (0.0, 700.0)


def test_gradients_of_mosaics(tmp_path):
    for t, csa in enumerate(
        [{"B_value": ["0"]}, {"B_value": ["700"], "DiffusionGradientDirection": [str(x) for x in DIRECTION]}]
    ):
        write_mosaic(tmp_path / f"{t}.dcm", SERIES[t], OBLIQUE, csa=csa, InstanceNumber=t)
    bvals, directions = mj.dicom_gradients(tmp_path)
    np.testing.assert_array_equal(bvals, [0, 700])
    np.testing.assert_allclose(directions.xyz[1], LPS[:3, :3] @ DIRECTION, atol=1e-6)


def test_gradients_of_a_multi_frame_file(tmp_path):
    frames = []
    for k in range(4):
        for t, b in enumerate([0.0, 700.0]):
            along = [group(DiffusionGradientOrientation=DIRECTION.tolist())] if b else []
            diffusion = group(DiffusionBValue=b, DiffusionGradientDirectionSequence=along)
            frames.append((SERIES[t, k], k, {"MRDiffusionSequence": [diffusion]}))
    file = write_enhanced(tmp_path / "a.dcm", frames)
    check(file, SERIES[:2])
    bvals, directions = mj.dicom_gradients(file)
    np.testing.assert_array_equal(bvals, [0, 700])
    np.testing.assert_allclose(directions.xyz[1], LPS[:3, :3] @ DIRECTION, atol=1e-6)


def test_gradients_that_are_not_told(tmp_path):
    with pytest.raises(ValueError, match="no b-values"):
        mj.dicom_gradients(write_series(tmp_path / "plain", VOLUME))
    folder = write_diffusion(tmp_path / "GE", "GE MEDICAL SYSTEMS")
    assert mj.ScalarImage(folder).load().metadata["bvals"] == (0.0, 700.0)
    with pytest.raises(ValueError, match="GE writes directions along the axes of the scanner"):
        mj.dicom_gradients(folder)


# -- paths


def write_two(folder: Path) -> tuple[str, str]:
    """Two series of other folders; their UIDs."""
    for n in range(2):
        write_series(folder / f"part{n}", VOLUME + n, lambda t, k, n=n: {"SeriesInstanceUID": uid("series", n)})
    return uid("series", 0), uid("series", 1)


def test_series_are_listed_and_chosen(tmp_path):
    first, second = write_two(tmp_path)
    write_slice(
        tmp_path / "colour" / "a.dcm", VOLUME[0, 0], 0, SeriesInstanceUID="1.2.3", PhotometricInterpretation="RGB"
    )
    (tmp_path / "part0" / "notes.txt").write_text("no image")
    listed = {one.uid: one for one in mj.dicom_series(tmp_path)}
    assert set(listed) == {first, second, "1.2.3"}
    assert listed[first].shape == (1, 6, 8, 5) and listed[first].modality == "MR" and listed[first].problem is None
    assert sorted(listed[second].files) == sorted((tmp_path / "part1").iterdir())
    assert listed["1.2.3"].shape is None and "colour" in listed["1.2.3"].problem
    check(tmp_path, VOLUME + 1, series=second)
    for series in (None, "1.2.840"):
        with pytest.raises(ValueError, match="series") as error:
            _ = mj.ScalarImage(tmp_path, series=series).shape
        assert first in str(error.value) and second in str(error.value) and str(tmp_path / "part1") in str(error.value)


def test_an_image_keeps_its_choice(tmp_path):
    _, second = write_two(tmp_path)
    image = mj.ScalarImage(tmp_path, series=second)
    for copy in (
        pickle.loads(pickle.dumps(image)),
        image.replace(affine=np.eye(4)),
        image.load(),
        mj.LabelMap(tmp_path, series=second),
    ):
        np.testing.assert_array_equal(copy.data, (VOLUME + 1).transpose(0, 3, 2, 1))


def test_files_are_slices_of_one_series_and_folders_are_channels(tmp_path):
    write_two(tmp_path)
    check(sorted((tmp_path / "part0").iterdir()), VOLUME)
    check([str(tmp_path / "part0"), str(tmp_path / "part1")], np.concatenate([VOLUME, VOLUME + 1]))


def test_files_without_a_suffix(tmp_path):
    write_series(tmp_path, VOLUME)
    for n, file in enumerate(sorted(tmp_path.iterdir())):
        file.rename(tmp_path / f"IM{n:06}")
    check(tmp_path, VOLUME)
    check(sorted(tmp_path.iterdir()), VOLUME)
    assert mj.ScalarImage(tmp_path / "IM000000").shape == (1, 6, 8, 1)
    check(shutil.move(tmp_path, tmp_path.parent / "1.2.840.nii"), VOLUME)  # nor does that of a folder tell anything


def test_a_dicomdir(tmp_path):
    _, second = write_two(tmp_path / "in")
    files = FileSet()
    for file in (tmp_path / "in").rglob("*.dcm"):
        one = pydicom.dcmread(file)
        one.PatientID, one.StudyID, one.StudyDate, one.StudyTime = "1", "1", "20000101", "0000"
        one.SeriesNumber = 1
        files.add(one)
    files.write(tmp_path / "out")
    with warnings.catch_warnings():  # pydicom leaves a temporary folder to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        del files
        gc.collect()
    check(tmp_path / "out" / "DICOMDIR", VOLUME + 1, series=second)
    lost = mj.dicom_series(tmp_path / "out" / "DICOMDIR")[0].files[0]
    lost.unlink()
    with pytest.raises(ValueError, match=f"{lost.name} is listed in the DICOMDIR and missing"):
        for one in mj.dicom_series(tmp_path / "out" / "DICOMDIR"):
            _ = mj.ScalarImage(tmp_path / "out" / "DICOMDIR", series=one.uid).shape


def test_series_goes_with_dicom_only(tmp_path):
    nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"a\.nii is no folder or file of DICOM"):
        _ = mj.ScalarImage(tmp_path / "a.nii", series="1.2").shape
    with pytest.raises(ValueError, match="series chooses"):
        mj.ScalarImage(np.zeros((1, 3, 4, 5)), series="1.2")


@pytest.mark.parametrize("name", ["none", "none.dcm"])
def test_missing_paths(tmp_path, name):
    with pytest.raises((FileNotFoundError, ValueError), match=name):
        _ = mj.ScalarImage(tmp_path / name).shape
    with pytest.raises(FileNotFoundError, match=name):
        mj.dicom_series(tmp_path / name)


def test_what_to_install(tmp_path, monkeypatch):
    folder = write_series(tmp_path, VOLUME)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[dicom\]'"):
        _ = mj.ScalarImage(folder).shape


def test_the_header_needs_no_voxels(tmp_path, monkeypatch):
    from medjax.io.dicom import pixels

    monkeypatch.setattr(pixels, "read_frames", lambda *_: pytest.fail("voxels were read"))
    image = mj.ScalarImage(write_series(tmp_path, SERIES))
    assert image.shape == (3, 6, 8, 4) and image.dtype == np.uint16 and image.spacing == pytest.approx((1.5, 2.0, 3.0))


def test_voxels_lie_where_jax_takes_them_without_a_copy(tmp_path):
    array, _ = io.read(write_series(tmp_path, VOLUME))
    assert array.base is not None and array.transpose(0, 3, 2, 1).flags.c_contiguous and array.ctypes.data % 64 == 0


def test_a_volume_of_one_slice_is_as_high_as_it_says(tmp_path):
    tags = {"a": {}, "b": {"SpacingBetweenSlices": 4.0}, "c": {"SliceThickness": None}}
    heights = [
        mj.ScalarImage(write_slice(tmp_path / f"{n}.dcm", VOLUME[0, 0], 0, **own)).spacing[2] for n, own in tags.items()
    ]
    assert heights == pytest.approx([3.0, 4.0, 1.0])


# -- files of others

# Of pydicom's files those that are slices of a patient with a place; all others are refused.
READ = (
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "examples_overlay.dcm", "rtdose.dcm", "rtdose_1frame.dcm",
    "rtdose_expb.dcm", "rtdose_expb_1frame.dcm", "rtdose_rle.dcm", "rtdose_rle_1frame.dcm",
)  # fmt: skip


def pydicom_files() -> list[Path]:
    """Those that pydicom ships, images or not."""
    folder = Path(pydicom.__file__).parent
    return sorted({Path(file) for file in get_testdata_files("**/*.dcm") if Path(file).is_relative_to(folder)})


@pytest.mark.parametrize("path", pydicom_files(), ids=lambda path: path.name)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of its own damaged files
def test_files_of_pydicom_are_read_right_or_refused(path):
    if path.name not in READ:
        with pytest.raises(ValueError, match=r".") as error:
            mj.ScalarImage(path).load()
        assert path.name in str(error.value)
        return
    image, one = mj.ScalarImage(path), pydicom.dcmread(path)
    scale = float(one.get("RescaleSlope", one.get("DoseGridScaling", 1)))
    truth = one.pixel_array.astype(np.float64) * scale + float(one.get("RescaleIntercept", 0))
    truth = truth.reshape(-1, *truth.shape[-2:]).transpose(2, 1, 0)[None]
    np.testing.assert_array_equal(image.data, truth.astype(image.dtype))
    np.testing.assert_allclose(image.affine[:3, 3], np.array(one.ImagePositionPatient, float) * [-1, -1, 1])
    np.testing.assert_allclose(image.spacing[:2], np.array(one.PixelSpacing, float)[::-1])


def test_series_of_a_dicomdir_of_pydicom():
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / "DICOMDIR"
    listed = mj.dicom_series(path)
    assert len(listed) == 13 and sum(len(one.files) for one in listed) == 31
    read = [one for one in listed if one.shape]
    assert {one.modality for one in read} == {"CT", "MR"}
    for one in read:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(one.files[0].parent), one.uid))
        truth = mj.ScalarImage(reader.Execute())
        image = mj.ScalarImage(path, series=one.uid)
        assert image.shape == truth.shape == one.shape
        np.testing.assert_array_equal(image.data, truth.data)
        if one.shape[3] > 1:  # ITK says 1 mm where there is one slice
            np.testing.assert_allclose(image.affine, truth.affine, atol=1e-3)


def in_one_frame(data: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.Nifti1Image(np.moveaxis(np.asarray(data, np.float64), 0, -1), affine))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real series lie beside this folder in some places only")
@pytest.mark.parametrize(
    "name",
    [
        "ge/anatomical", "generic/anatomical", "philips/anatomical", "philips_enhanced/anatomical",
        "siemens/anatomical", "siemens/dti_classic", "siemens/fmri_classic", "siemens_multiframe/anatomical",
    ],
)  # fmt: skip
def test_real_series_equal_their_nifti_files(name):
    image, truth = mj.ScalarImage(SHARED / name / "001"), mj.ScalarImage(SHARED / name / "001_ground_truth.nii.gz")
    found, expected = in_one_frame(image.data, image.affine), in_one_frame(truth.data, truth.affine)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    np.testing.assert_allclose(found.get_fdata(), expected.get_fdata(), rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real series lie beside this folder in some places only")
def test_real_gradients():
    bvals, directions = mj.dicom_gradients(SHARED / "siemens/dti_classic/001")
    np.testing.assert_array_equal(bvals, [0, 1000])
    np.testing.assert_allclose(directions.xyz[1], (-0.8256, 0.3890, -0.4087), atol=1e-3)
    bvals, directions = mj.dicom_gradients(SHARED / "philips_enhanced/dti/001")
    np.testing.assert_array_equal(bvals, [0, 1300, 1300, 1300])
    np.testing.assert_allclose(directions.xyz[1:], [(-1, 0, 0), (0, 1, 0), (0.026, 0.649, 0.760)], atol=1e-3)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real series lie beside this folder in some places only")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gantrytilting", "gantry tilt"),
        ("notavolume", "all lie at one place"),
        ("sliceincrement", "5 to 10 mm apart"),
        ("sliceorientation", "differ in orientation"),
    ],
)
def test_real_series_that_are_no_volume(name, reason):
    with pytest.raises(ValueError, match=rf"(?s){reason}.*\.dcm"):
        _ = mj.ScalarImage(SHARED / "failing" / name / "001").shape
