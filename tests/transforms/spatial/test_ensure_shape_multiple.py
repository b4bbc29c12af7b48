"""EnsureShapeMultiple: which shape, which voxels, and where they are."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.geometry import Grid

SHAPE = (23, 31, 18)


def regridded(t, shape, affine=OBLIQUE):
    grid = Grid(affine, np.array(shape, np.int32), tuple(shape))
    return t.regrid(grid, {}, grid)


@pytest.mark.parametrize("method", ["pad", "crop"])
def test_shapes_and_sides_for_every_size_and_multiple(method):
    """The least multiple that is no smaller, or the greatest that is no larger, at least 1; an odd voxel at the low end."""
    for multiple in range(1, 10):
        for n in range(1, 40):
            grid = regridded(mj.EnsureShapeMultiple(multiple, method=method), (n, n, n), np.eye(4))
            want = -(-n // multiple) * multiple if method == "pad" else max(n // multiple * multiple, 1)
            assert tuple(grid.shape) == grid.fixed == (want,) * 3
            first = (n - want + 1) // 2 if want < n else -((want - n + 1) // 2)
            np.testing.assert_array_equal(grid.affine[:3, 3], first)


def test_padding_leaves_every_voxel_where_it_is_in_the_world():
    subject = small_subject()
    got = mj.EnsureShapeMultiple((8, 10, 16), padding_mode=3)(subject)
    assert got.t1.spatial_shape == (24, 40, 32)
    want = np.pad(subject.t1.numpy(), [(0, 0), (1, 0), (5, 4), (7, 7)], constant_values=3)
    np.testing.assert_array_equal(got.t1.numpy(), want)
    np.testing.assert_allclose(got.t1.affine @ [1, 5, 7, 1], OBLIQUE @ [0, 0, 0, 1], atol=1e-9)
    assert got.label.dtype == np.uint8


def test_cropping_leaves_every_voxel_where_it_is_in_the_world():
    subject = small_subject()
    got = mj.EnsureShapeMultiple((8, 10, 5), method="crop")(subject)
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy()[:, 4:20, 1:31, 2:17])
    np.testing.assert_allclose(got.t1.affine @ [0, 0, 0, 1], OBLIQUE @ [4, 1, 2, 1], atol=1e-9)


def test_each_image_on_its_own_and_a_multiple_changes_nothing():
    fine, coarse = np.zeros((1, 12, 9, 8), np.float32), np.ones((1, 6, 5, 4), np.float32)
    subject = mj.Subject(t1=mj.ScalarImage(fine), t2=mj.ScalarImage(coarse, np.diag([2.0, 2, 2, 1])))
    got = mj.EnsureShapeMultiple(4)(subject)
    assert got.t1.spatial_shape == (12, 12, 8) and got.t2.spatial_shape == (8, 8, 4)
    again = mj.EnsureShapeMultiple(4)(got)
    np.testing.assert_array_equal(again.t2.numpy(), got.t2.numpy())
    np.testing.assert_array_equal(again.t2.affine, got.t2.affine)


@pytest.mark.parametrize("method", ["pad", "crop"])
def test_the_shape_is_known_under_jit_and_the_way_back_is_exact(method):
    subject = small_subject()
    t = mj.EnsureShapeMultiple(8, method=method, padding_mode="reflect")
    got = jax.jit(t)(subject)
    assert got.t1.shape == ((1, 24, 32, 24) if method == "pad" else (1, 16, 24, 16))
    back = t.invert(got, t.sample(None, subject), like=subject)
    kept = back.t1.numpy() != 0
    assert kept.mean() > (0.99 if method == "pad" else 0.45)
    np.testing.assert_array_equal(back.t1.numpy()[kept], subject.t1.numpy()[kept])


@pytest.mark.parametrize("multiple", [0, -2, (4, 0, 4), 2.5, (2, 2)])
def test_multiples_that_make_no_sense_are_refused(multiple):
    with pytest.raises(ValueError, match="target_multiple"):
        mj.EnsureShapeMultiple(multiple)
    with pytest.raises(ValueError, match="method"):
        mj.EnsureShapeMultiple(2, method="padd")
