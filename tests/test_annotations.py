"""Points go where the content goes; directions turn with it."""

import pickle

import jax
import numpy as np
import pytest
from conftest import OBLIQUE

import medjax as mj

KEY = jax.random.key(2)
SHAPE = (41, 25, 31)


def bump(affine=OBLIQUE, at=(22.0, 11.0, 17.0)):
    """A subject with a Gaussian bump and a point at its centre."""
    affine = np.asarray(affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    centre = affine[:3, :3] @ at + affine[:3, 3]
    data = np.exp(-((world - centre) ** 2).sum(-1) / (2 * 2.5**2))
    return mj.Subject(t1=mj.ScalarImage(data[None].astype(np.float32), affine), p=mj.Points([centre], ["ac"]))


def centroid(image):
    """World position of the centre of mass."""
    data, affine = image.numpy()[0].astype(np.float64), np.asarray(image.affine, np.float64)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in data.shape), indexing="ij"), -1)
    mean = (index * data[..., None]).sum((0, 1, 2)) / data.sum()
    return affine[:3, :3] @ mean + affine[:3, 3]


@pytest.mark.parametrize(
    "t",
    [
        mj.RandomAffine(scales=0.1, degrees=15, translation=3, shears=0.05, default_pad_value=0),
        mj.RandomElasticDeformation(num_control_points=7, max_displacement=3.0, default_pad_value=0),
        mj.RandomFlip((0, 1, 2), flip_probability=1.0),
        mj.Compose([mj.RandomElasticDeformation(num_control_points=6, max_displacement=1.0), mj.RandomAffine(degrees=5), mj.CropOrPad((36, 25, 28))]),
        mj.Resample(1.0),
        mj.Crop((3, 0, 2)),
        mj.ToOrientation("SAR"),
        mj.ToReferenceSpace(((20, 20, 20), np.diag([2.0, 2.0, 2.0, 1.0]))),
    ],
    ids=lambda t: type(t).__name__,
)  # fmt: skip
def test_points_go_where_the_content_goes(t):
    subject = bump()
    result = t(subject, KEY)
    reference = np.abs(centroid(subject.t1) - subject.p.xyz[0]).max()
    assert reference < 0.05
    assert np.abs(centroid(result.t1) - np.asarray(result.p.xyz[0])).max() < 0.25
    assert result.p.labels == ("ac",)


def test_a_batch_of_points_equals_each_alone():
    subjects = [bump(at=(20.0, 12.0, 14.0)), bump()]
    t = mj.Compose([mj.RandomAffine(), mj.RandomNoise(), mj.RandomFlip()])
    keys = jax.random.split(KEY, 2)
    result = mj.unstack(t.batch(mj.stack(subjects), keys))
    for one, subject, key in zip(result, subjects, keys, strict=True):
        np.testing.assert_allclose(one.p.xyz, t(subject, key).p.xyz, atol=1e-3)
        assert one.p.labels == ("ac",)


def test_a_gate_that_is_closed_leaves_points():
    subject = bump()
    np.testing.assert_array_equal(mj.RandomAffine(p=0.0)(subject, KEY).p.xyz, subject.p.xyz)


def test_directions_turn_by_the_rotation_and_flip_with_the_image():
    vectors = np.random.default_rng(0).normal(size=(6, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    subject = bump().replace(bvecs=mj.Directions(vectors))
    turned = mj.Affine(degrees=(0, 0, 90), scales=(1.1, 1.1, 1.1), translation=5)(subject).bvecs.xyz
    expected = vectors @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]).T
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    flipped = mj.Flip("LR")(bump(np.diag([2.0, 1.0, 1.0, 1.0])).replace(bvecs=mj.Directions(vectors))).bvecs.xyz
    np.testing.assert_allclose(flipped, vectors * (-1, 1, 1), atol=1e-5)
    squeezed = np.asarray(mj.Affine(scales=(1.4, 0.7, 1.0), degrees=(10, 5, 30))(subject).bvecs.xyz)
    np.testing.assert_allclose(np.linalg.norm(squeezed, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(mj.ToOrientation("LPS")(subject).bvecs.xyz, subject.bvecs.xyz)


def test_fsl_vectors_round_trip_and_mean_what_fsl_means():
    vectors = np.random.default_rng(1).normal(size=(3, 9))
    for affine in (OBLIQUE, np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])):
        there = mj.Directions.from_fsl(vectors, affine)
        np.testing.assert_allclose(there.to_fsl(affine), vectors, atol=1e-6)
    # A radiological image (det < 0) has its x toward the left: FSL's +x is world -x; so it is for a neurological one.
    for affine in (np.diag([-2.0, 2, 2, 1]), np.diag([2.0, 2, 2, 1])):
        np.testing.assert_allclose(mj.Directions.from_fsl(np.eye(3), affine).xyz[0], (-1, 0, 0), atol=1e-6)


def test_boxes_from_their_corners():
    subject = bump().replace(box=mj.Points.of_box((0, 1, 2), (3, 5, 7)))
    low, high = mj.Affine(translation=(1, 0, -1))(subject).box.box()
    np.testing.assert_allclose(low, (1, 1, 1), atol=1e-4)
    np.testing.assert_allclose(high, (4, 5, 6), atol=1e-4)


def test_they_are_leaves_pickle_and_refuse_what_does_not_fit():
    subject = bump()
    assert len(jax.tree.leaves(subject)) == 3
    again = pickle.loads(pickle.dumps(subject))
    np.testing.assert_array_equal(again.p.xyz, subject.p.xyz)
    with pytest.raises(ValueError, match=r"xyz must have shape \(N, 3\)"):
        mj.Points([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="labels must hold one"):
        mj.Points(np.zeros((2, 3)), ["a"])
    with pytest.raises(AttributeError, match="immutable"):
        subject.p.xyz = 1
    other = subject.replace(p=mj.Points(np.zeros((2, 3))))
    with pytest.raises(ValueError, match="do not stack"):
        mj.stack([subject, other])
