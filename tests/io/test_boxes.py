"""A box is the box of the whole image, and costs no more reading than its place in the file asks for."""

import re
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import OBLIQUE
from hypothesis import given, settings
from hypothesis import strategies as st

import medjax as mj
from medjax import io
from medjax.io import boxes

SHAPE = (9, 8, 7)
BOX = ((2, 1, 3), (5, 7, 3))


def saved(path, name, dtype=np.int16, channels=1):
    """A file, and all its voxels (C, I, J, K) by nibabel's reading of it."""
    rng = np.random.default_rng(0)
    data = rng.integers(0, 200, (*SHAPE, channels)).astype(dtype)
    data = data[..., 0] if channels == 1 else data
    if name.endswith((".hdr", ".img")):
        image = nib.Nifti1Pair(data, OBLIQUE)
    else:
        image = nib.MGHImage(data, OBLIQUE) if ".mg" in name else nib.Nifti1Image(data, OBLIQUE)
    nib.save(image, path / name)
    return path / name, np.moveaxis(data.reshape(*SHAPE, channels), -1, 0)


def box_of(data, start, shape):
    return data[(slice(None), *(slice(a, a + n) for a, n in zip(start, shape)))]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgh", "a.mgz", "a.img", "a.hdr"])
def test_a_box_of_a_file_is_the_box_of_its_voxels(tmp_path, name, channels):
    path, data = saved(tmp_path, name, channels=channels)
    image = mj.ScalarImage(path, site="here")
    for start, shape in (
        BOX,
        ((0, 0, 0), SHAPE),
        ((0, 0, 6), (9, 8, 1)),
        ((8, 7, 6), (1, 1, 1)),
        ((0, 2, 0), (9, 3, 7)),
    ):
        found = image.box(start, shape)
        np.testing.assert_array_equal(found.data, box_of(data, start, shape))
        assert found.dtype == image.dtype and found.metadata["site"] == "here" and found.path is None
        corner = np.asarray(OBLIQUE) @ [*start, 1]
        np.testing.assert_allclose(found.affine[:, 3], corner, atol=1e-4)
        np.testing.assert_allclose(found.affine[:3, :3], OBLIQUE[:3, :3], atol=1e-5)
    assert image._data is None


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_runs_of_a_box_are_its_numbers(data):
    whole = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    shape = [data.draw(st.integers(1, n)) for n in whole]
    start = [data.draw(st.integers(0, n - m)) for n, m in zip(whole, shape)]
    numbers = np.arange(np.prod(whole)).reshape(whole)
    begins, run = boxes.runs(whole, start, shape)
    expected = numbers[tuple(slice(a, a + n) for a, n in zip(start, shape))].ravel()
    np.testing.assert_array_equal((begins[:, None] + np.arange(run)).ravel(), expected)
    assert (np.diff(begins) > 0).all()  # a stream is read forwards


def test_scaled_swapped_and_coloured_voxels(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    data = np.random.default_rng(1).integers(-99, 99, SHAPE).astype(">i2")
    image = nib.Nifti1Image(data, OBLIQUE, header)
    image.header.set_slope_inter(0.37, -2)
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    assert raw[:4] == b"\x00\x00\x01\x5c"
    found = mj.ScalarImage(tmp_path / "a.nii")
    np.testing.assert_array_equal(found.box(*BOX).data, box_of(found.numpy(), *BOX))
    np.testing.assert_allclose(found.numpy()[0], nib.load(tmp_path / "a.nii").get_fdata(), rtol=1e-6)
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for number, part in enumerate("RGB"):
        colours[part] = np.random.default_rng(number).integers(0, 255, SHAPE)
    nib.save(nib.Nifti1Image(colours, OBLIQUE), tmp_path / "b.nii")
    expected = box_of(np.stack([colours[part] for part in "RGB"]), *BOX)
    np.testing.assert_array_equal(mj.ScalarImage(tmp_path / "b.nii").box(*BOX).data, expected)


def test_other_formats_arrays_readers_and_channels(tmp_path):
    path, data = saved(tmp_path, "a.nii")
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / "a.nrrd"))
    two = mj.ScalarImage([path, path])
    for image in (
        mj.ScalarImage(tmp_path / "a.nrrd"),
        mj.LabelMap(data, OBLIQUE),
        mj.ScalarImage(path, reader=lambda path: (data, OBLIQUE)),
        mj.ScalarImage(path).load(),
    ):
        found = image.box(*BOX)
        np.testing.assert_array_equal(found.data, box_of(data, *BOX))
        np.testing.assert_allclose(found.affine[:3, 3], (OBLIQUE @ [*BOX[0], 1])[:3], atol=1e-4)
        assert type(found) is type(image) and not np.may_share_memory(found.numpy(), data)
    np.testing.assert_array_equal(two.box(*BOX).data, box_of(np.concatenate([data, data]), *BOX))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts what a process reads")
@pytest.mark.parametrize(("suffix", "share"), [(".nii", 0.05), (".nii.gz", 0.5)])
def test_of_a_large_file_little_is_read(tmp_path, suffix, share):
    data = np.random.default_rng(0).integers(0, 2**15, (256, 256, 100)).astype(np.int16)
    mj.ScalarImage(data[None]).save(tmp_path / f"a{suffix}")
    image = mj.ScalarImage(tmp_path / f"a{suffix}")

    def counted():
        with open("/proc/self/io") as file:
            return int(re.search(r"rchar: (\d+)", file.read())[1])

    before = counted()
    found = image.box((100, 90, 10), (48, 48, 24))
    assert counted() - before < share * (tmp_path / f"a{suffix}").stat().st_size
    np.testing.assert_array_equal(found.data[0], data[100:148, 90:138, 10:34])


def test_what_is_no_box_is_refused(tmp_path):
    path, data = saved(tmp_path, "a.nii")
    image = mj.ScalarImage(path)
    with pytest.raises(
        ValueError, match=re.escape("the box of start=(5, 0, 0), shape=(5, 1, 1) is not inside the image")
    ):
        image.box((5, 0, 0), (5, 1, 1))
    with pytest.raises(ValueError, match="start must be one or three whole numbers of at least 0"):
        image.box((-1, 0, 0), 2)
    with pytest.raises(ValueError, match="shape must be one or three whole numbers of at least 1"):
        image.box(0, 0)
    with pytest.raises(ValueError, match="neither from a batch nor"):
        mj.stack([mj.Subject(a=image)] * 2).a.box(0, 1)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"a\.nii.*too short"):
        image.box(0, 2)
    mj.ScalarImage(data).save(tmp_path / "b.nii.gz")
    raw = (tmp_path / "b.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=r"b\.nii\.gz"):
        io.read_box(tmp_path / "b.nii.gz", (0, 0, 5), (9, 8, 2))
