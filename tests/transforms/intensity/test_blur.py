"""Blur against scipy.ndimage.gaussian_filter."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs
from scipy.ndimage import gaussian_filter

import medjax as mj

SPACING = np.array([1, 2, 1.5])


@pytest.mark.parametrize("std", [(1.2, 1.2, 1.2), (0, 3, 0.5), (4, 0, 11)])
def test_it_is_scipys_in_mm(std):
    data = blobs()[None]
    got = mj.Blur(std)(mj.ScalarImage(data, OBLIQUE)).numpy()
    np.testing.assert_allclose(got[0], gaussian_filter(data[0].astype(float), np.array(std) / SPACING), atol=2e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_w32_whole_numbers_become_float32_and_are_not_truncated(dtype):
    data = (blobs() * 200).astype(dtype)[None]
    got = mj.Blur(1.5)(mj.ScalarImage(data, OBLIQUE))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.numpy()[0], gaussian_filter(data[0].astype(float), 1.5 / SPACING), atol=1e-3)


def test_the_variances_of_two_blurs_add():
    dot = np.zeros((1, 33, 33, 33), np.float32)
    dot[:, 16, 16, 16] = 1
    twice, once = mj.Blur(2.0)(mj.Blur(1.5)(dot)), mj.Blur(2.5)(dot)
    np.testing.assert_allclose(twice, once, atol=2e-5)


def test_nothing_is_gained_or_lost():
    data = blobs()[None]
    np.testing.assert_allclose(np.asarray(mj.Blur(3.0)(data), float).sum(), data.sum(dtype=float), rtol=1e-5)


def test_no_blur_changes_nothing():
    data = blobs()[None]
    np.testing.assert_array_equal(mj.Blur(0)(data), data)


@pytest.mark.parametrize("std", [-1, (1, 2), (1, 2, -3), np.nan])
def test_a_width_that_makes_no_sense_is_refused(std):
    with pytest.raises(ValueError, match="std"):
        mj.Blur(std)
