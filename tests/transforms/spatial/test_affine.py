"""Where Affine does better than TorchIO 1.2.1, and what it keeps of it."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject
from scipy.ndimage import center_of_mass
from scipy.spatial.transform import Rotation

import medjax as mj

SHAPE = (23, 31, 18)


def where(image):
    """World position of the centre of mass of an image."""
    index = center_of_mass(image.numpy()[0].astype(float))
    return np.asarray(image.affine)[:3, :3] @ index + np.asarray(image.affine)[:3, 3]


def dot(affine, sigma=3.0, shape=SHAPE, at=(11.0, 15, 8)):
    """An image of a Gaussian, `sigma` mm wide, at a voxel."""
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T
    distance = ((world - affine[:3, :3] @ at) ** 2).sum(-1)
    return mj.ScalarImage(np.exp(-distance / (2 * sigma**2))[None].astype(np.float32), affine)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
def test_w7_a_translation_is_along_the_axes_of_the_world_whatever_the_orientation(codes):
    image = dot(oriented(codes), sigma=1.5)
    shift = np.array([2.5, -1.5, 1.25])
    np.testing.assert_allclose(where(mj.Affine(translation=shift)(image)) - where(image), shift, atol=0.02)


def test_w6_translation_is_scaled_and_scales_act_on_the_axes_of_the_world_after_rotation():
    """p_out = c + S (R (p_in - c) + t): TorchIO's contract, kept."""
    image = dot(np.eye(4), sigma=1.5, at=(9.0, 16, 9))
    scales, degrees, shift = np.array([1.2, 0.9, 1.1]), np.array([10.0, -15, 25]), np.array([1.0, -2, 0.5])
    rotation = Rotation.from_euler("yxz", degrees[[1, 0, 2]], degrees=True).as_matrix()
    middle = (np.array(SHAPE) - 1) / 2
    want = middle + scales * (rotation @ (np.array([9.0, 16, 9]) - middle) + shift)
    np.testing.assert_allclose(where(mj.Affine(scales, degrees, shift)(image)), want, atol=0.03)


@pytest.mark.parametrize("axis, first, second", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_a_rotation_is_right_handed_and_a_quarter_of_it_is_indexing(axis, first, second):
    data = blobs((9, 9, 9))
    degrees = [0, 0, 0]
    degrees[axis] = 90
    got = mj.Affine(degrees=degrees)(data[None])
    np.testing.assert_allclose(got[0], np.rot90(data, 1, (first, second)), atol=1e-5)


def test_w9_otsu_sees_a_background_of_zeros():
    data = np.zeros((1, *SHAPE), np.float32)
    data[:, :, :, 12:] = 10 + blobs((23, 31, 6))
    image = mj.ScalarImage(data, OBLIQUE)
    got = mj.Affine(degrees=(0, 0, 30), default_pad_value="otsu")(image).numpy()
    assert got[0, 0, 0, 0] == 0  # TorchIO gives the mean of the faces
    assert mj.Affine(degrees=(0, 0, 30), default_pad_value="mean")(image).numpy()[0, 0, 0, 0] > 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_w10_labels_keep_their_dtype_and_images_become_float32(dtype):
    subject = small_subject()
    whole, label = (subject.t1.numpy() * 100).astype(np.int16), subject.label.numpy().astype(dtype)
    subject = mj.Subject(t1=mj.ScalarImage(whole, OBLIQUE), label=mj.LabelMap(label, OBLIQUE))
    got = mj.Affine(degrees=10)(subject)
    assert got.label.dtype == dtype
    assert got.t1.dtype == np.float32
    assert set(np.unique(got.label.numpy())) == {0, 1, 3}


def test_w11_each_kind_of_image_has_its_own_fill():
    subject = small_subject()
    got = mj.Affine(translation=(15, 0, 0), default_pad_value=-5, default_pad_label=7)(subject)
    assert got.t1.numpy().min() == -5
    np.testing.assert_array_equal(got.label.numpy() == 7, got.t1.numpy() == -5)


def test_w24_linear_labels_are_the_vote_of_the_corners_and_none_lies_between():
    data = (4 * (blobs() > 0.5)).astype(np.uint8)[None]
    subject = mj.Subject(label=mj.LabelMap(data, OBLIQUE))
    got = mj.Affine(degrees=(10, 20, 30), label_interpolation="linear")(subject).label.numpy()
    share = mj.Affine(degrees=(10, 20, 30), default_pad_value=0)(mj.ScalarImage(data / np.float32(4), OBLIQUE)).numpy()
    clear = np.abs(share - 0.5) > 1e-4
    np.testing.assert_array_equal(got[clear], 4 * (share > 0.5)[clear])


@pytest.mark.parametrize("fill", [-1, 256, 0.5])
def test_w24_a_fill_that_a_label_map_cannot_hold_is_refused(fill):
    with pytest.raises(ValueError, match="'label' of uint8"):
        mj.Affine(degrees=3, default_pad_label=fill)(small_subject())


@pytest.mark.parametrize("pad", ["edge", "reflect"])
def test_an_image_can_be_continued_instead_of_filled(pad):
    data = blobs()[None]
    got = mj.Affine(translation=(-5, 0, 0), default_pad_value=pad)(data)
    want = np.pad(data, [(0, 0), (0, 5), (0, 0), (0, 0)], mode=pad)[:, 5:]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_slice_is_turned_in_its_plane_and_not_shifted_out_of_it():
    """In TorchIO a translation along the missing axis leaves an empty slice."""
    image = mj.ScalarImage(blobs((23, 31, 1))[None], np.eye(4))
    got = mj.Affine(degrees=(20, 30, 10), translation=(1, 2, 40), scales=(1, 1, 3))(image)
    want = mj.Affine(degrees=(0, 0, 10), translation=(1, 2, 0))(image)
    np.testing.assert_array_equal(got.numpy(), want.numpy())
    assert np.ptp(want.numpy()) > 0.5


def test_a_slice_of_any_orientation_is_turned_in_its_plane():
    data = blobs((23, 1, 31))
    got = mj.Affine(degrees=(20, 30, 10))(mj.ScalarImage(data[None], np.eye(4)))
    want = mj.Affine(degrees=(0, 30, 0))(mj.ScalarImage(data[None], np.eye(4)))
    np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_images_of_different_shapes_move_together_unless_that_is_refused():
    subject = mj.Subject(t1=dot(np.eye(4)), t2=dot(np.diag([2.0, 2, 2, 1]), shape=(12, 16, 9), at=(5.5, 7.5, 4)))
    turn = dict(degrees=(10, 20, -15), translation=(2, 0, 1))
    got = mj.Affine(**turn)(subject)
    np.testing.assert_allclose(where(got.t1), where(got.t2), atol=0.05)
    with pytest.raises(ValueError, match="check_shape"):
        mj.Affine(**turn, check_shape=True)(subject)


def test_isotropic_scales_are_one():
    t = mj.RandomAffine(scales=(0.5, 2), isotropic=True)
    scales = np.asarray(t.sample(jax.random.key(0), small_subject())["draw"]["scales"])
    assert scales[0] == scales[1] == scales[2] and 0.5 <= scales[0] <= 2
    for ok in (0.1, (0.9, 1.2)):
        mj.RandomAffine(scales=ok, isotropic=True)
    with pytest.raises(ValueError, match="isotropic"):
        mj.RandomAffine(scales=(0.1, 0.2, 0.3), isotropic=True)


def test_the_random_one_with_a_single_value_is_its_twin():
    subject = small_subject()
    got = mj.RandomAffine((1.1, 1.1), (12, 12), (3, 3))(subject, jax.random.key(0))
    want = mj.Affine(1.1, 12, 3)(subject)
    np.testing.assert_allclose(got.t1.numpy(), want.t1.numpy(), atol=1e-5)
    np.testing.assert_array_equal(got.t1.affine, subject.t1.affine)
