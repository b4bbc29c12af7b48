"""A power in a part of the image, against the formula in NumPy float64."""

import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from transforms.intensity.drawing import Halves, between, draws, follow
from transforms.intensity.test_brightness_gradient import DATA, PLACES, bump


@pytest.mark.parametrize("location, scale", PLACES)
@pytest.mark.parametrize("gamma", [0.05, 3.3])
def test_it_blends_the_image_with_its_power(location, scale, gamma):
    x = DATA.astype(float) - 0.5
    low, width = x.min((1, 2, 3), keepdims=True), np.ptp(x, (1, 2, 3), keepdims=True)
    unit, b = (x - low) / width, bump(location, scale)
    want = (unit * (1 - b) + unit**gamma * b) * width + low
    got = mj.LocalGamma(gamma, location, scale)(DATA - np.float32(0.5))
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_constant_image_and_a_gamma_of_1_change_nothing():
    flat = np.full((1, 5, 6, 7), 3.0, np.float32)
    np.testing.assert_allclose(mj.LocalGamma(2.0)(flat), flat, atol=1e-6)
    np.testing.assert_allclose(mj.LocalGamma(1.0)(blobs()[None]), blobs()[None], atol=1e-6)


def test_what_is_drawn():
    drawn = draws(mj.RandomLocalGamma(per_channel=True))
    follow(drawn["gamma"], Halves((0.01, 0.8), (1.5, 4)))
    follow(drawn["location"], between(-0.5, 1.5))
    follow(drawn["log_scale"], between(-np.log(6), 0))


def test_a_gamma_of_0_is_refused():
    with pytest.raises(ValueError, match="gamma"):
        mj.RandomLocalGamma(0)
