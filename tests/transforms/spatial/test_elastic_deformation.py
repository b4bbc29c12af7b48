"""Where ElasticDeformation does better than TorchIO 1.2.1, and what it keeps of it."""

import warnings

import jax
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj

SHAPE = (23, 31, 18)
COUNTS = (7, 6, 8)  # one shape of control points, so that the tests share programs


def drawn(t, seed=0):
    """Control points (n0, n1, n2, 3) of one draw."""
    return np.asarray(t.sample(jax.random.key(seed), small_subject())["draw"]["control_points"])


@pytest.mark.parametrize("locked", [0, 1, 2])
def test_w1_borders_are_locked_on_all_three_axes(locked):
    points = drawn(mj.RandomElasticDeformation(COUNTS, locked_borders=locked))
    moving = (points != 0).all(-1)
    want = np.zeros(COUNTS, bool)
    want[tuple(slice(locked, n - locked) for n in COUNTS)] = True
    np.testing.assert_array_equal(moving, want)


def test_w3_displacements_are_drawn_in_both_directions():
    reach = np.array([3.0, 2.0, 5.0])
    points = drawn(mj.RandomElasticDeformation(12, reach, locked_borders=0)).reshape(-1, 3)
    assert np.all(points.min(0) < -0.98 * reach) and np.all(points.max(0) > 0.98 * reach)
    assert np.all(np.abs(points) <= reach)


def half_spacing(counts, size=(23, 31, 18), spacing=(1.0, 2.0, 1.5)):
    """Half the distance of control points along the axes of a RAS image: s (N + 1/4) / (n - 3) / 2."""
    return np.array([s * (n + 0.25) / (c - 3) / 2 for s, n, c in zip(spacing, size, counts)])


@pytest.mark.parametrize("axis", range(3))
def test_w3_folding_is_warned_of_from_half_the_spacing_of_control_points(axis):
    subject = small_subject(np.diag([1.0, 2, 1.5, 1]))
    safe = half_spacing(COUNTS) * 0.999
    folding = np.where(np.arange(3) == axis, half_spacing(COUNTS) * 1.001, safe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mj.RandomElasticDeformation(COUNTS, safe)(subject, jax.random.key(0))
    with pytest.warns(UserWarning, match="max_displacement .* may fold"):
        mj.RandomElasticDeformation(COUNTS, folding)(subject, jax.random.key(0))
    with pytest.warns(UserWarning, match="half the spacing"):
        mj.ElasticDeformation(np.zeros((7, 6, 8, 3)), folding)(subject)


def test_folding_is_not_warned_of_where_the_coin_says_no():
    subject = small_subject(np.diag([1.0, 2, 1.5, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mj.RandomElasticDeformation(COUNTS, 40.0, p=0)(subject, jax.random.key(0))


@pytest.mark.parametrize("fill, options", [(0, {}), (9, {"default_pad_label": 9})])
def test_w5_labels_outside_are_zero_or_what_was_asked_for(fill, options):
    """In TorchIO they are the smallest label that is there, so 3."""
    label = np.full((1, *SHAPE), 3, np.uint8)
    points = np.zeros((*COUNTS, 3))
    points[..., 0] = 6.0  # everything is read 6 mm further left
    subject = mj.Subject(t1=mj.ScalarImage(blobs()[None], np.eye(4)), label=mj.LabelMap(label, np.eye(4)))
    got = mj.ElasticDeformation(points, **options)(subject)
    want = np.where(np.arange(23) < 6, fill, 3)[None, :, None, None]
    np.testing.assert_array_equal(got.label.numpy(), np.broadcast_to(want, label.shape))
    np.testing.assert_array_equal(got.t1.numpy()[:, :6], 0)


def test_w10_labels_keep_their_dtype_and_their_values():
    subject = small_subject()
    got = mj.ElasticDeformation(np.random.default_rng(0).uniform(-1, 1, (*COUNTS, 3)))(subject)
    assert got.label.dtype == np.uint8 and got.t1.dtype == np.float32
    assert set(np.unique(got.label.numpy())) == {0, 1, 3}
    assert np.any(got.label.numpy() != subject.label.numpy())


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAL"])
def test_w2_the_field_lies_in_the_world_whatever_the_orientation(codes):
    """One and the same content, stored along other axes, is deformed alike."""
    image = mj.ScalarImage(blobs((20, 20, 20))[None], np.diag([1.0, 2, 1.5, 1]))
    points = np.random.default_rng(0).uniform(-2, 2, (5, 6, 7, 3))
    t = mj.ElasticDeformation(points, default_pad_value="edge")  # the edge of the field of view is open on one side
    want = t(image)
    turned = reoriented(image, codes)
    assert "".join(turned.orientation) == codes
    got = reoriented(t(turned), "RAS")
    np.testing.assert_allclose(got.affine, want.affine, atol=1e-9)
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-4)


def reoriented(image, codes):
    """An image whose voxel axes run along `codes`, by nibabel."""
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(codes)
    )
    data = nibabel.orientations.apply_orientation(image.numpy()[0], turn)
    affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, image.spatial_shape)
    return mj.ScalarImage(np.ascontiguousarray(data)[None], affine)


def test_a_slice_is_not_moved_out_of_itself():
    image = mj.ScalarImage(blobs((23, 31, 1))[None], oriented("LPS"))
    points = np.full((5, 5, 5, 3), 1.5)
    got = mj.ElasticDeformation(points)(image).numpy()
    points[..., 2] = 0
    np.testing.assert_array_equal(got, mj.ElasticDeformation(points)(image).numpy())
    assert np.ptp(got) > 0.5


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="num_control_points"):
        mj.RandomElasticDeformation(3)
    with pytest.raises(ValueError, match="locked_borders=2 with 4"):
        mj.RandomElasticDeformation((7, 4, 7))
    with pytest.raises(ValueError, match="locked_borders=3"):
        mj.RandomElasticDeformation(locked_borders=3)
    with pytest.raises(ValueError, match="max_displacement"):
        mj.RandomElasticDeformation(max_displacement=-1)
    with pytest.raises(ValueError, match="control_points"):
        mj.ElasticDeformation(np.zeros((5, 5, 5)))


def test_no_displacement_changes_nothing():
    subject = small_subject(OBLIQUE)
    got = mj.ElasticDeformation(np.zeros((*COUNTS, 3)))(subject)
    np.testing.assert_allclose(got.t1.numpy(), subject.t1.numpy(), atol=2e-4)
    np.testing.assert_array_equal(got.label.numpy(), subject.label.numpy())
