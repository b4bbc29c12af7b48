"""Where Gamma does better than TorchIO 1.2.1."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import Halves, draws, follow


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


def rescaled(x, gamma, invert, retain):
    """The power of the range of a channel, in float64."""
    x = -x if invert else x
    low, width = x.min(), np.ptp(x)
    y = ((x - low) / width) ** gamma * width + low
    if retain:
        y = (y - y.mean()) / y.std() * x.std() + x.mean()
    return -y if invert else y


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("retain", [False, True])
def test_rescaled_it_is_the_power_of_the_range_of_each_channel(invert, retain):
    data = np.stack([3 * blobs() - 1, blobs(seed=1) + 7])
    got = np.asarray(mj.Gamma(1.4, rescale=True, invert_image=invert, retain_stats=retain)(data))
    for one, x in zip(got, data.astype(float), strict=True):
        np.testing.assert_allclose(one, rescaled(x, 1.4, invert, retain), atol=2e-5)


def test_rescaled_a_constant_image_stays():
    flat = np.full((1, 5, 6, 7), 3.0, np.float32)
    np.testing.assert_allclose(mj.Gamma(1.4, rescale=True, retain_stats=True)(flat), flat, atol=1e-6)


def test_the_inverse_is_the_root():
    subject = small_subject()
    subject = subject.replace(t1=subject.t1.replace(data=3 * subject.t1.numpy() - 1))
    for t in (mj.RandomGamma((0.3, 0.5)), mj.Gamma(0.6)):
        params = t.sample(jax.random.key(0), subject)
        there = t.apply(subject, params)
        assert np.abs(there.t1.numpy() - subject.t1.numpy()).max() > 0.1
        np.testing.assert_allclose(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy(), atol=1e-5)


def test_what_is_drawn():
    follow(draws(mj.RandomGamma(gamma=((0.7, 1), (1, 1.5))))["gamma"], Halves((0.7, 1), (1, 1.5)))
    follow(draws(mj.RandomGamma(log_std=0.5))["log_gamma"], stats.norm(0, 0.5))


NONSENSE = [
    {"log_std": -1}, {"log_std": (1, 2)}, {"log_std": 1, "gamma": 2}, {"invert_image": True}, {"retain_stats": True}
]  # fmt: skip


@pytest.mark.parametrize("arguments", NONSENSE)
def test_options_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomGamma(**arguments)


@pytest.mark.parametrize("flat", [True, False])
def test_rescaled_gradients_are_finite(flat):
    data = np.ones((1, 5, 6, 7), np.float32) if flat else blobs((5, 6, 7))[None]
    t = mj.Gamma(0.7, rescale=True, invert_image=True, retain_stats=True)
    by_t, by_x = jax.grad(lambda t, x: (t(x, jax.random.key(0)) ** 2).sum(), (0, 1))(t, data)
    assert np.isfinite(by_t.gamma) and np.isfinite(by_x).all()
