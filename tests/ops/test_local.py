"""Neighbourhoods and bumps, against SciPy and NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from medjax.ops import local

SHAPE = (2, 17, 14, 19)
EXTENT = jnp.array(SHAPE[1:], jnp.int32)
X = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)

median = jax.jit(local.median, static_argnums=2)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6])
def test_median_is_scipys(size):
    x = X.copy()
    x[0, :5] = 0  # ties
    x[0, 7:9] = -0.0
    x[1, 3, 4, 5] = np.inf
    want = np.stack([ndimage.median_filter(channel, size=size) for channel in x])
    np.testing.assert_array_equal(median(x, EXTENT, size), want)


@pytest.mark.parametrize("shape", [(1, 20, 30, 1), (2, 1, 1, 9), (1, 3, 2, 5)])
def test_median_of_thin_volumes_is_scipys(shape):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    want = np.stack([ndimage.median_filter(channel, size=5) for channel in x])
    np.testing.assert_array_equal(median(x, jnp.array(shape[1:], jnp.int32), 5), want)


def test_median_reads_nothing_beyond_the_extent():
    x = np.full(SHAPE, 1e9, np.float32)
    x[:, :12, :13, :9] = X[:, :12, :13, :9]
    got = np.asarray(median(x, jnp.array((12, 13, 9), jnp.int32), 4))[:, :12, :13, :9]
    want = np.stack([ndimage.median_filter(channel[:12, :13, :9], size=4) for channel in X])
    np.testing.assert_array_equal(got, want)


def test_the_gradient_of_a_median_goes_to_the_voxel_that_it_is():
    with jax.enable_x64():
        x = np.random.default_rng(2).normal(size=(1, 6, 5, 7))
        weights = np.random.default_rng(3).normal(size=x.shape)
        extent = jnp.array(x.shape[1:], jnp.int32)
        slope = jax.grad(lambda x: (local.median(x, extent, 3) * weights).sum())(x)
        y = ndimage.median_filter(x[0], size=3)
        want = np.zeros_like(x)
        for value, weight in zip(y.ravel(), weights.ravel(), strict=True):
            want[x == value] += weight
        np.testing.assert_allclose(slope, want, atol=1e-12)


def test_numbers_of_floats_come_back():
    values = np.array([0, -0.0, 1e-30, -1e30, 1.5, -1.5, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(local.from_ordinal(local.ordinal(jnp.asarray(values)), jnp.float32), values)


def test_laplacian_is_the_difference_from_the_neighbours():
    kernel = -ndimage.generate_binary_structure(3, 1).astype(float)
    kernel[1, 1, 1] = 6
    want = np.stack([ndimage.correlate(channel.astype(float), kernel, mode="nearest") for channel in X])
    np.testing.assert_allclose(local.laplacian(jnp.asarray(X), EXTENT), want, atol=1e-5)
    x = np.full(SHAPE, np.nan, np.float32)
    x[:, :12, :13, :9] = X[:, :12, :13, :9]
    got = np.asarray(local.laplacian(jnp.asarray(x), jnp.array((12, 13, 9), jnp.int32)))[:, :12, :13, :9]
    want = np.stack([ndimage.correlate(c[:12, :13, :9].astype(float), kernel, mode="nearest") for c in X])
    np.testing.assert_allclose(got, want, atol=1e-5)


def bump(center, scale, shape):
    """The formula, in float64."""
    lines = [np.diff(stats.norm.cdf(np.arange(n + 1) - 0.5, c, s)) for n, c, s in zip(shape, center, scale)]
    values = np.einsum("i,j,k->ijk", *lines)
    values -= values.min()
    return values / values.max()


PLACES = [((8, 7, 9), (4, 3, 6)), ((-8, 21, 9.3), (5, 9, 12)), ((0, 13.4, 30), (17, 14, 4))]


@pytest.mark.parametrize("center, scale", PLACES)
def test_a_bump_goes_from_0_to_1_and_its_mean_is_known(center, scale):
    center, scale = (jnp.array([v], jnp.float32) for v in (center, scale))
    want = bump(center[0], scale[0], SHAPE[1:])
    got, mean = local.gaussian_bump(center, scale, SHAPE[1:], extent=EXTENT)
    np.testing.assert_allclose(got[0], want, atol=2e-5)
    np.testing.assert_allclose(mean.item(), want.mean(), atol=2e-5)
    box = local.gaussian_bump(center, scale, (4, 5, 6), extent=EXTENT, offset=(3, 2, 9))
    np.testing.assert_allclose(box[0][0], want[3:7, 2:7, 9:15], atol=2e-5)
    np.testing.assert_allclose(box[1].item(), want.mean(), atol=2e-5)


def test_a_bump_that_is_nowhere_is_0():
    center = jnp.full((1, 3), -1e4, jnp.float32)
    values, mean = local.gaussian_bump(center, jnp.ones((1, 3)), SHAPE[1:], extent=EXTENT)
    assert not values.any() and mean.item() == 0
    one = local.gaussian_bump(jnp.zeros((1, 3)), jnp.ones((1, 3)), (1, 1, 1), extent=(1, 1, 1))
    assert one[0].item() == 0


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    arguments = jax.ShapeDtypeStruct(SHAPE, jnp.float32), jax.ShapeDtypeStruct((3,), jnp.int32)
    jax.export.export(jax.jit(lambda x, e: local.median(x, e, 3)), platforms=[platform])(*arguments)
