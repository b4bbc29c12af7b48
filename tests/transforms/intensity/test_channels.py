"""What is drawn for each channel, and the coin that leaves channels out."""

import jax
import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from transforms.intensity.drawing import Halves, between, draws, follow, frequency

IMAGE = np.stack([blobs(seed=s) + 1 for s in range(6)])
CHANGED = {
    "noise": mj.RandomNoise(1, per_channel=True, p_per_channel=0.5),
    "gamma": mj.RandomGamma((0.2, 0.3), p_per_channel=0.5),
    "nnunet gamma": mj.RandomGamma(gamma=2, rescale=True, invert_image=True, retain_stats=True, p_per_channel=0.5),
    "blur": mj.RandomBlur((1, 2), per_channel=True, p_per_channel=0.5),
    "brightness": mj.RandomBrightness(per_channel=True, p_per_channel=0.5),
    "contrast": mj.RandomContrast(per_channel=True, p_per_channel=0.5),
    "low resolution": mj.RandomLowResolution((0.3, 0.7), per_channel=True, p_per_channel=0.5),
}


@pytest.mark.parametrize("name", CHANGED)
def test_channels_that_lost_their_coin_are_left_as_they_are(name):
    t, key = CHANGED[name], jax.random.key(1)
    params = t.sample(key, mj.ScalarImage(IMAGE))
    chosen = np.asarray(params["draw"]["image"]["channels"])
    assert 0 < chosen.sum() < 6
    got = np.asarray(t(IMAGE, key))
    np.testing.assert_array_equal((got != IMAGE).any((1, 2, 3)), chosen)


def test_each_channel_has_a_coin_of_its_own():
    for p in (0.0, 0.3, 1.0):
        frequency(draws(mj.RandomContrast(p_per_channel=p), channels=3)["channels"], p)


def test_per_channel_draws_for_each_and_else_once():
    drawn = draws(mj.RandomNoise((1, 2), (3, 5), per_channel=True), channels=3)
    assert drawn["std"].shape[1] == 3
    follow(drawn["std"], between(3, 5))
    follow(drawn["mean"], between(1, 2))
    assert draws(mj.RandomNoise())["std"].ndim == 1


@pytest.mark.parametrize("factor", [0.5, (0.5, 2), ((0.5, 1), (1, 2))])
def test_a_number_a_pair_or_one_of_two_pairs(factor):
    values = draws(mj.RandomContrast(factor, per_channel=True))["factor"]
    if factor == 0.5:
        np.testing.assert_array_equal(values, 0.5)
    else:
        follow(values, Halves(*factor) if np.ndim(factor) == 2 else between(*factor))


@pytest.mark.parametrize("factor", [(1, 2, 3), (2, 1), (-1, 1), ((1, 2), (3, 2)), np.nan, None])
def test_ranges_that_make_no_sense_are_refused(factor):
    with pytest.raises((ValueError, TypeError), match="factor"):
        mj.RandomContrast(factor)


@pytest.mark.parametrize("first, second", [(2, 3), (3, 2), (1, 4), (4, 1)])
def test_shared_numbers_serve_images_of_any_number_of_channels(first, second):
    subject = mj.Subject(t1=mj.ScalarImage(IMAGE[:first]), t2=mj.ScalarImage(IMAGE[:second]))
    steps = [mj.RandomContrast(((0.5, 0.6), (1.5, 1.6)), False, per_channel=True, shared=True)]
    got = mj.Compose([*steps, mj.RandomNoise(shared=True)])(subject, jax.random.key(0))
    common = min(first, second)
    np.testing.assert_allclose(got.t1.numpy()[:common], got.t2.numpy()[:common], atol=1e-6)
    assert np.isfinite(got.t2.numpy()).all()


def test_after_a_step_that_takes_channels_away_the_first_are_meant():
    series = mj.Compose([mj.PCA(2), mj.RandomGamma(), mj.RandomContrast(per_channel=True, p_per_channel=0.5)])
    assert np.isfinite(series(IMAGE, jax.random.key(0))).all()
