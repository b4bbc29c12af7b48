"""NRRD and MetaImage against SimpleITK; MINC, PAR/REC and AFNI against nibabel; arrays of NumPy."""

import gc
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

import medjax as mj
from medjax import io

NIBABEL = Path(nib.__file__).parent / "tests" / "data"
AFFINE = np.array([[-1.2, 0.0, 0.5, 91.5], [0.0, 1.1, 0.0, -120.0], [0.5, 0.0, 1.2, -70.0], [0, 0, 0, 1.0]])
# nibabel, here the reference, leaves files open; medjax must not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ITK = [".nrrd", ".nhdr", ".mha", ".mhd"]


def volume(channels: int, dtype) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 100, (channels, 4, 5, 6)).astype(dtype)


@pytest.mark.parametrize("suffix", ITK)
@pytest.mark.parametrize(("channels", "dtype"), [(1, "int16"), (3, "float32"), (1, "uint8"), (2, "float64")])
def test_what_is_written_is_read(tmp_path, suffix, channels, dtype):
    data, path = volume(channels, dtype), tmp_path / f"a{suffix}"
    mj.ScalarImage(data, AFFINE).save(path)
    image = mj.ScalarImage(path)
    assert image.shape == data.shape and image.dtype == data.dtype
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    np.testing.assert_array_equal(image.data, data)
    assert image.data.dtype == dtype
    truth = mj.ScalarImage(SimpleITK.ReadImage(str(path)))  # another way into medjax, tested against ITK's own geometry
    np.testing.assert_array_equal(truth.data, data)
    assert [part for part in tmp_path.iterdir() if part.name.startswith(".")] == []


@pytest.mark.parametrize("suffix", ITK)
def test_a_fourth_axis_and_two_axes(tmp_path, suffix):
    data = volume(3, "float32")
    flat = SimpleITK.GetImageFromArray(data.transpose(0, 3, 2, 1), isVector=False)
    flat.SetSpacing((2.0, 3.0, 4.0, 1.0))
    SimpleITK.WriteImage(flat, str(tmp_path / f"a{suffix}"))
    image = mj.ScalarImage(tmp_path / f"a{suffix}")
    assert image.shape == (3, 4, 5, 6) and image.spacing == pytest.approx((2.0, 3.0, 4.0))
    np.testing.assert_array_equal(image.data, data)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(data[0, :, :, 0].T), str(tmp_path / f"b{suffix}"))
    image = mj.ScalarImage(tmp_path / f"b{suffix}")
    assert image.shape == (1, 4, 5, 1)
    np.testing.assert_array_equal(image.data, data[:1, :, :, :1])


@pytest.mark.parametrize("suffix", ITK)
def test_damaged_files(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    mj.ScalarImage(volume(1, "float32"), AFFINE).save(path)
    voxels = max(tmp_path.iterdir(), key=lambda part: part.stat().st_size)
    voxels.write_bytes(voxels.read_bytes()[:-60])
    with pytest.raises(ValueError, match=path.name):
        io.read(path)
    path.write_text("none of this")
    for read in (io.read, io.read_header):
        with pytest.raises(ValueError, match=path.name):
            read(path)


def test_voxels_that_are_no_numbers_of_ours(tmp_path):
    for name, kind in (("a.nrrd", SimpleITK.sitkComplexFloat32), ("b.mha", SimpleITK.sitkVectorFloat32)):
        dimension = 3 if name == "a.nrrd" else 4
        SimpleITK.WriteImage(SimpleITK.Image([2] * dimension, kind), str(tmp_path / name))
        with pytest.raises(ValueError, match=name):
            io.read_header(tmp_path / name)


def test_what_cannot_be_written(tmp_path):
    sheared = AFFINE.copy()
    sheared[0, 1] = 0.4
    for data, affine in ((volume(1, "float32"), sheared), (volume(1, "complex64"), AFFINE)):
        with pytest.raises(ValueError, match=r"a\.nrrd"):
            io.write(tmp_path / "a.nrrd", data, affine, {})
    assert list(tmp_path.iterdir()) == []


def test_the_header_needs_no_voxels(tmp_path, monkeypatch):
    mj.ScalarImage(volume(2, "int16"), AFFINE).save(tmp_path / "a.nrrd")
    monkeypatch.setattr(SimpleITK, "ReadImage", lambda *_: pytest.fail("voxels were read"))
    assert mj.ScalarImage(tmp_path / "a.nrrd").shape == (2, 4, 5, 6)


def test_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.nrrd").touch()
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"pip install 'medjax\[itk\]'"):
        io.read_header(tmp_path / "a.nrrd")


@pytest.mark.parametrize(
    "name",
    [
        "tiny.mnc", "minc1_1_scale.mnc", "minc1_4d.mnc", "phantom_EPI_asc_CLEAR_2_1.PAR", "phantom_varscale.REC",
        "example4d+orig.HEAD", "example4d+orig.BRIK.gz", "scaled+tlrc.BRIK",
    ],
)  # fmt: skip
def test_files_that_nibabel_reads(name):
    image, truth = mj.ScalarImage(NIBABEL / name), nib.load(NIBABEL / name)
    shape, dtype = image.shape, image.dtype
    np.testing.assert_array_equal(image.affine, truth.affine)
    values = np.asarray(truth.dataobj)
    if values.ndim == 4:
        values = values if name.endswith(".mnc") else np.moveaxis(values, -1, 0)  # MINC has time first
    np.testing.assert_array_equal(image.data, values.reshape(shape).astype(dtype))
    assert image.data.dtype == dtype == (np.int16 if name.startswith("example") else np.float32)


def test_voxels_of_afni_are_no_map_of_the_file(tmp_path):
    for name in ("scaled+tlrc.HEAD", "scaled+tlrc.BRIK"):
        (tmp_path / name).write_bytes((NIBABEL / name).read_bytes())
    array, _ = io.read(tmp_path / "scaled+tlrc.HEAD")
    before = array.copy()
    (tmp_path / "scaled+tlrc.BRIK").write_bytes(bytes(47 * 54 * 43 * 2))
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("name", ["tiny.mnc", "phantom_varscale.PAR", "example4d+orig.HEAD", "scaled+tlrc.BRIK"])
def test_no_file_is_left_open(name):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        io.read_header(NIBABEL / name)
        io.read(NIBABEL / name)
        gc.collect()
    assert not [warning.message for warning in caught if NIBABEL.name in str(warning.message)]


@pytest.mark.parametrize("name", ["phantom_truncated.PAR", "bad_datatype+orig.HEAD", "bad_attribute+orig.HEAD"])
def test_damaged_files_of_nibabel(name):
    with pytest.raises(ValueError, match=name.split("+")[0]):
        io.read_header(NIBABEL / name)


def test_a_truncated_second_file(tmp_path):
    for name in ("phantom_varscale.PAR", "phantom_varscale.REC"):
        (tmp_path / name).write_bytes((NIBABEL / name).read_bytes()[: None if name.endswith("PAR") else -100])
    with pytest.raises(ValueError, match=r"phantom_varscale\.PAR"):
        io.read(tmp_path / "phantom_varscale.PAR")
    (tmp_path / "phantom_varscale.REC").unlink()
    with pytest.raises(FileNotFoundError, match=r"phantom_varscale\.REC"):
        io.read(tmp_path / "phantom_varscale.PAR")


def test_minc_2_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"minc2_1_scale\.mnc.*pip install 'medjax\[minc\]'"):
        io.read_header(NIBABEL / "minc2_1_scale.mnc")


@pytest.mark.parametrize("dtype", ["float32", ">i2", "bool"])
def test_arrays_of_numpy(tmp_path, dtype):
    data = volume(2, dtype)
    np.save(tmp_path / "a.npy", data)
    np.save(tmp_path / "b.npy", np.asfortranarray(data[0]))
    for name, truth in (("a.npy", data), ("b.npy", data[:1])):
        image = mj.ScalarImage(tmp_path / name)
        assert image.shape == truth.shape and image.dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(image.affine, np.eye(4))
        np.testing.assert_array_equal(image.data, truth)
        assert image.data.dtype.isnative


def test_arrays_of_numpy_that_are_no_volume(tmp_path):
    for n, data in enumerate([np.zeros((3, 4)), np.zeros((2, 2, 2), complex), np.array([[[None]]])]):
        np.save(tmp_path / f"{n}.npy", data)
        with pytest.raises(ValueError, match=f"{n}.npy"):
            io.read_header(tmp_path / f"{n}.npy")
    np.save(tmp_path / "cut.npy", volume(1, "float32"))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"cut\.npy"):
        io.read(tmp_path / "cut.npy")


def test_a_path_that_no_reader_takes_says_what_is_taken(tmp_path):
    (tmp_path / "a.xyz").touch()
    with pytest.raises(ValueError) as error:
        io.read(tmp_path / "a.xyz")
    for part in ("NIfTI", "DICOM", ".nrrd", ".mha", ".mnc", ".par", ".brik", ".npy", "nibabel", "SimpleITK", "reader="):
        assert part in str(error.value)
