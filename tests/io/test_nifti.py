"""Real files and files made here, read by medjax and by nibabel; written by medjax and read by nibabel."""

import gzip
import pickle
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel.nifti1 import Nifti1Extension

from medjax import io
from medjax.io import nifti, streams

NIBABEL = Path(nib.__file__).parent / "tests" / "data"
REAL = ["anatomical.nii", "functional.nii", "reoriented_anat_moved.nii", "resampled_anat_moved.nii"]
REAL += ["example4d.nii.gz", "example_nifti2.nii.gz", "standard.nii.gz", "test.mgz"]
OBLIQUE = np.array([[-1.2, 0.1, 0.0, 91.5], [0.09, 1.1, -0.3, -120.0], [0.02, 0.3, 2.0, -70.0], [0, 0, 0, 1.0]])


def nilearn_files() -> list[Path]:
    nilearn = pytest.importorskip("nilearn")
    return sorted((Path(nilearn.__file__).parent / "datasets" / "data").glob("*.nii.gz"))


def rotation(axis, angle: float) -> np.ndarray:
    cross = np.cross(np.eye(3), np.asarray(axis) / np.linalg.norm(axis))
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rigid(matrix: np.ndarray, spacing=(1.0, 1.5, 2.0), origin=(-80.0, -110.0, 40.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix * spacing, origin
    return affine


def volume(shape=(5, 6, 7), dtype=np.int16, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)


# nibabel, here the reference, leaves .mgh files open; medjax must not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def save(path: Path, data: np.ndarray, affine=OBLIQUE, cls=nib.Nifti1Image, **fields) -> Path:
    """Save by nibabel; `fields` go into the header as they are, also those that nibabel would set itself."""
    image = cls(data, affine)
    image.to_filename(path)
    if fields:
        raw = bytearray(path.read_bytes())
        header = type(image.header)(bytes(raw[: image.header.sizeof_hdr]), check=False)
        for name, value in fields.items():
            header[name] = value
        raw[: image.header.sizeof_hdr] = header.binaryblock
        path.write_bytes(raw)
    return path


def channels_first(array: np.ndarray) -> np.ndarray:
    return array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)


def check_against_nibabel(path: Path) -> None:
    image = nib.load(path)
    array, header = io.read(path)
    stored = np.asanyarray(image.dataobj)
    if image.dataobj.slope == 1 and image.dataobj.inter == 0:
        np.testing.assert_array_equal(array, channels_first(stored))
        assert array.dtype == image.get_data_dtype().newbyteorder("=")
    else:
        np.testing.assert_array_equal(array, channels_first(image.get_fdata().astype(np.float32)))
        assert array.dtype == np.float32
    np.testing.assert_array_equal(header.affine, image.affine)
    assert header.affine.dtype == np.float64
    assert array.shape == header.shape
    assert array.dtype == header.dtype
    assert array.dtype.isnative
    assert array.ctypes.data % 64 == 0
    check_same(header, io.read_header(path))


def check_same(one: io.Header, other: io.Header) -> None:
    assert (one.shape, one.dtype) == (other.shape, other.dtype)
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.metadata.keys() == other.metadata.keys()
    assert one.metadata["header"] == other.metadata["header"]


# Reading


@pytest.mark.parametrize("name", REAL)
def test_real_files_agree_with_nibabel(name):
    check_against_nibabel(NIBABEL / name)


def test_nilearn_files_agree_with_nibabel():
    files = nilearn_files()
    assert len(files) == 4
    for path in files:
        check_against_nibabel(path)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "test.mgz"])
def test_reading_by_the_standard_gzip(name, monkeypatch):
    monkeypatch.setattr(streams, "gzip", gzip)
    check_against_nibabel(NIBABEL / name)


def test_without_isal_and_without_jax(tmp_path):
    path = save(tmp_path / "a.nii.gz", volume())
    package = str(Path(io.__file__).parents[1])
    code = (  # `medjax/__init__.py` is left out, since other parts of medjax do import JAX
        "import sys, types; sys.modules['isal'] = None\n"
        f"sys.modules['medjax'] = medjax = types.ModuleType('medjax'); medjax.__path__ = [{package!r}]\n"
        "from medjax import io\n"
        f"array, header = io.read({str(path)!r}); io.write({str(tmp_path / 'b.nii.gz')!r}, array, *header[1::2])\n"
        "assert not {'jax', 'medjax.subject'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").dataobj, volume())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", ">i2", ">u4", ">f4", ">f8"]
)
def test_dtype_is_kept(tmp_path, suffix, dtype):
    path = tmp_path / f"a{suffix}"
    header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(dtype)
    nib.Nifti1Image(volume(dtype=dtype), OBLIQUE, header, dtype=dtype).to_filename(path)
    check_against_nibabel(path)
    assert io.read_header(path).dtype == np.dtype(dtype).newbyteorder("=")


@pytest.mark.parametrize("slope, inter", [(0.013, 0), (1, -3), (2.5, 1000.25), (-1e-7, 4e3)])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "u2", "i4"])
def test_scaled_integers_become_float32(tmp_path, dtype, slope, inter):
    path = save(tmp_path / "a.nii", volume((33, 40, 60), dtype), scl_slope=slope, scl_inter=inter)
    check_against_nibabel(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_floats_keep_their_dtype(tmp_path, dtype):
    path = save(tmp_path / "a.nii", volume(dtype=dtype), scl_slope=0.3, scl_inter=2)
    array, header = io.read(path)
    np.testing.assert_array_equal(array[0], nib.load(path).get_fdata().astype(dtype))
    assert array.dtype == header.dtype == dtype


@pytest.mark.parametrize("slope, inter", [(0, 7), (np.nan, np.nan), (np.inf, 0), (1, 0)])
def test_no_scale(tmp_path, slope, inter):
    path = save(tmp_path / "a.nii", volume(), scl_slope=slope, scl_inter=inter)
    check_against_nibabel(path)
    assert io.read_header(path).dtype == np.int16


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((5, 6), (1, 5, 6, 1)),
        ((5, 6, 1), (1, 5, 6, 1)),
        ((5, 6, 7), (1, 5, 6, 7)),
        ((5, 6, 7, 1), (1, 5, 6, 7)),
        ((5, 6, 7, 4), (4, 5, 6, 7)),
        ((5, 6, 1, 4), (4, 5, 6, 1)),
        ((5, 6, 7, 1, 3), (3, 5, 6, 7)),
        ((5, 6, 7, 2, 1), (2, 5, 6, 7)),
        ((5, 6, 7, 1, 3, 1, 1), (3, 5, 6, 7)),
        ((5, 6, 7, 1, 1, 1, 1), (1, 5, 6, 7)),
        ((5, 6, 1, 1, 1), (1, 5, 6, 1)),
    ],
)
def test_shapes(tmp_path, shape, expected):
    data = volume(shape)
    array, header = io.read(save(tmp_path / "a.nii.gz", data))
    assert array.shape == header.shape == expected
    np.testing.assert_array_equal(array, np.moveaxis(data.reshape((*expected[1:], expected[0])), -1, 0))


@pytest.mark.parametrize("shape", [(5,), (5, 6, 7, 2, 3), (5, 6, 7, 1, 3, 2), (5, 6, 7, 2, 1, 2)])
def test_other_ranks_are_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii", volume(shape))
    for read in (io.read, io.read_header):
        with pytest.raises(ValueError) as error:
            read(path)
        assert str(path) in str(error.value)
        assert str(shape) in str(error.value)


@pytest.mark.parametrize("parts", ["RGB", "RGBA"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7)])
def test_colours_become_channels(tmp_path, parts, shape):
    data = volume((*shape, len(parts)), np.uint8)
    path = tmp_path / "a.nii.gz"
    colours = data.view([(part, np.uint8) for part in parts])[..., 0]
    nib.Nifti1Image(colours, OBLIQUE).to_filename(path)
    array, header = io.read(path)
    assert array.dtype == header.dtype == np.uint8
    assert array.shape == header.shape == (len(parts), *shape, 1)[:4]
    np.testing.assert_array_equal(array.reshape(len(parts), *shape), np.moveaxis(data, -1, 0))


def test_complex_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", volume(dtype=np.complex64))
    with pytest.raises(ValueError, match=r"a\.nii: complex64 .* magnitude"):
        io.read_header(path)


@pytest.mark.parametrize("suffix", [".hdr", ".img", ".IMG", ".img.gz", ".hdr.gz"])
@pytest.mark.parametrize("cls", [nib.Nifti1Pair, nib.Nifti2Pair, nib.Spm2AnalyzeImage, nib.AnalyzeImage])
def test_pairs(tmp_path, suffix, cls):
    check_against_nibabel(save(tmp_path / f"a{suffix}", volume(), np.diag([-2, 2, 3, 1.0]), cls))


def test_a_pair_without_its_image(tmp_path):
    path = save(tmp_path / "a.hdr", volume(), cls=nib.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.img"):
        io.read(path)


@pytest.mark.parametrize("suffix", [".mgh", ".mgz"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 3)])
@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4"])
def test_mgh(tmp_path, suffix, shape, dtype):
    check_against_nibabel(save(tmp_path / f"a{suffix}", volume(shape, dtype), cls=nib.MGHImage))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz", ".img"])
def test_no_file_is_left_open(tmp_path, suffix):
    cls = {".mgh": nib.MGHImage, ".mgz": nib.MGHImage, ".img": nib.Nifti1Pair}.get(suffix, nib.Nifti1Image)
    path = save(tmp_path / f"a{suffix}", volume(), cls=cls)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        array, header = io.read(path)
        if suffix != ".img":
            io.write(path, array, *header[1::2])
    assert not caught


def test_the_result_outlives_the_file(tmp_path):
    path = save(tmp_path / "a.nii", volume())
    array, _ = io.read(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    path.unlink()
    np.testing.assert_array_equal(array[0], volume())


def test_the_array_stays_in_file_order(tmp_path):
    array, _ = io.read(save(tmp_path / "a.nii", volume((5, 6, 7, 3))))
    assert array.transpose(0, 3, 2, 1).flags.c_contiguous


# The affine


def with_forms(path: Path, sform, sform_code: int, qform, qform_code: int, shape=(50, 60, 70)) -> Path:
    image = nib.Nifti1Image(np.zeros(shape, np.uint8), None)
    image.header.set_zooms((1.0, 1.5, 2.0)[: len(shape)])
    image.set_qform(qform, qform_code)
    image.set_sform(sform, sform_code)
    image.to_filename(path)
    return path


SFORM = rigid(rotation((1, 2, 3), 0.2))
QFORM = rigid(rotation((3, 1, 2), -0.4))


@pytest.mark.parametrize(
    "sform_code, qform_code, expected", [(1, 0, SFORM), (4, 0, SFORM), (0, 1, QFORM), (0, 2, QFORM), (0, 0, None)]
)
def test_which_form_is_read(tmp_path, sform_code, qform_code, expected):
    path = with_forms(tmp_path / "a.nii", SFORM, sform_code, QFORM, qform_code)
    header = io.read_header(path)
    np.testing.assert_array_equal(header.affine, nib.load(path).affine)
    if expected is not None:
        np.testing.assert_allclose(header.affine, expected, atol=1e-4)


@pytest.mark.parametrize("sform_code", [1, 2, 4])
def test_differing_forms_warn_once(tmp_path, sform_code):
    path = with_forms(tmp_path / "a.nii", SFORM, sform_code, QFORM, 1)
    for read in (io.read, io.read_header):
        with pytest.warns(UserWarning, match=r"a\.nii: sform and qform") as caught:
            read(path)
        assert len(caught) == 1
        assert caught[0].filename == __file__
    with pytest.warns(UserWarning):
        np.testing.assert_array_equal(io.read_header(path).affine, nib.load(path).get_sform())


@pytest.mark.parametrize("shift, differs", [(5e-4, False), (2e-3, True)])
def test_how_much_forms_may_differ(tmp_path, shift, differs):
    moved = SFORM + shift * np.eye(4)[:, [2, 1, 3, 0]] * [0, 0, 0, 1]
    path = with_forms(tmp_path / "a.nii", moved, 1, SFORM, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        io.read_header(path)
    assert bool(caught) == differs


def test_forms_from_one_affine_never_differ(tmp_path):
    # A qform near half a turn is rounded by up to a millimetre; that is no disagreement.
    rng = np.random.default_rng(0)
    for tilt in 10.0 ** rng.uniform(-6, 0, 100):
        axes = np.diag([(-1, 1, 1), (-1, -1, 1), (1, -1, -1), (1, 1, 1)][rng.integers(4)])
        affine = rigid(rotation(rng.normal(size=3), tilt) @ axes, rng.uniform(0.5, 3, 3), rng.normal(size=3) * 200)
        header = nib.Nifti1Header()
        header.set_data_shape((256, 256, 200))
        header.set_qform(affine, 1)
        header.set_sform(affine, 1)
        assert not nifti._forms_differ(header)


def test_a_broken_quaternion_beside_a_sform(tmp_path):
    path = save(tmp_path / "a.nii", volume(), sform_code=1, qform_code=1, quatern_b=3.0)
    np.testing.assert_allclose(io.read_header(path).affine, OBLIQUE, rtol=1e-6)


@pytest.mark.parametrize("unit, to_mm", [(0, 1), (2, 1), (1, 1e3), (3, 1e-3), (2 + 8, 1), (3 + 16, 1e-3)])
def test_the_affine_is_in_mm(tmp_path, unit, to_mm):
    path = save(tmp_path / "a.nii", volume(), xyzt_units=unit)
    header = io.read_header(path)
    expected = np.diag([to_mm] * 3 + [1]) @ nib.load(path).affine
    np.testing.assert_allclose(header.affine, expected)
    io.write(tmp_path / "b.nii", np.zeros((1, 5, 6, 7)), header.affine, header.metadata)
    again = nib.load(tmp_path / "b.nii")
    np.testing.assert_allclose(again.affine, header.affine, rtol=1e-6)
    assert again.header["xyzt_units"] == (unit & ~7 | 2 if to_mm != 1 else unit)


@pytest.mark.parametrize("name", ["srow_x", "srow_z"])
@pytest.mark.parametrize("row", [(0, 0, 0, 5), (np.nan, 0, 1, 0), (0, np.inf, 0, 0)])
def test_unsound_affines_are_refused(tmp_path, name, row):
    path = save(tmp_path / "a.nii", volume(), **{name: row})
    for read in (io.read, io.read_header):
        with pytest.raises(ValueError, match=r"a\.nii: the affine"):
            read(path)


# Damage


def check_refused(path: Path) -> None:
    with pytest.raises(ValueError) as error:
        io.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.5, 0.9, -8, -1])
def test_truncated(tmp_path, suffix, share):
    cls = nib.MGHImage if "mg" in suffix else nib.Nifti1Image
    path = save(tmp_path / f"a{suffix}", volume((20, 20, 20), np.float32), cls=cls)
    raw = path.read_bytes()
    end = len(raw) - 20 if suffix == ".mgh" else len(raw)  # nibabel ends an .mgh with four scan parameters
    path.write_bytes(raw[: end + share if share < 0 else int(end * share)])
    check_refused(path)


@pytest.mark.parametrize("module", [streams.gzip, gzip], ids=["isal or gzip", "gzip"])
@pytest.mark.parametrize("place", [0, 2, 30, 0.3, 0.7, -7, -2])
def test_corrupt_gzip(tmp_path, monkeypatch, place, module):
    monkeypatch.setattr(streams, "gzip", module)
    path = save(tmp_path / "a.nii.gz", volume((20, 20, 20), np.float32))
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw)) if isinstance(place, float) else place] ^= 0x55
    path.write_bytes(raw)
    check_refused(path)


def test_a_wrong_checksum_alone(tmp_path):
    path = save(tmp_path / "a.nii.gz", volume())
    raw = bytearray(path.read_bytes())
    raw[-8:-4] = (zlib.crc32(gzip.decompress(raw)) ^ 1).to_bytes(4, "little")
    path.write_bytes(raw)
    check_refused(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgz", ".hdr"])
@pytest.mark.parametrize("content", [b"", b"no volume at all", bytes(2000)])
def test_not_a_volume(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    check_refused(path)
    path.write_bytes(gzip.compress(content))
    check_refused(path)


def test_a_shape_beyond_the_file_is_no_memory_error(tmp_path):
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"a{suffix}"
        raw = bytearray(save(tmp_path / "b.nii", volume(), dim=(3, 32767, 32767, 32767, 1, 1, 1, 1)).read_bytes())
        path.write_bytes(gzip.compress(raw) if suffix == ".nii.gz" else raw)
        check_refused(path)


def test_matrices_of_a_surface_are_no_volume():
    check_refused(NIBABEL / "row_major.dconn.nii")


def test_bytes_after_the_voxels_are_allowed(tmp_path):
    raw = save(tmp_path / "a.nii", volume()).read_bytes() + bytes(range(256)) * 20
    (tmp_path / "a.nii").write_bytes(raw)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(raw[:500]) + gzip.compress(raw[500:]) + bytes(512))
    for name in ("a.nii", "b.nii.gz", "c.nii.gz"):
        np.testing.assert_array_equal(io.read(tmp_path / name)[0][0], volume())


# Writing


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_written_files_as_nibabel_reads_them(tmp_path, suffix, order, channels):
    array = np.asarray(volume((channels, 5, 6, 7), np.float32), order=order)
    path = tmp_path / f"a{suffix}"
    io.write(path, array, OBLIQUE, {})
    image = nib.load(path)
    assert image.shape == ((5, 6, 7) if channels == 1 else (5, 6, 7, 3))
    assert image.get_data_dtype().newbyteorder("=") == np.float32
    np.testing.assert_array_equal(channels_first(np.asanyarray(image.dataobj)), array)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    np.testing.assert_array_equal(io.read(path)[0], array)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "dtype, written",
    [("?", "u1"), ("f2", "f4"), (">i2", "i2"), (">f4", "f4")]
    + [(same, same) for same in ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]],
)
def test_written_dtype(tmp_path, dtype, written):
    array = volume((1, 5, 6, 7)).astype(dtype)
    io.write(tmp_path / "a.nii.gz", array, OBLIQUE, {})
    image = nib.load(tmp_path / "a.nii.gz")
    assert image.get_data_dtype() == np.dtype(written)
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array[0])


def test_bfloat16_is_written_as_float32(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = volume((1, 5, 6, 7)).astype(ml_dtypes.bfloat16)
    for suffix in (".nii", ".mgz"):
        io.write(tmp_path / f"a{suffix}", array, OBLIQUE, {})
        again, header = io.read(tmp_path / f"a{suffix}")
        assert header.dtype == np.float32
        np.testing.assert_array_equal(again, array.astype(np.float32))


@pytest.mark.parametrize("dtype, written", [("?", "u1"), ("i1", "i2"), ("u2", "i4"), ("f2", "f4")])
def test_mgh_widens_what_it_lacks(tmp_path, dtype, written):
    array = volume((2, 5, 6, 7)).astype(dtype)
    io.write(tmp_path / "a.mgz", array, OBLIQUE, {})
    again, header = io.read(tmp_path / "a.mgz")
    assert header.dtype == np.dtype(written)
    np.testing.assert_array_equal(again, array)


@pytest.mark.parametrize(
    "name, dtype", [("a.nii", "c8"), ("a.nii", np.longdouble), ("a.nii", "U3"), ("a.mgz", "u4"), ("a.mgz", "f8")]
)
def test_dtypes_that_cannot_be_stored(tmp_path, name, dtype):
    with pytest.raises(ValueError, match=rf"{name}: dtype .* float32"):
        io.write(tmp_path / name, np.ones((1, 5, 6, 7)).astype(dtype), OBLIQUE, {})
    assert not list(tmp_path.iterdir())


def rewritten(path: Path, array=None, affine=None) -> nib.Nifti1Image:
    """Read a file and write it (or another array or affine with its metadata) beside it; nibabel's view of that."""
    stored, header = io.read(path)
    target = path.with_name("again.nii.gz")
    io.write(target, stored if array is None else array, header.affine if affine is None else affine, header.metadata)
    return nib.load(target)


@pytest.mark.parametrize("name", [name for name in REAL if ".nii" in name])
def test_real_files_survive_a_round_trip(tmp_path, name):
    path = tmp_path / name
    path.write_bytes((NIBABEL / name).read_bytes())
    before, after = nib.load(path), rewritten(path)
    np.testing.assert_allclose(after.get_fdata(), before.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-5)
    assert type(after) is type(before)
    assert after.shape == before.shape
    for field in ("xyzt_units", "descrip", "toffset", "sform_code", "qform_code", "intent_code", "slice_code"):
        assert after.header[field] == before.header[field], field
    np.testing.assert_allclose(after.header.get_zooms(), before.header.get_zooms(), rtol=1e-6)
    io.read_header(path.with_name("again.nii.gz"))  # the new forms do not differ, or this warns
    assert list(after.header.extensions) == list(before.header.extensions)


def series(path: Path, endianness="<") -> Path:
    """A 4-D file whose header says all that medjax carries."""
    header = nib.Nifti1Header(endianness=endianness)
    header.set_data_dtype(np.int16)
    image = nib.Nifti1Image(volume((5, 6, 7, 4)), SFORM, header)
    header = image.header
    header.set_zooms((*header.get_zooms()[:3], 2.5))
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["toffset"] = b"made here", 0.75
    header["cal_max"] = 1234
    header.set_dim_info(0, 1, 2)
    header["slice_code"], header["slice_end"], header["slice_duration"] = 3, 6, 0.3
    header.set_intent("t test", (12,), "contrast")
    header.extensions.append(Nifti1Extension("comment", b"kept " * 5))
    header.extensions.append(Nifti1Extension("afni", b"<xml/>"))
    image.set_sform(SFORM, 4)
    image.set_qform(SFORM, 4)
    image.to_filename(path)
    return path


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_what_the_header_says_is_written_back(tmp_path, endianness):
    path = series(tmp_path / "a.nii", endianness)
    before, after = nib.load(path).header, rewritten(path).header
    assert before.endianness == endianness
    assert after.endianness == nib.volumeutils.native_code
    assert after.get_zooms()[3] == 2.5
    assert after.get_xyzt_units() == ("mm", "sec")
    assert after.get_dim_info() == (0, 1, 2)
    assert after.get_intent() == ("t test", (12.0,), "contrast")
    for name in ("descrip", "toffset", "slice_code", "slice_end", "slice_duration", "sform_code", "qform_code"):
        assert after[name] == before[name], name
    assert [(e.get_code(), e.get_content()) for e in after.extensions] == [(6, b"kept " * 5), (4, b"<xml/>")]
    assert after["cal_max"] == 0  # a range of values, which may have changed


def test_what_no_longer_holds_is_dropped(tmp_path):
    path = series(tmp_path / "a.nii")
    cropped = rewritten(path, volume((4, 5, 6, 3))).header
    assert cropped["slice_code"] == cropped["slice_end"] == cropped["dim_info"] == 0
    assert cropped.get_intent()[0] == "t test"
    assert cropped.get_zooms()[3] == 2.5
    assert rewritten(path, affine=SFORM[[1, 0, 2, 3]]).header["slice_code"] == 0
    one = rewritten(path, volume((1, 5, 6, 7)))
    assert one.shape == (5, 6, 7)
    assert one.header.get_intent()[0] == "none"
    assert len(one.header.extensions) == 2


def test_a_vector_becomes_a_series_without_intent(tmp_path):
    image = nib.Nifti1Image(volume((5, 6, 7, 1, 3)), SFORM)
    image.header.set_intent("vector")
    image.to_filename(tmp_path / "a.nii")
    after = rewritten(tmp_path / "a.nii")
    assert after.shape == (5, 6, 7, 3)
    assert after.header.get_intent()[0] == "none"


def test_metadata_is_not_changed_by_writing_and_pickles(tmp_path):
    path = series(tmp_path / "a.nii")
    array, header = io.read(path)
    io.write(tmp_path / "b.nii", array[:1, :2], rigid(np.eye(3)), pickle.loads(pickle.dumps(header.metadata)))
    io.write(tmp_path / "c.nii", array[:1, :2], rigid(np.eye(3)), header.metadata)
    assert (tmp_path / "b.nii").read_bytes() == (tmp_path / "c.nii").read_bytes()
    check_same(header, io.read_header(path))


@pytest.mark.parametrize(
    "before, after", [((0, 0), (1, 1)), ((2, 0), (2, 0)), ((0, 1), (1, 1)), ((1, 1), (1, 1)), ((4, 2), (4, 2))]
)
def test_form_codes(tmp_path, before, after):
    path = with_forms(tmp_path / "a.nii", SFORM, before[0], SFORM, before[1])
    header = rewritten(path, affine=QFORM).header
    assert (header["sform_code"], header["qform_code"]) == after
    np.testing.assert_allclose(header.get_sform(), QFORM, atol=1e-5)
    if after[1]:
        np.testing.assert_allclose(header.get_qform(), QFORM, atol=1e-3)


def test_forms_that_differed_share_the_space_of_the_sform(tmp_path):
    path = with_forms(tmp_path / "a.nii", SFORM, 4, QFORM, 1)
    with pytest.warns(UserWarning):
        header = rewritten(path).header
    assert header["sform_code"] == header["qform_code"] == 4


def test_a_sheared_affine_has_no_qform(tmp_path):
    sheared = SFORM.copy()
    sheared[0, 1] += 0.4
    io.write(tmp_path / "a.nii", volume((1, 5, 6, 7)), sheared, {})
    header = nib.load(tmp_path / "a.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(io.read_header(tmp_path / "a.nii").affine, sheared, atol=1e-5)


def test_simpleitk_sees_the_same_space(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    array = volume((1, 5, 6, 7))
    for metadata in ({}, io.read_header(NIBABEL / "anatomical.nii").metadata):
        io.write(tmp_path / "a.nii.gz", array, SFORM, metadata)
        image = sitk.ReadImage(tmp_path / "a.nii.gz")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, array[0])
        world = np.diag([-1, -1, 1, 1]) @ SFORM @ [4, 5, 6, 1]
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((4, 5, 6)), world[:3], atol=1e-4)


def test_a_long_axis_needs_nifti_2(tmp_path):
    array = np.arange(40000, dtype=np.uint16).reshape(1, 40000, 1, 1)
    io.write(tmp_path / "a.nii.gz", array, np.eye(4), io.read_header(NIBABEL / "anatomical.nii").metadata)
    assert isinstance(nib.load(tmp_path / "a.nii.gz"), nib.Nifti2Image)
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz")[0], array)


def test_mgh_keeps_its_scan_parameters(tmp_path):
    image = nib.MGHImage(volume((5, 6, 7, 2), np.float32), OBLIQUE)
    image.header.set_zooms((*image.header.get_zooms()[:3], 2300.0))
    image.header["flip_angle"], image.header["te"] = 0.14, 2.9
    image.to_filename(tmp_path / "a.mgz")
    array, header = io.read(tmp_path / "a.mgz")
    io.write(tmp_path / "b.mgz", array[:, :4], rigid(np.eye(3)), header.metadata)
    after = nib.load(tmp_path / "b.mgz")
    for name in ("tr", "flip_angle", "te", "ti"):
        assert after.header[name] == image.header[name], name
    assert after.shape == (4, 6, 7, 2)
    np.testing.assert_allclose(after.affine, rigid(np.eye(3)), atol=1e-4)


def test_metadata_of_another_format(tmp_path):
    array, header = io.read(NIBABEL / "test.mgz")
    io.write(tmp_path / "a.nii", array, header.affine, header.metadata)
    again, nifti_header = io.read(tmp_path / "a.nii")
    io.write(tmp_path / "b.mgz", again, nifti_header.affine, nifti_header.metadata)
    final, mgh_header = io.read(tmp_path / "b.mgz")
    np.testing.assert_array_equal(final, array)
    np.testing.assert_allclose(mgh_header.affine, header.affine, atol=1e-5)


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        io.write(tmp_path / name, volume((1, 5, 6, 7)), OBLIQUE, {})
    raw = (tmp_path / "a.nii.gz").read_bytes()
    assert raw == (tmp_path / "b.nii.gz").read_bytes()
    assert raw[4:8] == bytes(4)


@settings(max_examples=40, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.int16, np.int64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
    ),
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1),
    angle=st.floats(-4, 4),
    spacing=st.tuples(*[st.floats(0.05, 20)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_round_trip(tmp_path_factory, array, axis, angle, spacing, origin, suffix):
    path = tmp_path_factory.mktemp("trip") / f"a{suffix}"
    affine = rigid(rotation(axis, angle), spacing, origin)
    io.write(path, array, affine, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, header = io.read(path)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype or array.dtype == np.int64
    np.testing.assert_allclose(header.affine, affine, rtol=1e-6, atol=1e-5)
