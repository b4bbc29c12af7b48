"""Files as the standards allow them and others write them; what saving keeps of the file and of the folder."""

import bz2
import gzip
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import medjax as mj
from medjax import io
from medjax.io import affines, drafts, registry, streams

VOXELS = np.random.default_rng(0).integers(0, 100, (6, 7, 8)).astype(np.int16)
AFFINE = np.diag([1.5, 2, 2.5, 1.0])
AFFINE[:3, 3] = [-10, 5, 7]

# nibabel, here the reference, leaves .mgh files open; medjax must not.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def patched(path: Path, cls=nib.Nifti1Image, array=VOXELS, affine=AFFINE, **fields) -> Path:
    """A single file by nibabel, with fields of its header written over."""
    image = cls(array, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    raw = image.to_bytes()
    size = cls.header_class.sizeof_hdr
    header = cls.header_class(raw[:size], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + raw[size:])
    return path


# -- reading


@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("offset", [0, 1, 16, 348, 351])
def test_voxels_never_begin_within_the_header(tmp_path, cls, offset):
    path = patched(tmp_path / "a.nii", cls, vox_offset=offset)
    np.testing.assert_array_equal(io.read(path)[0][0], VOXELS)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    axis=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    longer=st.floats(-1e-7, 4e-4),
    cls=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)
def test_a_quaternion_too_long_by_rounding_is_half_a_turn(tmp_path_factory, axis, longer, cls):
    unit = np.asarray(axis) / np.linalg.norm(axis)
    b, c, d = unit * (1 + longer)
    path = tmp_path_factory.mktemp("q") / "a.nii"
    patched(path, cls, sform_code=0, qform_code=1, quatern_b=b, quatern_c=c, quatern_d=d)
    turned = Rotation.from_rotvec(np.pi * unit).as_matrix()
    np.testing.assert_allclose(io.read_header(path).affine[:3, :3], turned * (1.5, 2, 2.5), atol=3e-3)


def test_a_quaternion_too_long_by_more_is_damage(tmp_path):
    path = patched(tmp_path / "a.nii", sform_code=0, quatern_b=0.8, quatern_c=0.8)
    with pytest.raises(ValueError, match=r"a\.nii"):
        io.read(path)


def test_an_sform_of_zeros_is_none_beside_a_qform(tmp_path):
    rows = {"srow_x": 0, "srow_y": 0, "srow_z": 0}
    path = patched(tmp_path / "a.nii", **rows)
    image = SimpleITK.ReadImage(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mj.ScalarImage(path)
        np.testing.assert_allclose(found.affine, mj.ScalarImage(image).affine, atol=1e-5)
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    with pytest.raises(ValueError, match=r"a\.nii: the affine is singular"):
        io.read(patched(path, **rows, qform_code=0))


@pytest.mark.parametrize("dim", [(4, 6, 7, 8, 0), (5, 6, 7, 8, 1, 0), (7, 6, 7, 8, 1, 1, 1, 1), (5, 6, 7, 8, 0, 0)])
def test_axes_of_no_length_at_the_end_count_for_nothing(tmp_path, dim):
    path = patched(tmp_path / "a.nii", dim=[*dim, *[1] * (8 - len(dim))])
    np.testing.assert_array_equal(io.read(path)[0][0], VOXELS)


@pytest.mark.parametrize("dim", [(4, 6, 0, 8, 1), (3, 0, 7, 8), (5, 6, 7, 8, 0, 2), (3, 6, -7, 8)])
def test_other_axes_of_no_length_are_damage(tmp_path, dim):
    path = patched(tmp_path / "a.nii", dim=[*dim, *[1] * (8 - len(dim))])
    with pytest.raises(ValueError, match=r"a\.nii"):
        io.read(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz", "a.hdr", "a.img.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_whether_a_file_is_compressed_is_seen_in_it(tmp_path, name, zipped):
    """A name says `.gz` or not, and the content is the one or the other."""
    kinds = {"mgh": nib.MGHImage, "mgz": nib.MGHImage, "hdr": nib.Nifti1Pair, "img": nib.Nifti1Pair}
    cls = kinds.get(name.split(".")[1], nib.Nifti1Image)
    nib.save(cls(VOXELS, AFFINE), tmp_path / name)
    for path in tmp_path.iterdir():
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        path.write_bytes(gzip.compress(raw) if zipped else raw)
    array, header = io.read(tmp_path / name)
    np.testing.assert_array_equal(array[0], VOXELS)
    np.testing.assert_allclose(header.affine, AFFINE, atol=1e-5)


def test_voxels_of_a_pair_that_begin_like_gzip_are_voxels(tmp_path):
    voxels = np.frombuffer(b"\x1f\x8b\x08\x00" * 60, np.uint8).reshape(6, 5, 8).T
    nib.save(nib.Nifti1Pair(voxels, AFFINE), tmp_path / "a.img")
    np.testing.assert_array_equal(io.read(tmp_path / "a.img")[0][0], voxels)


COMPRESSED = {".bz2": bz2.compress, ".zst": zstandard.compress, ".gz": gzip.compress}


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_file_is_read_as_it_is_compressed_whatever_its_name_says(tmp_path, suffix):
    raw = patched(tmp_path / "a.nii").read_bytes()
    for name in (f"b.nii{suffix}", "b.nii", "b.nii.gz"):
        (tmp_path / name).write_bytes(COMPRESSED[suffix](raw))
        array, header = io.read(tmp_path / name)
        np.testing.assert_array_equal(array, io.read(tmp_path / "a.nii")[0])
        np.testing.assert_array_equal(header.affine, io.read_header(tmp_path / "a.nii").affine)
        for cut in (4, 100, len(COMPRESSED[suffix](raw)) - 20):
            (tmp_path / name).write_bytes(COMPRESSED[suffix](raw)[:cut])
            with pytest.raises((ValueError, EOFError), match=re.escape(str(tmp_path / name))):
                io.read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".bz2", ".zst"])
def test_what_is_written_compressed_is_read_by_others(tmp_path, suffix):
    image = mj.ScalarImage(VOXELS[None], AFFINE)
    for name in ("a.nii", f"a.nii{suffix}", f"b.nii{suffix}"):
        image.save(tmp_path / name)
    content = (tmp_path / f"a.nii{suffix}").read_bytes()
    assert content == (tmp_path / f"b.nii{suffix}").read_bytes()
    raw = (
        bz2.decompress(content)
        if suffix == ".bz2"
        else zstandard.ZstdDecompressor().decompressobj().decompress(content)
    )
    assert raw == (tmp_path / "a.nii").read_bytes()
    np.testing.assert_array_equal(mj.ScalarImage(tmp_path / f"a.nii{suffix}").numpy()[0], VOXELS)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.img"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "a.img")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    found = []

    def read():
        try:
            io.read(tmp_path / name)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert len(found) == 1 and isinstance(found[0], ValueError) and str(tmp_path / name) in str(found[0])
    if name == "a.img":  # the other file of the pair
        with pytest.raises(ValueError, match=r"a\.img is a pipe"):
            io.read(tmp_path / "a.hdr")


@pytest.mark.parametrize("spacing", [3.8e-4, 0.5, 1.0, 30.0])
def test_one_grid_is_a_matter_of_voxels(tmp_path, spacing):
    """Files that are channels of one image: whatever the spacing, some hundredths of a voxel are rounding."""
    first = np.diag([spacing, spacing, spacing, 1.0])
    for gap, joins in ((0.0, True), (0.02, True), (0.2, False), (2.4, False)):
        other = first.copy()
        other[0, 3] = gap * spacing
        for name, affine in (("a.nii", first), ("b.nii", other)):
            nib.save(nib.Nifti1Image(VOXELS, affine), tmp_path / name)
        image = mj.ScalarImage([tmp_path / "a.nii", tmp_path / "b.nii"])
        subject = mj.Subject(a=mj.ScalarImage(tmp_path / "a.nii"), b=mj.ScalarImage(tmp_path / "b.nii"))
        if joins:
            assert image.shape[0] == mj.concat_channels(subject, ["a", "b"], "c").c.shape[0] == 2
            continue
        with pytest.raises(ValueError, match="not on one grid"):
            image.load()
        with pytest.raises(ValueError, match="concat_channels needs images on one grid"):
            mj.concat_channels(subject, ["a", "b"], "c")
    nib.save(nib.Nifti1Image(VOXELS, first * [[2], [2], [2], [1]]), tmp_path / "b.nii")
    with pytest.raises(ValueError, match="not on one grid"):
        mj.ScalarImage([tmp_path / "a.nii", tmp_path / "b.nii"]).load()


def test_headers_round_affines_far_less_than_a_grid_may_differ():
    rng = np.random.default_rng(0)
    for _ in range(200):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(random_state=rng).as_matrix() * rng.uniform(0.3, 3, 3)
        affine[:3, 3] = rng.normal(size=3) * 200
        header = nib.Nifti1Header()
        header.set_sform(affine, 1)
        assert affines.apart(affine, header.get_sform(), (512, 512, 300)) < affines.ONE_GRID / 100


@pytest.mark.parametrize("spacing", [3.8e-4, 1.0, 30.0])
def test_forms_that_differ_are_told_by_voxels(tmp_path, spacing):
    affine = np.diag([spacing, spacing, spacing, 1.0])
    for factor, differ in ((1.0, False), (2.0, True), (1 + 1e-6, False)):
        image = nib.Nifti1Image(VOXELS, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine * [[factor], [factor], [factor], [1]], 1)
        image.to_filename(tmp_path / "a.nii")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            io.read_header(tmp_path / "a.nii")
        assert bool(caught) == differ


def test_a_disk_that_fails_is_an_error_of_the_system_with_the_file(tmp_path, monkeypatch):
    path = patched(tmp_path / "a.nii")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(streams, "opened", fail)
    with pytest.raises(OSError, match="Input/output error") as error:
        io.read(path)
    assert error.value.filename == str(path) and not isinstance(error.value, ValueError)


# -- writing: dtypes


@pytest.mark.parametrize("low, high, written", [
    (0, 3, "u1"), (0, 255, "u1"), (0, 256, "i2"), (-1, 3, "i2"), (0, 32768, "i4"), (-40000, 0, "i4"),
    (0, 2**31, "u4"), (0, 2**32, None), (-1, 2**31, None),
])  # fmt: skip
@pytest.mark.parametrize("dtype", ["i8", "u8", ">i8"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.mgz"])
def test_wide_whole_numbers_are_written_in_the_least_common_type(tmp_path, low, high, written, dtype, name):
    if low < 0 and dtype == "u8":
        return
    array = np.array([low, high] * 4, dtype).reshape(1, 2, 2, 2)
    if name == "a.mgz" and written in (None, "u4"):
        with pytest.raises(ValueError, match=r"a\.mgz: dtype (>i8|u?int64) is not stored"):
            io.write(tmp_path / name, array, AFFINE, {})
        return
    io.write(tmp_path / name, array, AFFINE, {})
    image = nib.load(tmp_path / name)
    assert image.get_data_dtype().newbyteorder("=") == np.dtype(written or dtype).newbyteorder("=")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), array[0])
    if name == "a.nii.gz":
        assert mj.ScalarImage.of(array, AFFINE).to_nibabel().get_data_dtype() == image.get_data_dtype()


def test_an_argmax_is_saved_as_what_others_read(tmp_path):
    label = np.argmax(np.random.default_rng(0).random((3, 4, 4, 4)), 0)[None]
    mj.LabelMap(label, AFFINE).save(tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").get_data_dtype() in (np.uint8, np.int16, np.int32)
    mj.LabelMap(label, AFFINE).save(tmp_path / "a.mgz")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.mgz").dataobj, label[0])


# -- writing: the folder


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path, mode):
    path = tmp_path / "a.nii"
    for factor in (1, 2):
        io.write(path, VOXELS[None] * np.int16(factor), AFFINE, {})
        path.chmod(mode)
    io.write(path, VOXELS[None] * np.int16(3), AFFINE, {})
    assert stat.S_IMODE(path.stat().st_mode) == mode
    np.testing.assert_array_equal(io.read(path)[0][0], VOXELS * 3)


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_is_written_through(tmp_path, relative):
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "object", tmp_path / "a.nii.gz"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("store/object" if relative else target)
    io.write(link, VOXELS[None], AFFINE, {})
    assert link.is_symlink() and link.resolve() == target and stat.S_IMODE(target.stat().st_mode) == 0o640
    np.testing.assert_array_equal(io.read(link)[0][0], VOXELS)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.nii.gz", "object", "store"]


def test_a_link_to_what_is_not_there_yet(tmp_path):
    (tmp_path / "a.nii").symlink_to(tmp_path / "b")
    io.write(tmp_path / "a.nii", VOXELS[None], AFFINE, {})
    assert (tmp_path / "a.nii").is_symlink() and (tmp_path / "b").is_file()
    (tmp_path / "c.nii").symlink_to(tmp_path / "nowhere" / "b")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        io.write(tmp_path / "c.nii", VOXELS[None], AFFINE, {})


def test_a_file_that_may_not_be_written_to_stays(tmp_path, monkeypatch):
    path = patched(tmp_path / "a.nii")
    path.chmod(0o444)
    before = path.read_bytes()
    may = os.access
    # The superuser, whom tests may run as, may write everywhere.
    monkeypatch.setattr(os, "access", lambda p, mode: bool(os.stat(p).st_mode & 0o200) and may(p, mode))
    with pytest.raises(PermissionError, match=r"a\.nii"):
        io.write(path, 2 * VOXELS[None], AFFINE, {})
    assert path.read_bytes() == before


def writer_that(raises):
    def write(path, array, affine, metadata):
        path.write_bytes(b"half")
        raise raises(path)

    return io.Format("One", (".one",), lambda path: None, lambda path: None, write)


@pytest.mark.parametrize("raises", [
    lambda path: ValueError(f"{path} is no good"), lambda path: TypeError("a type"), lambda path: KeyError(str(path)),
    lambda path: OSError(28, "No space left on device", str(path)), lambda path: OSError(f"{path}: short write"),
    lambda path: OSError(28, "No space left on device"), lambda path: MemoryError(),
])  # fmt: skip
def test_errors_of_writing_name_the_path_and_never_the_draft(tmp_path, monkeypatch, raises):
    monkeypatch.setattr(registry, "_BY_SUFFIX", {".one": writer_that(raises)})
    path = tmp_path / "a.one"
    with pytest.raises((ValueError, TypeError, OSError, MemoryError, RuntimeError)) as error:
        io.write(path, VOXELS[None], AFFINE, {})
    assert str(path) in str(error.value) and drafts.PREFIX not in str(error.value)
    if isinstance(raises(path), OSError) and raises(path).errno:
        assert error.value.errno == 28 and error.value.filename == str(path)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises((OSError, ValueError), match=r"a\.nii") as error:
        io.write(tmp_path / "a.nii", VOXELS[None], AFFINE, {})
    assert drafts.PREFIX not in str(error.value)


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from medjax.io import registry
def write(path, *_):
    path.write_bytes(b"half")
    print(path, flush=True)
    sys.stdin.readline()
    os._exit(9)
registry.register(registry.Format("One", (".one",), None, None, write))
registry.write(sys.argv[1], np.zeros((1, 2, 2, 2)), np.eye(4), {})
"""


def test_the_draft_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "a.one")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        draft = Path(process.stdout.readline().strip())
        io.write(tmp_path / "b.nii", VOXELS[None], AFFINE, {})
        assert draft.read_bytes() == b"half" and draft.parent.parent == tmp_path
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(30)
    assert process.returncode == 9 and draft.exists()
    io.write(tmp_path / "b.nii", VOXELS[None], AFFINE, {})
    assert [path.name for path in tmp_path.iterdir()] == ["b.nii"]


def test_drafts_of_other_machines_are_removed_when_they_are_old(tmp_path):
    new, old, mine = (tmp_path / f"{drafts.PREFIX}{name}" for name in ("elsewhere-1-x", "elsewhere-2-y", "unnamed"))
    for draft in (new, old, mine):
        draft.mkdir()
        (draft / "a.nii").touch()
    os.utime(old, (0, 0))
    io.write(tmp_path / "b.nii", VOXELS[None], AFFINE, {})
    assert new.exists() and mine.exists() and not old.exists()
    shutil.rmtree(new)


# -- writing: what the header says


def series(path: Path, unit: str, step: float, code: int = 3) -> Path:
    image = nib.Nifti1Image(np.zeros((5, 6, 7, 4), np.int16), AFFINE)
    image.header.set_zooms((*image.header.get_zooms()[:3], step))
    image.header.set_xyzt_units("mm", unit)
    image.header.set_dim_info(slice=2)
    image.header["slice_code"], image.header["slice_end"], image.header["slice_duration"] = code, 6, 0.1
    image.to_filename(path)
    return path


@pytest.mark.parametrize("unit, to_seconds", [("sec", 1), ("msec", 1e-3), ("usec", 1e-6), ("unknown", 1)])
def test_the_time_between_volumes_survives_other_formats(tmp_path, unit, to_seconds):
    path = series(tmp_path / "a.nii", unit, 0.72 / to_seconds)
    mj.ScalarImage(path).save(tmp_path / "b.mgz")
    assert nib.load(tmp_path / "b.mgz").header["tr"] == pytest.approx(720, rel=1e-6)
    mj.ScalarImage(tmp_path / "b.mgz").save(tmp_path / "c.nii.gz")
    header = nib.load(tmp_path / "c.nii.gz").header
    assert header.get_xyzt_units() == ("mm", "sec") and header.get_zooms()[3] == pytest.approx(0.72, rel=1e-6)
    mj.ScalarImage(tmp_path / "c.nii.gz").save(tmp_path / "d.mgh")
    assert nib.load(tmp_path / "d.mgh").header["tr"] == pytest.approx(720, rel=1e-6)


def test_a_spectrum_has_no_time_between_volumes(tmp_path):
    mj.ScalarImage(series(tmp_path / "a.nii", "hz", 3.0)).save(tmp_path / "b.mgz")
    assert nib.load(tmp_path / "b.mgz").header["tr"] == 0


KEPT = {
    "nothing": (mj.Compose([]), 3),
    "intensities": (mj.Gamma(1.0), 3),
    "flip within slices": (mj.Flip(0), 3),
    "turn within slices": (mj.Affine((1, 1, 1), (0, 0, 10), (0, 0, 0)), 3),
    "crop within slices and pad": (mj.Compose([mj.Crop((1, 0, 0, 0, 0, 0)), mj.Pad((1, 0, 0, 0, 0, 0))]), 3),
    "flip of slices": (mj.Flip(2), 0),
    "flip that is not drawn": (mj.Flip(2, p=0.0), 3),
    "flip twice": (mj.Compose([mj.Flip(2), mj.Flip(2)]), 3),
    "flip between intensities": (mj.Compose([mj.Gamma(1.0), mj.Flip(2), mj.Gamma(1.0)]), 0),
    "shift of slices": (mj.Affine((1, 1, 1), (0, 0, 0), (0, 0, 2.5)), 0),
    "bend": (mj.RandomElasticDeformation(max_displacement=0.5), 0),
    "crop of slices": (mj.Crop((0, 0, 0, 0, 1, 0)), 0),
}


@pytest.mark.parametrize("name", KEPT)
def test_times_of_slices_are_kept_where_slices_are(tmp_path, name):
    t, expected = KEPT[name]
    subject = mj.Subject(bold=mj.ScalarImage(series(tmp_path / "a.nii", "sec", 2.0))).load()
    results = [t(subject, jax.random.key(0))]
    if name != "bend":  # which takes long to compile
        results += mj.unstack(t.batch(mj.stack([subject, subject]), jax.random.key(0)))
    for result in results:
        result.bold.save(tmp_path / "b.nii")
        header = nib.load(tmp_path / "b.nii").header
        assert header["slice_code"] == expected
        assert (header["slice_duration"] > 0) == (header["slice_end"] > 0) == bool(expected)
    assert subject.bold.metadata["header"]["slice_code"] == 3
