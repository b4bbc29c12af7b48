"""Where Resample does better than TorchIO 1.2.1."""

from fractions import Fraction
from itertools import product

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from scipy.ndimage import gaussian_filter, map_coordinates

import medjax as mj
from medjax.geometry import Grid

SHAPE = (23, 31, 18)


def test_w13_an_inexact_ratio_loses_no_voxel():
    image = mj.ScalarImage(np.zeros((1, 11, 4, 4), np.float32), np.diag([0.6, 1, 1, 1]))
    assert mj.Resample((0.1, 1, 1))(image).spatial_shape == (66, 4, 4)


def test_w13_counts_are_those_of_exact_arithmetic():
    spacings = ["0.1", "0.3", "0.35", "0.6", "0.7", "0.8", "0.9", "1", "1.1", "1.2", "1.5", "2.4", "3", "3.3"]
    for old, new, n in product(spacings, spacings, (5, 11, 64, 180, 233, 256)):
        got = regridded(np.diag([float(old)] * 3 + [1]), (n, n, n), float(new)).shape[0]
        assert got == n * Fraction(old) // Fraction(new), (old, new, n)


def regridded(affine, shape, spacing):
    """The grid of Resample(spacing) for a grid."""
    grid = Grid(affine, np.array(shape, np.int32))
    return mj.Resample(spacing).regrid(grid, {}, grid)


@pytest.mark.parametrize("spacing", [0.7, (0.9, 2.1, 1.5), 3])
def test_direction_and_centre_stay_and_the_spacing_is_exact(spacing):
    new = regridded(OBLIQUE, SHAPE, spacing)
    np.testing.assert_allclose(np.linalg.norm(new.affine[:3, :3], axis=0), np.broadcast_to(spacing, 3), rtol=1e-12)
    old = OBLIQUE[:3, :3] / np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    np.testing.assert_allclose(new.affine[:3, :3] / np.broadcast_to(spacing, 3), old, atol=1e-12)
    middle = [affine @ [*(np.array(shape) - 1) / 2, 1] for affine, shape in ((OBLIQUE, SHAPE), (new.affine, new.shape))]
    np.testing.assert_allclose(*middle, atol=1e-9)


def test_w15_a_spacing_past_the_field_of_view_is_an_error():
    with pytest.raises(ValueError, match="spacing"):
        mj.Resample(60.0)(small_subject())


def test_w16_whole_numbers_are_interpolated_and_not_truncated():
    data = np.random.default_rng(0).integers(-50, 50, (1, *SHAPE)).astype(np.int16)
    got = mj.Resample((0.7, 2.0, 1.9))(mj.ScalarImage(data, np.diag([1.0, 2, 1.5, 1])))
    assert got.dtype == np.float32
    count = got.spatial_shape
    at = [(n - 1) / 2 + (np.arange(m) - (m - 1) / 2) * r for n, m, r in zip(SHAPE, count, (0.7, 1, 1.9 / 1.5))]
    want = map_coordinates(data[0].astype(float), np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(got.numpy()[0], want, atol=1e-3)


def test_w12_and_w11_what_lies_outside_can_be_chosen():
    grid = (SHAPE, OBLIQUE @ np.array([[1, 0, 0, -5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    subject = small_subject()
    plain = mj.Resample(grid)(subject)
    chosen = mj.Resample(grid, default_pad_value=-1000, default_pad_label=9)(subject)
    assert np.all(plain.t1.numpy()[:, :5] == 0) and np.all(plain.label.numpy()[:, :5] == 0)
    assert np.all(chosen.t1.numpy()[:, :5] == -1000) and np.all(chosen.label.numpy()[:, :5] == 9)
    np.testing.assert_array_equal(chosen.label.numpy()[:, 5:], subject.label.numpy()[:, :-5])
    np.testing.assert_allclose(chosen.t1.numpy()[:, 5:], subject.t1.numpy()[:, :-5], atol=1e-5)


def far_away(image):
    moved = np.asarray(image.affine).copy()
    moved[:3, 3] += 500
    return image.replace(affine=moved)


@pytest.mark.parametrize("kind", ["image", "shape and affine", "name"])
def test_w12_a_reference_that_does_not_overlap_is_an_error(kind):
    subject = small_subject()
    far = far_away(subject.t1)
    target = {"image": far, "shape and affine": (far.spatial_shape, far.affine), "name": "far"}[kind]
    with pytest.raises(ValueError, match="overlap"):
        mj.Resample(target)(subject.replace(far=far) if kind == "name" else subject)


@pytest.mark.parametrize("spacing", [(1, 4, 4.5), (1.7, 4.5, 2.0)])
def test_w23_antialiasing_is_a_true_gaussian_along_the_axes_of_the_input(spacing):
    """Against SciPy: variance (k^2 - 1) / (8 ln 2) voxels, then linear interpolation."""
    image = mj.ScalarImage(blobs()[None], np.diag([1.0, 2, 1.5, 1]))
    ratio = np.array(spacing) / (1, 2, 1.5)
    got = mj.Resample(spacing, antialias=True)(image)
    smooth = gaussian_filter(blobs().astype(float), np.sqrt((ratio**2 - 1) / (8 * np.log(2))))
    at = [(n - 1) / 2 + (np.arange(m) - (m - 1) / 2) * r for n, m, r in zip(SHAPE, got.spatial_shape, ratio)]
    want = map_coordinates(smooth, np.meshgrid(*at, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(got.numpy()[0], want, atol=1e-5)


def test_w23_a_reference_with_other_axes_is_smoothed_along_the_right_ones():
    """The input's axis 0 gets coarser, which is axis 2 of the reference."""
    image = mj.ScalarImage(blobs()[None])
    affine = np.array([[0, 0, 3.0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    got = mj.Resample(((31, 18, 7), affine), antialias=True)(image).numpy()[0]
    smooth = gaussian_filter(blobs().astype(float), (np.sqrt(8 / (8 * np.log(2))), 0, 0))
    np.testing.assert_allclose(got, np.moveaxis(smooth[1:22:3], 0, 2), atol=1e-5)


def test_labels_are_not_smoothed_and_nothing_new_is_in_them():
    got = mj.Resample(3.1, antialias=True, label_interpolation="linear")(small_subject()).label
    assert got.dtype == np.uint8
    assert set(np.unique(got.numpy())) == {0, 1, 3}


def test_a_named_target_leaves_that_image_as_it_is():
    subject = small_subject().replace(t2=mj.ScalarImage(blobs((9, 8, 7))[None], OBLIQUE @ np.diag([2.0, 3, 2, 1])))
    got = mj.Resample("t2")(subject)
    np.testing.assert_array_equal(got.t2.numpy(), subject.t2.numpy())
    assert {image.spatial_shape for image in got.images.values()} == {(9, 8, 7)}


def test_the_spacing_that_is_there_changes_nothing():
    subject = small_subject()
    got = mj.Resample((1, 2, 1.5))(subject)
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())
    np.testing.assert_allclose(got.t1.affine, OBLIQUE, atol=1e-6)


def test_another_spacing_is_another_number_of_the_same_program():
    subject = small_subject(np.eye(4))
    t = mj.Compose([mj.Resample(1.5), mj.CropOrPad((12, 12, 12))])
    run = jax.jit(lambda t, subject: t(subject))
    for spacing in (1.5, 2.0, 1.25):
        t = mj.Compose([mj.Resample(spacing), mj.CropOrPad((12, 12, 12))])
        np.testing.assert_allclose(run(t, subject).t1.data, t(subject).t1.data, atol=1e-4)
    assert run._cache_size() == 1


NONSENSE = [0, -1, (1, 2), "t9", (1, 2, np.inf), ((3, 0, 3), np.eye(4)), ((3, 3, 3), np.zeros((4, 4)))]


@pytest.mark.parametrize("target", NONSENSE)
def test_targets_that_make_no_sense_are_refused(target):
    with pytest.raises(ValueError, match="target"):
        mj.Resample(target)(small_subject())
