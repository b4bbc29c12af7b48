"""Where Gamma does better than TorchIO 1.2.1."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject

import medjax as mj


@pytest.mark.parametrize("gamma", [0.6, 1.7])
def test_w31_the_inverse_brings_negative_voxels_back_too(gamma):
    data = 3 * blobs()[None] - 1
    there = mj.Gamma(gamma)(data)
    np.testing.assert_allclose(there, np.sign(data) * np.abs(data.astype(float)) ** gamma, atol=1e-5)
    np.testing.assert_allclose(mj.Gamma(1 / gamma)(there), data, atol=1e-5)


def test_w31_the_sign_is_that_of_each_voxel_and_no_channel_decides_for_it():
    data = np.concatenate([blobs()[None], blobs()[None] - 0.5])
    got = np.asarray(mj.Gamma(0.5)(data))
    np.testing.assert_allclose(got[0], np.sqrt(data[0]), atol=1e-6)
    np.testing.assert_allclose(got[1], np.sign(data[1]) * np.sqrt(np.abs(data[1])), atol=1e-6)


def test_each_channel_draws_its_own_unless_told_otherwise():
    image = mj.ScalarImage(np.stack([blobs()] * 3))
    own, one = (mj.RandomGamma(channelwise=c)(image, jax.random.key(0)).numpy() for c in (True, False))
    assert np.abs(own[0] - own[1]).max() > 1e-2
    np.testing.assert_array_equal(one[0], one[1])
    np.testing.assert_array_equal(one[0], one[2])


def test_labels_are_left_alone():
    subject = small_subject()
    np.testing.assert_array_equal(mj.Gamma(2.0)(subject).label.numpy(), subject.label.numpy())


@pytest.mark.parametrize("gamma", [0, -1, np.inf, (1, 2)])
def test_a_gamma_that_makes_no_sense_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma"):
        mj.Gamma(gamma)


def test_a_gradient_at_zero_is_finite():
    data = np.zeros((1, 23, 31, 18), np.float32)
    slope = jax.grad(lambda t: t(data, jax.random.key(0)).sum())(mj.Gamma(0.7))
    assert np.isfinite(slope.gamma)
    assert np.isfinite(jax.grad(lambda x: mj.Gamma(0.7)(x).sum())(data)).all()
