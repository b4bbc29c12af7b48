"""Noise: its distribution, and what its bits depend on."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats

import medjax as mj

SHAPE = (23, 31, 18)


def added(t, data, seed=0):
    return np.asarray(t(data, jax.random.key(seed))) - data


@pytest.mark.parametrize("seed", range(3))
def test_it_is_normal_and_independent_between_voxels_and_channels(seed):
    noise = added(mj.RandomNoise((2, 2), (3, 3)), np.zeros((2, *SHAPE), np.float32), seed)
    assert stats.kstest(noise.ravel(), stats.norm(2, 3).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    for axis in (1, 2, 3):
        first, second = (np.take(noise, range(i, noise.shape[axis] - 1 + i), axis).ravel() for i in (0, 1))
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_it_is_added_to_the_image():
    data, zeros = blobs()[None], np.zeros((1, *SHAPE), np.float32)
    t = mj.RandomNoise(0, (0.25, 0.25))
    np.testing.assert_allclose(added(t, data), added(t, zeros), atol=1e-6)


def test_the_seed_of_the_twin_decides():
    zeros = np.zeros((1, *SHAPE), np.float32)
    first, again, other = (np.asarray(mj.Noise(0, 1, seed)(zeros)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1


def test_a_new_image_changes_no_other_and_images_differ():
    subject = small_subject()
    more = mj.Subject(flair=subject.t1, **dict(subject.items()))
    key = jax.random.key(5)
    got, want = mj.RandomNoise()(more, key), mj.RandomNoise()(subject, key)
    np.testing.assert_array_equal(got.t1.numpy(), want.t1.numpy())
    assert np.abs(got.t1.numpy() - got.flair.numpy()).max() > 1e-3


def test_a_voxels_noise_does_not_depend_on_the_shape():
    small, large = (added(mj.RandomNoise(0, (1, 1)), np.zeros((1, *s), np.float32)) for s in (SHAPE, (25, 31, 20)))
    np.testing.assert_array_equal(small, large[:, :23, :, :18])


@pytest.mark.parametrize("arguments", [{"std": -1}, {"std": (0.3, 0.1)}, {"mean": np.nan}, {"mean": -1}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomNoise(**arguments)


def test_the_inverse_takes_gaussian_noise_away():
    subject, t = small_subject(), mj.RandomNoise(1, (1, 2), per_channel=True)
    params = t.sample(jax.random.key(3), subject)
    there = t.apply(subject, params)
    assert np.abs(there.t1.numpy() - subject.t1.numpy()).max() > 1
    np.testing.assert_allclose(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy(), atol=2e-6)


def test_rician_noise_is_the_magnitude_of_a_complex_signal():
    std, signal = 0.7, 1.3
    t = mj.Noise(0, std, 5, distribution="rician")
    background = np.asarray(t(np.zeros((1, 40, 41, 42), np.float32)), float).ravel()
    assert stats.kstest(background, stats.rayleigh(scale=std).cdf).pvalue > 1e-3
    np.testing.assert_allclose(background.mean(), std * np.sqrt(np.pi / 2), rtol=0.01)
    bright = np.asarray(t(np.full((1, 40, 41, 42), signal, np.float32)), float).ravel()
    assert stats.kstest(bright, stats.rice(signal / std, scale=std).cdf).pvalue > 1e-3


def test_rician_noise_of_nothing_is_the_magnitude_and_its_gradient_is_finite():
    data = blobs()[None] - 0.5
    t = mj.Noise(0, 0, distribution="rician")
    np.testing.assert_allclose(t(data), np.abs(data), atol=1e-6)
    assert np.isfinite(jax.grad(lambda x: t(x).sum())(np.zeros((1, *SHAPE), np.float32))).all()


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'rician'"):
        mj.RandomNoise(distribution="ricean")
