"""Resize: exact shapes over the same field of view, and SciPy's numbers."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from scipy.ndimage import gaussian_filter, map_coordinates

import medjax as mj
from medjax.geometry import Grid

SHAPE = (23, 31, 18)
TARGET = (30, 17, 25)


def regridded(target, affine, shape):
    grid = Grid(affine, np.array(shape, np.int32), tuple(shape))
    return mj.Resize(target).regrid(grid, {}, grid)


def read_at(target, shape=SHAPE):
    """Indices (3, I', J', K') of the input at which the voxels lie: faces on faces."""
    at = [(np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(shape, target)]
    return np.stack(np.meshgrid(*at, indexing="ij"))


def test_w13_every_shape_is_reached_exactly():
    """TorchIO's floor of a rounded ratio misses 30 -> 29 and thousands more."""
    for spacing in (1.0, 0.6, 0.9, 1.1, 3.3):
        affine = np.diag([spacing] * 3 + [1])
        for n in (1, 2, 5, 29, 30, 64, 189, 256):
            for m in (1, 3, 28, 29, 31, 100, 255):
                grid = regridded((m, m, m), affine, (n, n, n))
                assert tuple(grid.shape) == grid.fixed == (m, m, m)


def test_w13_no_slice_of_zeros_where_torchio_misses_the_shape():
    data = 1 + np.arange(30, dtype=np.float32)[None, :, None, None] * np.ones((1, 30, 3, 3), np.float32)
    got = mj.Resize((29, 3, 3))(data)
    want = np.interp(read_at((29, 1, 1), (30, 1, 1))[0].ravel(), np.arange(30), np.arange(1, 31))
    assert got.shape == (1, 29, 3, 3)
    np.testing.assert_allclose(got[0, :, 1, 1], want, rtol=1e-6)


@pytest.mark.parametrize("target", [TARGET, (1, 1, 1), (23, 62, 9)])
def test_faces_and_directions_stay_where_they_are(target):
    new = regridded(target, OBLIQUE, SHAPE)
    for corner in np.ndindex(2, 2, 2):
        ends = [a @ [*(np.array(corner) * n - 0.5), 1] for a, n in ((OBLIQUE, SHAPE), (new.affine, target))]
        np.testing.assert_allclose(*ends, atol=1e-9)
    spacing = np.array([1, 2, 1.5]) * SHAPE / target
    np.testing.assert_allclose(new.affine[:3, :3] / spacing, OBLIQUE[:3, :3] / [1, 2, 1.5], atol=1e-12)


@pytest.mark.parametrize("interpolation, order", [("nearest", 0), ("linear", 1), ("cubic", 3)])
def test_numbers_are_scipys(interpolation, order):
    got = mj.Resize(TARGET, interpolation)(mj.ScalarImage(blobs()[None], OBLIQUE)).numpy()[0]
    at = read_at(TARGET)
    inside = np.all([(c >= 0) & (c <= n - 1) for c, n in zip(at, SHAPE)], 0)
    clear = inside & (order > 0 or (np.abs(at - np.floor(at) - 0.5) > 1e-3).all(0))
    want = map_coordinates(blobs().astype(float), at, order=order, mode="mirror")
    assert clear.mean() > 0.5
    np.testing.assert_allclose(got[clear], want[clear], atol=1e-4)


def test_in_the_outer_half_voxel_the_edge_is_repeated():
    got = mj.Resize(TARGET)(blobs()[None])[0]
    want = map_coordinates(blobs().astype(float), read_at(TARGET), order=1, mode="nearest")
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_labels_keep_dtype_and_values():
    got = mj.Resize(TARGET, label_interpolation="linear")(small_subject()).label
    assert got.dtype == np.uint8 and set(np.unique(got.numpy())) == {0, 1, 3}


def test_w14_minus_one_keeps_the_axis_of_each_subject():
    """In TorchIO the first subject's size is written into the transform."""
    t = mj.Resize((12, -1, 9))
    before = repr(t)
    for shape in (SHAPE, (10, 14, 11), SHAPE):
        assert t(small_subject(shape=shape)).t1.spatial_shape == (12, shape[1], 9)
    assert repr(t) == before
    assert jax.jit(t)(small_subject()).t1.shape == (1, 12, 31, 9)


def test_minus_one_and_the_shape_that_is_there_change_no_bit():
    subject = small_subject()
    for t in (mj.Resize(-1), mj.Resize(SHAPE), mj.Resize((-1, 31, -1), "cubic")):
        got = t(subject)
        np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())
        np.testing.assert_array_equal(got.label.numpy(), subject.label.numpy())
        np.testing.assert_allclose(got.t1.affine, OBLIQUE, atol=1e-12)


def test_antialiasing_is_a_gaussian_along_the_axes_that_get_coarser():
    target = (9, 31, 6)
    got = mj.Resize(target, antialias=True)(mj.ScalarImage(blobs()[None], OBLIQUE)).numpy()[0]
    ratio = np.array(SHAPE) / target
    smooth = gaussian_filter(blobs().astype(float), np.sqrt((ratio**2 - 1) / (8 * np.log(2))))
    want = map_coordinates(smooth, read_at(target), order=1, mode="nearest")
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_whole_factor_with_nearest_is_repetition():
    data = (blobs((5, 6, 4)) * 99).astype(np.int16)[None]
    got = mj.Resize((15, 6, 12), label_interpolation="nearest")(mj.Subject(label=mj.LabelMap(data))).label
    np.testing.assert_array_equal(got.numpy(), np.repeat(np.repeat(data, 3, 1), 3, 3))


def test_the_way_back_is_the_old_grid():
    subject = small_subject()
    t = mj.Resize((46, 62, 36))
    back = t.invert(t(subject), t.sample(None, subject), like=subject)
    np.testing.assert_array_equal(back.t1.affine, OBLIQUE)
    assert back.t1.spatial_shape == SHAPE and back.label.dtype == np.uint8
    inner = (slice(None), *[slice(1, -1)] * 3)
    np.testing.assert_allclose(back.t1.numpy()[inner], subject.t1.numpy()[inner], atol=0.12)
    assert np.mean(back.label.numpy() != subject.label.numpy()) == 0


@pytest.mark.parametrize("target", [0, -2, (3, 0, 3), (3, 3), 2.5, (1, 2, 3, 4)])
def test_shapes_that_make_no_sense_are_refused(target):
    with pytest.raises(ValueError, match="target_shape"):
        mj.Resize(target)
