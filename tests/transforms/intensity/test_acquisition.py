"""The resolution of a scanner against SciPy in float64, and what is drawn."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs
from scipy import stats
from scipy.ndimage import gaussian_filter1d

import medjax as mj

SHAPE = (23, 31, 18)
VOXEL = (1.0, 2.0, 1.5)  # of OBLIQUE
COUNT = 3000


def textbook(x, voxel, resolution, thickness, blur):
    """Each step of its own, axis after axis."""
    for axis, (v, r, t, b) in enumerate(zip(voxel, resolution, thickness, blur, strict=True)):
        n = x.shape[axis]
        sigma = (0.75 * min(r, t) / v if r > v else 0.5) * b
        x = gaussian_filter1d(x, sigma, axis) if sigma >= 1 / 8 else x
        count = max(int(n * min(v / r, 1) * (1 + 1e-9)), 1)
        factor = n / count
        sample = (n - 1) / 2 + (np.arange(count) - (count - 1) / 2) * factor
        samples = np.take(x, np.clip(np.floor(sample + 0.5 + 1e-4), 0, n - 1).astype(int), axis)
        at = (np.arange(n) - (n - 1) / 2) / factor + (count - 1) / 2
        x = np.apply_along_axis(lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, samples)
    return x


@pytest.mark.parametrize(
    "resolution, thickness, blur",
    [
        ((1, 2, 1.5), None, 1.0),
        ((0.5, 7.0, 1.5), (1, 3.0, 1), (1, 1.02, 0.97)),
        ((3.2, 2.9, 4.0), (2.0, 4.0, 0.1), 1.0),
        ((500, 30.0, 9.0), None, 0.4),
    ],
)
def test_it_is_the_formula(resolution, thickness, blur):
    x = blobs(SHAPE)
    got = mj.Acquisition(resolution, thickness, blur)(mj.ScalarImage(x[None], OBLIQUE)).numpy()[0]
    thick = resolution if thickness is None else thickness
    want = textbook(x.astype(float), VOXEL, resolution, thick, np.broadcast_to(blur, 3))
    np.testing.assert_allclose(got, want, atol=3e-6)


def test_a_constant_image_stays():
    got = np.asarray(mj.Acquisition((3, 5, 40))(np.full((1, *SHAPE), 7, np.float32)))
    np.testing.assert_allclose(got, 7, rtol=1e-5)


def test_a_long_line_with_a_short_and_with_a_wide_kernel():
    x = np.random.default_rng(0).normal(size=(1, 130, 5, 4)).astype(np.float32)
    for resolution in ((2.2, 1, 1), (9.5, 1, 1)):
        want = textbook(x[0].astype(float), (1, 1, 1), resolution, resolution, (1, 1, 1))
        np.testing.assert_allclose(np.asarray(mj.Acquisition(resolution)(x))[0], want, atol=1e-5)


def test_padding_has_no_part_in_it():
    image, t = mj.ScalarImage(blobs(SHAPE)[None], OBLIQUE), mj.Acquisition((3.2, 2.9, 4.0))
    got = t.batch(mj.stack([mj.Subject(t1=image)], shape=(32, 32, 32))).t1.data[0][:, :23, :31, :18]
    np.testing.assert_allclose(got, t(image).numpy(), atol=1e-5)


SUBJECT = mj.Subject(t1=mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), OBLIQUE))


@jax.jit
def draws(t, subject=SUBJECT):
    keys = jax.random.split(jax.random.key(0), COUNT)
    return jax.vmap(lambda key: t.sample(key, subject))(keys)["draw"]["t1"]


def uniform(values, low, high):
    return stats.kstest((values - low) / (high - low), "uniform").pvalue > 1e-3


def test_what_is_drawn():
    drawn = {n: np.asarray(v) for n, v in draws(mj.RandomAcquisition(4, 8, 0.3, 0.2)).items()}
    coarse = drawn["resolution"] > np.array(VOXEL) * 1.0001
    several, none = coarse.sum(1) > 1, ~coarse.any(1)
    for found, p in ((none, 0.2), (several, 0.8 * 0.3)):
        assert abs(found.mean() - p) < 4 * np.sqrt(p * (1 - p) / COUNT)
    one = coarse.sum(1) == 1
    assert stats.chisquare(coarse[one].sum(0)).pvalue > 1e-3
    for axis, voxel in enumerate(VOXEL):
        for among, high in ((several, 4), (one & coarse[:, axis], 8)):
            resolution = drawn["resolution"][among, axis]
            assert uniform(resolution, voxel, high)
            assert uniform(drawn["thickness"][among, axis], voxel, resolution)
        assert uniform(drawn["blur"][:, axis], 1 / 1.03, 1.03)
    np.testing.assert_allclose(drawn["resolution"][none], np.broadcast_to(VOXEL, (none.sum(), 3)), rtol=1e-4)
    np.testing.assert_allclose(drawn["thickness"][~coarse], drawn["resolution"][~coarse], rtol=1e-4)


def test_an_axis_of_one_voxel_is_not_drawn_and_large_voxels_stay():
    flat = mj.Subject(t1=mj.ScalarImage(np.zeros((1, 5, 6, 1), np.float32), np.diag([1.0, 10, 1, 1])))
    resolution = np.asarray(draws(mj.RandomAcquisition(p_isotropic=0), flat)["resolution"])
    np.testing.assert_allclose(resolution[:, 1:], [[10, 1]] * COUNT)
    assert resolution[:, 0].max() > 7


def test_each_channel_of_its_own_if_asked():
    x, key = np.stack([blobs(SHAPE)] * 2), jax.random.key(1)
    t = mj.RandomAcquisition(per_channel=True)
    drawn = t.sample(key, mj.Subject(image=mj.ScalarImage(x)))["draw"]["image"]
    got = np.asarray(t(x, key))
    for c in range(2):
        numbers = [np.asarray(drawn[n][c]) for n in ("resolution", "thickness", "blur")]
        np.testing.assert_allclose(got[c], np.asarray(mj.Acquisition(*numbers)(x[:1]))[0], atol=1e-5)
    assert np.abs(got[0] - got[1]).max() > 1e-2


@pytest.mark.parametrize("arguments", [dict(resolution=-1), dict(thickness=(1, 2)), dict(thickness=-1), dict(blur=-1)])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.Acquisition(**arguments)


@pytest.mark.parametrize("arguments", [dict(p_isotropic=2), dict(max_isotropic=-1), dict(blur=(2, 1))])
def test_ranges_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomAcquisition(**arguments)
