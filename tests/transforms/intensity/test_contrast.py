"""Contrast about the mean of each channel."""

import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from transforms.intensity.drawing import Halves, draws, follow

DATA = np.stack([blobs() * 3 - 1, blobs(seed=1) + 5])


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.9])
@pytest.mark.parametrize("preserve_range", [True, False])
def test_it_is_the_formula(factor, preserve_range):
    x = DATA.astype(float)
    mean = x.mean((1, 2, 3), keepdims=True)
    want = (x - mean) * factor + mean
    if preserve_range:
        want = np.clip(want, x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(mj.Contrast(factor, preserve_range)(DATA), want, atol=5e-6)


def test_a_constant_image_stays():
    flat = np.full((1, 5, 6, 7), 3.0, np.float32)
    np.testing.assert_allclose(mj.Contrast(2.0)(flat), flat, atol=1e-6)


def test_by_default_it_draws_as_nnunet_does():
    follow(draws(mj.RandomContrast(per_channel=True))["factor"], Halves((0.75, 1), (1, 1.25)))


def test_a_negative_factor_is_refused():
    with pytest.raises(ValueError, match="factor"):
        mj.Contrast(-1)
