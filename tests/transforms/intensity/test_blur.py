"""Blur against scipy.ndimage.gaussian_filter."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs
from scipy.ndimage import correlate1d, gaussian_filter

import medjax as mj
from transforms.intensity.drawing import between, draws, follow

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


def test_in_voxels_the_spacing_does_not_matter():
    data = blobs()[None]
    got = mj.Blur((0.7, 1.5, 0.3), units="voxels")(mj.ScalarImage(data, OBLIQUE)).numpy()
    np.testing.assert_allclose(got[0], gaussian_filter(data[0].astype(float), (0.7, 1.5, 0.3)), atol=2e-6)


@pytest.mark.parametrize("sigma", [(0.5, 0.58, 0.59), (0.91, 0.92, 1.0), (0.3, 1.6, 2.7)])
def test_nnunets_kernel_has_an_odd_width_near_6_sigma_and_mirrors_about_voxel_centres(sigma):
    data = blobs()
    want = data.astype(float)
    for axis, s in enumerate(sigma):
        width = 6 * s + 0.5
        width = 2 * int(width // 2) + 1  # the nearest odd number
        weights = np.exp(-0.5 * (np.arange(width) - width // 2) ** 2 / s**2)
        want = correlate1d(want, weights / weights.sum(), axis, mode="mirror")
    got = np.asarray(mj.Blur(sigma, units="voxels", kernel="nnunet")(data[None]))[0]
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_each_channel_has_its_own():
    data = np.stack([blobs(seed=s) for s in range(3)])
    t = mj.RandomBlur((0.5, 3), units="voxels", per_channel=True)
    params = t.sample(jax.random.key(0), mj.ScalarImage(data))
    got = np.asarray(t.apply(data, params))
    for one, x, std in zip(got, data, np.asarray(params["draw"]["image"]["std"]), strict=True):
        np.testing.assert_allclose(one, gaussian_filter(x.astype(float), std), atol=2e-6)


def test_isotropic_and_per_channel_draws():
    std = draws(mj.RandomBlur((0.3, 1.5), isotropic=True, per_channel=True))["std"]
    np.testing.assert_array_equal(std[..., :1] + np.zeros(3), std)
    follow(std[..., 0], between(0.3, 1.5))
    follow(draws(mj.RandomBlur((0.5, 1), per_channel=True))["std"], between(0.5, 1))
    with pytest.raises(ValueError, match="Did you mean 'voxels'"):
        mj.RandomBlur(units="voxel")
