"""Operators along one axis, against NumPy and scipy.ndimage in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from medjax.ops import axis

SHAPE = (2, 19, 33, 26)
RNG = np.random.default_rng(0)
X = RNG.normal(size=SHAPE).astype(np.float32)
EXTENT = jnp.array(SHAPE[1:], jnp.int32)
SIGMAS = [(0, 0, 0), (0.3, 0, 1.9), (2, 2, 2), (0.124, 0.125, 2.12), (2.13, 1, 0), (6, 3, 0.5), (40, 1, 12)]


@jax.jit
def blur(x, sigma, extent=EXTENT):
    return axis.gaussian_blur(x, sigma, extent=extent)


def scipys(x, sigma):
    sigma = np.asarray(sigma, np.float32).astype(float)
    return np.stack([gaussian_filter(channel.astype(float), sigma, mode="reflect") for channel in x])


def floats(sigma, dtype=np.float32):
    return np.asarray(sigma, dtype)


@pytest.mark.parametrize("along", [0, 1, 2, 3, -1, -2])
@pytest.mark.parametrize("size", [1, 30])
def test_correlate_is_a_product_along_the_axis(along, size):
    matrix = RNG.normal(size=(size, SHAPE[along])).astype(np.float32)
    want = np.moveaxis(np.tensordot(matrix.astype(float), X.astype(float), (1, along)), 0, along)
    np.testing.assert_allclose(axis.correlate(jnp.asarray(X), along, jnp.asarray(matrix)), want, atol=1e-4)


@pytest.mark.parametrize("along", [1, 2, 3])
def test_a_band_is_the_matrix_it_stands_for(along):
    size, reach = SHAPE[along], 3
    band = RNG.normal(size=(size, 2 * reach + 1)).astype(np.float32)
    matrix = np.zeros((size, size + 2 * reach), np.float32)
    for i in range(size):
        matrix[i, i : i + 2 * reach + 1] = band[i]
    want = axis.correlate(jnp.asarray(X), along, jnp.asarray(matrix[:, reach:-reach]))
    np.testing.assert_allclose(axis.correlate_near(jnp.asarray(X), along, jnp.asarray(band)), want, atol=1e-5)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_blur_is_scipys(sigma):
    np.testing.assert_allclose(blur(X, floats(sigma)), scipys(X, sigma), atol=1e-5 * np.ptp(X))


@pytest.mark.parametrize("shape", [(1, 20, 30, 1), (2, 1, 1, 40), (1, 3, 2, 5)])
@pytest.mark.parametrize("sigma", [(1.5, 2, 2), (4, 0.5, 9)])
def test_blur_of_thin_volumes_is_scipys(shape, sigma):
    # scipy mirrors as often as it takes, so do we.
    x = RNG.normal(size=shape).astype(np.float32)
    got = blur(x, floats(sigma), jnp.array(shape[1:], jnp.int32))
    np.testing.assert_allclose(got, scipys(x, sigma), atol=1e-5 * np.ptp(x))


def test_blur_by_less_than_an_eighth_is_the_identity():
    x = X.copy()
    x[0, 3, 4, 5] = 1e30
    np.testing.assert_array_equal(blur(x, floats([0, 0.1, 1e-30])), x)


@pytest.mark.parametrize("sigma", [(1, 2, 0), (3, 2, 5)], ids=["near", "far"])
@pytest.mark.parametrize("extent", [(12, 33, 20), (1, 5, 26)])
def test_the_edge_lies_at_the_extent_and_nothing_beyond_is_read(sigma, extent):
    i, j, k = extent
    x = np.full(SHAPE, np.nan, np.float32)
    x[:, :i, :j, :k] = X[:, :i, :j, :k]
    got = np.asarray(blur(x, floats(sigma), jnp.array(extent, jnp.int32)))
    want = scipys(X[:, :i, :j, :k], sigma)
    np.testing.assert_allclose(got[:, :i, :j, :k], want, atol=1e-5 * np.ptp(X))
    outside = np.ones(SHAPE, bool)
    outside[:, :i, :j, :k] = False
    np.testing.assert_array_equal(got[outside], 0)


def test_variances_add():
    once = blur(X, floats([2, 2, 2]))
    twice = blur(blur(X, floats([1.2, 1.2, 1.2])), floats([1.6, 1.6, 1.6]))
    assert np.abs(once - twice).max() < 2e-3 * np.ptp(X)


@jax.jit
def energy(x, sigma):
    return (blur(x, sigma) * jnp.asarray(X[::-1], x.dtype)).sum()


slopes = jax.jit(jax.grad(energy, (0, 1)))


@pytest.mark.parametrize("sigma", [(1.0, 1.9, 0.7), (3.1, 1.0, 2.0)], ids=["near", "far"])
def test_gradients_are_right(sigma):
    with jax.enable_x64():
        x, sigma = X.astype(float), floats(sigma, float)
        by_x, by_sigma = slopes(x, sigma)
        # The blur is linear and symmetric: its transpose is itself.
        np.testing.assert_allclose(by_x, blur(X[::-1].astype(float), sigma), atol=1e-12)
        for component in range(3):
            step = 1e-5 * np.eye(3)[component]
            difference = (energy(x, sigma + step) - energy(x, sigma - step)) / 2e-5
            np.testing.assert_allclose(by_sigma[component], difference, rtol=1e-5)


@pytest.mark.parametrize("sigma", [(0, 0, 0), (0, 1, 0), (0, 5, 0)])
def test_gradients_are_finite_where_sigma_is_0(sigma):
    with jax.enable_x64():
        by_x, by_sigma = slopes(X.astype(float), floats(sigma, float))
    assert np.isfinite(by_x).all() and np.isfinite(by_sigma).all()
    np.testing.assert_array_equal(np.asarray(by_sigma)[np.array(sigma) == 0], 0)


def test_vmap_is_a_loop():
    x = jnp.stack([jnp.asarray(X), jnp.asarray(X[::-1])])
    sigma = jnp.array([[1, 2, 0], [3, 0.5, 5]], jnp.float32)
    extent = jnp.array([SHAPE[1:], (10, 20, 26)], jnp.int32)
    many = jax.jit(jax.vmap(blur))(x, sigma, extent)
    for one, *arguments in zip(many, x, sigma, extent, strict=True):
        np.testing.assert_allclose(one, blur(*arguments), atol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    shapes = [(SHAPE, jnp.float32), ((3,), jnp.float32), ((3,), jnp.int32)]
    arguments = (jax.ShapeDtypeStruct(*shape) for shape in shapes)
    jax.export.export(blur, platforms=[platform])(*arguments)
