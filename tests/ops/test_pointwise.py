"""Voxel by voxel, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.polynomial import polyval3d

from medjax.ops import pointwise

SHAPE = (3, 9, 7, 8)
RNG = np.random.default_rng(0)
X = (RNG.normal(size=SHAPE) * 500).astype(np.float32)
X[:, :2, :2] = 0
GAMMA = np.array([0.7, 1, 1.4], np.float32).reshape(3, 1, 1, 1)
signed_power, rescale = jax.jit(pointwise.signed_power), jax.jit(pointwise.rescale)
normalise = jax.jit(pointwise.normalise)
power_and_slopes = jax.jit(jax.value_and_grad(lambda x, gamma: pointwise.signed_power(x, gamma).sum(), (0, 1)))


def test_signed_power_is_numpys():
    got = signed_power(X, GAMMA)
    np.testing.assert_allclose(got, np.sign(X) * np.abs(X.astype(float)) ** GAMMA, rtol=2e-6)
    one = signed_power(X, 0.5)
    np.testing.assert_allclose(one, np.sign(X) * np.abs(X.astype(float)) ** 0.5, rtol=2e-6)


def test_gradients_of_signed_power_are_right_and_finite_at_0():
    by_x, by_gamma = power_and_slopes(X, GAMMA)[1]
    size = np.where(X == 0, 1, np.abs(X.astype(float)))
    np.testing.assert_allclose(by_x, np.where(X == 0, 0, GAMMA * size ** (GAMMA - 1.0)), rtol=2e-6)
    want = (np.sign(X) * size**GAMMA * np.log(size)).sum((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(by_gamma, want, rtol=1e-4)


@pytest.mark.parametrize("gamma", [-0.5, 0.0, 0.3, 1.0, 2.0])
def test_signed_power_of_0_is_0(gamma):
    zero = jnp.zeros((1, 1, 1, 1))
    value, slopes = power_and_slopes(zero, gamma)
    assert value == 0 and slopes[0] == 0 and slopes[1] == 0


@pytest.mark.parametrize("per_channel", [False, True])
def test_rescale_and_normalise(per_channel):
    size = (3, 1, 1, 1) if per_channel else ()
    a, b, c, d = (RNG.normal(size=size).astype(np.float32) for _ in range(4))
    wide = X.astype(float)
    got = rescale(X, a, b, c, d)
    np.testing.assert_allclose(
        got, (wide - a) * (d.astype(float) - c) / (b.astype(float) - a) + c, rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(normalise(X, a, abs(b)), (wide - a) / abs(b), rtol=1e-5, atol=1e-5)


def test_nothing_to_scale_by():
    two = jnp.float32(2)
    np.testing.assert_array_equal(rescale(X, two, two, 0, 1), X)
    np.testing.assert_array_equal(normalise(X, two, jnp.float32(0)), X - 2)
    for f in (lambda x, y: rescale(x, y, y, 0, 1), lambda x, y: normalise(x, y, y - 2)):
        for gradient in jax.jit(jax.grad(lambda x, y: f(x, y).sum(), (0, 1)))(X, two):  # noqa: B023
            assert jnp.isfinite(gradient).all()


def log_field(coefficients, order, shape):
    """TorchIO's sum, by numpy's polynomials."""
    cube, rest = np.zeros((order + 1,) * 3), list(coefficients)
    for a in range(order + 1):
        for b in range(order + 1 - a):
            for c in range(order + 1 - a - b):
                cube[a, b, c] = rest.pop(0)
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    return polyval3d(*np.meshgrid(*axes, indexing="ij"), cube)


@pytest.mark.parametrize("order", [0, 1, 3, 4])
@pytest.mark.parametrize("shape", [(9, 7, 8), (12, 5, 1)])
def test_polynomial_field_is_numpys(order, shape):
    coefficients = RNG.uniform(-0.5, 0.5, (order + 1) * (order + 2) * (order + 3) // 6).astype(np.float32)
    got = jax.jit(lambda c: pointwise.polynomial_field(c, order, shape, extent=shape))(coefficients)
    np.testing.assert_allclose(got, log_field(coefficients, order, shape), atol=1e-6)


def test_a_box_of_the_field_is_the_box():
    shape, offset = (20, 30, 25), (3, 11, 6)
    coefficients = RNG.normal(size=20).astype(np.float32)
    box = jax.jit(lambda c, extent, offset: pointwise.polynomial_field(c, 3, (9, 7, 8), extent=extent, offset=offset))
    got = box(coefficients, jnp.array(shape, jnp.int32), jnp.array(offset, jnp.int32))
    want = log_field(coefficients, 3, shape)[3:12, 11:18, 6:14]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_field_beyond_the_extent_is_finite():
    field = jax.jit(lambda c: pointwise.polynomial_field(c, 3, (50, 40, 30), extent=(2, 3, 1)))(np.ones(20, np.float32))
    np.testing.assert_allclose(field[:2, :3, :1], log_field(np.ones(20), 3, (2, 3, 1)), atol=1e-5)
    assert field.max() < 21


def test_everything_in_float64():
    with jax.enable_x64():
        x, coefficients = X.astype(float), RNG.normal(size=20)
        field = jax.jit(lambda c: pointwise.polynomial_field(c, 3, SHAPE[1:], extent=SHAPE[1:]))(coefficients)
        np.testing.assert_allclose(field, log_field(coefficients, 3, SHAPE[1:]), rtol=1e-12, atol=1e-12)
        gamma = GAMMA.astype(float)
        np.testing.assert_allclose(signed_power(x, gamma), np.sign(x) * np.abs(x) ** gamma, rtol=1e-13)
        np.testing.assert_allclose(rescale(x, 1.0, 3.0, 0.0, 1.0), (x - 1) / 2, rtol=1e-14)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    def everything(x, gamma, coefficients, extent):
        field = pointwise.polynomial_field(coefficients, 3, x.shape[1:], extent=extent)
        return pointwise.normalise(pointwise.signed_power(x, gamma), gamma, gamma) * jnp.exp(field)[None]

    shapes = [(SHAPE, jnp.float32), ((), jnp.float32), ((20,), jnp.float32), ((3,), jnp.int32)]
    jax.export.export(jax.jit(everything), platforms=[platform])(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))


# -- a broken line --

KNOTS = np.array([-300, -20, 0, 0, 40, 600], np.float32)
VALUES = np.array([0, 5, 5, 30, 31, 100], np.float32)
piecewise_linear = jax.jit(pointwise.piecewise_linear)


def test_piecewise_linear_is_numpys_interp_inside_and_goes_on_outside():
    got = np.asarray(piecewise_linear(X, KNOTS, VALUES))
    inside = (X >= -300) & (X <= 600) & (X != 0)
    np.testing.assert_allclose(got[inside], np.interp(X[inside].astype(float), KNOTS, VALUES), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(got[X < -300], (X[X < -300] + 300.0) * 5 / 280, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(got[X > 600], 100 + (X[X > 600] - 600.0) * 69 / 560, rtol=1e-5)
    assert (got[X == 0] == 30).all()


def test_the_inverse_exchanges_knots_and_values():
    values = np.array([0, 1, 5, 30, 31, 100], np.float32)
    knots = np.array([-300, -20, 0, 3, 40, 600], np.float32)
    np.testing.assert_allclose(piecewise_linear(piecewise_linear(X, knots, values), values, knots), X, atol=2e-2)


def test_flat_ends_and_numbers_that_are_not_finite():
    x = np.array([-np.inf, np.nan, np.inf, 1, 3], np.float32).reshape(1, 5, 1, 1)
    flat = np.array([2, 2, 5, 5], np.float32), np.array([0, 1, 2, 3], np.float32)
    np.testing.assert_array_equal(piecewise_linear(x, *flat).ravel()[:4], [0, np.nan, 2, 0])
    rising = np.array([0, 1, 2, 3], np.float32), np.array([0, 1, 2, 4], np.float32)
    np.testing.assert_array_equal(piecewise_linear(x, *rising).ravel()[:3], x.ravel()[:3])


def test_a_steep_piece_spoils_no_other():
    """A sum over the pieces would lose seven digits to the one that is 1e-3 wide."""
    knots = np.array([0, 1, 1.001, 1000], np.float32)
    values = np.array([0, 10, 90, 100], np.float32)
    x = np.linspace(0, 1000, 500, dtype=np.float32).reshape(1, 500, 1, 1)
    np.testing.assert_allclose(piecewise_linear(x, knots, values), np.interp(x.astype(float), knots, values), rtol=1e-6)


def test_denormalise_takes_normalise_back():
    for std in (0.0, 3.5):
        got = pointwise.denormalise(normalise(X, jnp.float32(20), jnp.float32(std)), jnp.float32(20), jnp.float32(std))
        np.testing.assert_allclose(got, X, atol=1e-3)
