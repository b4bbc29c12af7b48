"""Principal components against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.ops import components

RNG = np.random.default_rng(0)
SHAPE = (4, 9, 7, 8)
X = (np.einsum("cd,dijk->cijk", RNG.normal(size=(4, 4)), RNG.normal(size=SHAPE)) + 500).astype(np.float32)
MASK = RNG.random((1, *SHAPE[1:])) > 0.4


@pytest.mark.parametrize("mask", [None, MASK])
def test_covariance_is_numpys(mask):
    x = X if mask is None else np.where(mask, X, np.nan)
    inside = X.reshape(4, -1).astype(float) if mask is None else X[:, mask[0]].astype(float)
    mean, covariance, n = jax.jit(components.covariance)(x, mask)
    assert n == inside.shape[1]
    np.testing.assert_allclose(mean, inside.mean(1), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(inside), rtol=1e-3, atol=1e-3)


def test_principal_axes_are_the_largest_and_point_one_way():
    matrix = np.cov(X.reshape(4, -1).astype(float))
    values, axes = components.principal(jnp.asarray(matrix, jnp.float32), 3)
    want = np.linalg.eigvalsh(matrix)[::-1][:3]
    np.testing.assert_allclose(values, want, rtol=1e-4)
    np.testing.assert_allclose(np.asarray(axes) @ matrix, want[:, None] * axes, atol=1e-3)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in np.asarray(axes))


def test_project():
    mean, axes = X.mean((1, 2, 3)), RNG.normal(size=(2, 4)).astype(np.float32)
    flat = axes.astype(float) @ (X.reshape(4, -1).astype(float) - mean[:, None])
    np.testing.assert_allclose(components.project(X, mean, axes).reshape(2, -1), flat, atol=1e-3)


def test_slopes_of_eigenvalues_and_of_axes():
    with jax.enable_x64(True):
        matrix = np.cov(X.reshape(4, -1).astype(float))
        change = RNG.normal(size=(4, 4))
        change = change + change.T
        slope = jax.jvp(components.eigen, (matrix,), (change,))[1]
        step = 1e-6
        after, before = (np.linalg.eigh(matrix + sign * step * change) for sign in (1, -1))
        signs = (
            np.sign((after[1] * components.eigen(matrix)[1]).sum(0)),
            np.sign((before[1] * components.eigen(matrix)[1]).sum(0)),
        )
        np.testing.assert_allclose(slope[0], (after[0] - before[0]) / (2 * step), rtol=1e-5)
        np.testing.assert_allclose(slope[1], (after[1] * signs[0] - before[1] * signs[1]) / (2 * step), atol=1e-5)


def test_slopes_are_finite_where_eigenvalues_are_equal():
    slope = jax.grad(lambda m: components.eigen(m)[1].sum())(jnp.eye(4))
    assert np.isfinite(slope).all()
    assert np.isnan(jax.grad(lambda m: jnp.linalg.eigh(m)[1].sum())(jnp.eye(4))).any()
