"""Nothing that a transform does hangs on where the world's origin is, however far."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.transforms.near import brought_near

SHAPE = (14, 13, 12)
FAR = np.array([1e6, -3e5, 2e6])
"""Of an image of 1 mm: in float32 a position there is known to an eighth of a millimetre."""
SPACE = np.array([[0.8, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 1.3, 0], [0, 0, 0, 1]])
SPACE[:3, 3] = (OBLIQUE @ [4, 3, 3, 1])[:3]


def moved(affine, offset):
    shifted = np.array(affine, np.float64)
    shifted[..., :3, 3] += offset
    return shifted


def subject_at(offset, seed=0):
    subject = small_subject(OBLIQUE, SHAPE, seed)
    images = {n: image.replace(affine=moved(image.affine, offset)) for n, image in subject.images.items()}
    coarse = mj.Resample(2.0)(subject.t1)
    return mj.Subject(images, coarse=coarse.replace(affine=moved(coarse.affine, offset)), age=3)


PIPELINES = [
    lambda offset: mj.Compose(
        [mj.RandomAffine(translation=2), mj.RandomElasticDeformation(5, 1.0), mj.RandomFlip((0, 1)), mj.Crop(1)]
    ),
    lambda offset: mj.Compose([mj.Resample(((9, 8, 10), moved(SPACE, offset))), mj.RandomNoise(), mj.Pad(1)]),
    lambda offset: mj.Compose([mj.RandomMotion(), mj.Resample("coarse"), mj.Crop(1)]),
    lambda offset: mj.Compose([mj.RandomDiffeomorphicDeformation(3, 2.0), mj.Pad(2)]),
]


@pytest.mark.parametrize("make", PIPELINES)
def test_a_subject_far_away_is_transformed_as_one_that_is_near(make):
    near, far = make(0), make(FAR)
    subjects = [subject_at(0, seed) for seed in range(2)], [subject_at(FAR, seed) for seed in range(2)]
    keys = jax.random.split(jax.random.key(2), 2)
    batch = mj.unstack(far.batch(mj.stack(subjects[1]), keys))
    for i, key in enumerate(keys):
        want, got = near(subjects[0][i], key), far(subjects[1][i], key)
        replayed = far.apply(subjects[1][i], far.sample(key, subjects[1][i]))
        for result in (got, batch[i], replayed):
            assert result.age == 3
            for name, image in want.images.items():
                np.testing.assert_allclose(result[name].affine, moved(image.affine, FAR), rtol=0, atol=1e-6)
                a, b = np.asarray(image.data), np.asarray(result[name].data)
                if name == "label":
                    assert (a != b).mean() < 5e-3  # ties
                else:
                    np.testing.assert_allclose(a, b, atol=2e-4 * np.ptp(a))


def test_the_way_back_and_points():
    t = mj.Compose([mj.RandomAffine(degrees=10), mj.RandomElasticDeformation(5, 1.0), mj.Crop(1)])
    key = jax.random.key(0)
    results = []
    for offset in (0, FAR):
        subject = subject_at(offset)
        corner = np.asarray(subject.t1.affine[:3, 3])
        subject = subject.replace(mark=mj.Points(corner + np.zeros((1, 3))))
        params = t.sample(key, subject)
        there = t.apply(subject, params)
        back = t.invert(there, params, like=subject)
        np.testing.assert_allclose(back.t1.affine, subject.t1.affine, atol=1e-9)
        results.append(
            (back.t1.numpy(), np.asarray(there.mark.xyz, float) - corner, np.asarray(back.mark.xyz) - corner)
        )
    (one, mark, home), (other, far_mark, far_home) = results
    np.testing.assert_allclose(one, other, atol=2e-4)
    step = np.spacing(np.float32(2e6))  # points are float32
    np.testing.assert_allclose(mark, far_mark, atol=step)
    assert np.abs(home).max() < 0.05 and np.abs(far_home).max() < 2 * step


def test_what_turns_about_the_origin_still_does():
    image = mj.ScalarImage(np.zeros((1, 5, 5, 5), np.float32), moved(np.eye(4), (6000, 0, 0)))
    subject = mj.Subject(x=image, mark=mj.Points([[6000.0, 0, 0]]))
    turned = mj.Affine(degrees=(0, 0, 90), center="origin")(subject)
    np.testing.assert_allclose(turned.mark.xyz, [[0, 6000, 0]], atol=1e-2)


def test_near_the_origin_nothing_is_moved():
    """So that a program of the user's own, which gets affines as they are, gives the same."""
    t, subject = mj.Compose([mj.RandomAffine()]), small_subject(OBLIQUE, SHAPE)
    one, other, offset = brought_near(t, subject)
    assert one is t and other is subject and offset is None


def test_patches_of_a_queue_lie_where_their_volume_does():
    t = mj.Compose([mj.ZNormalization(), mj.RandomAffine(translation=2), mj.RandomFlip(0)])
    got = {}
    for name, offset in (("near", 0), ("far", FAR)):
        data = mj.SubjectsDataset(
            [subject_at(offset).replace(coarse=None, mark=mj.Points(np.zeros((1, 3)) + offset))], t
        )
        got[name] = next(iter(mj.PatchQueue(data, mj.UniformSampler(6), 3, jax.random.key(0), samples_per_volume=3)))
    np.testing.assert_array_equal(got["near"][mj.LOCATION], got["far"][mj.LOCATION])
    np.testing.assert_allclose(got["far"].t1.affine, moved(got["near"].t1.affine, FAR), rtol=0, atol=1e-4)
    np.testing.assert_allclose(got["far"].t1.data, got["near"].t1.data, atol=1e-3)
    np.testing.assert_allclose(got["far"].mark.xyz, np.asarray(got["near"].mark.xyz) + FAR, atol=0.3)
