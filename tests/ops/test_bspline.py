"""Fields of cubic B-splines, against the sum over all control points in float64 and scipy.interpolate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from medjax.ops import bspline

COUNTS = (7, 5, 6)
SHAPE = (9, 12, 8)
field_at = jax.jit(bspline.field_at)
field_on = jax.jit(bspline.field_on, static_argnums=2)
field_aligned = jax.jit(bspline.field_aligned, static_argnums=2)


def control(seed=0):
    return np.random.default_rng(seed).normal(size=(3, *COUNTS))


def f32(array):
    return jnp.asarray(array, jnp.float32)


def weights(u, count):
    """B3(u - j) for every coefficient j, by SciPy."""
    element = BSpline.basis_element(np.arange(-2, 3), extrapolate=False)
    return np.nan_to_num(element(u[..., None] - np.arange(count)))


def direct(points, u):
    """The sum of B3 B3 B3 c over the whole grid."""
    a, b, c = (weights(v, n) for v, n in zip(u, points.shape[1:]))
    return np.einsum("dijk,...i,...j,...k->d...", points, a, b, c, optimize=True)


def coordinates(matrix):
    """Control coordinates (3, *SHAPE) of a grid of voxels."""
    return np.einsum("ab,bijk->aijk", matrix[:3, :3], np.indices(SHAPE)) + matrix[:3, 3, None, None, None]


def aligned(order, signs):
    """Voxel to control coordinates: voxel axis a runs along control axis order[a], over the middle of the grid."""
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for axis, (world, sign) in enumerate(zip(order, signs)):
        step = sign * (COUNTS[world] - 3) / (SHAPE[axis] + 0.25)
        matrix[world, axis] = step
        matrix[world, 3] = 1.1 if sign > 0 else 1.1 - step * (SHAPE[axis] - 1)
    return matrix


ALIGNED = [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (-1, 1, -1)), ((2, 0, 1), (1, -1, 1)), ((1, 0, 2), (-1, -1, 1))]


def test_the_kernel_is_scipys():
    u = np.linspace(-2.5, 2.5, 101)
    np.testing.assert_allclose(bspline.cubic(jnp.abs(f32(u))), weights(u, 1)[:, 0], atol=1e-6)


@pytest.mark.parametrize("order, signs", ALIGNED)
def test_products_and_taps_and_the_direct_sum_agree(order, signs):
    matrix, points = aligned(order, signs), control()
    want = direct(points, coordinates(matrix))
    assert bspline.is_aligned(f32(matrix), SHAPE)
    products = field_aligned(f32(points), f32(matrix), SHAPE)
    taps = field_at(f32(points), tuple(f32(coordinates(matrix))))
    np.testing.assert_allclose(products, want, atol=1e-5)
    np.testing.assert_allclose(taps, want, atol=1e-5)
    np.testing.assert_allclose(field_on(f32(points), f32(matrix), SHAPE), want, atol=1e-5)


def test_a_rotated_grid_takes_the_taps():
    matrix, points = aligned((0, 1, 2), (1, 1, 1)), control(1)
    matrix[:3, :3] = Rotation.from_euler("xyz", (20, -10, 30), degrees=True).as_matrix() @ matrix[:3, :3]
    assert not bspline.is_aligned(f32(matrix), SHAPE)
    want = direct(points, coordinates(matrix))
    np.testing.assert_allclose(field_on(f32(points), f32(matrix), SHAPE), want, atol=1e-5)


def test_beyond_the_control_grid_the_coefficients_are_zero():
    u = np.random.default_rng(2).uniform(-6, 12, (3, *SHAPE))
    got = field_at(f32(control()), tuple(f32(u)))
    np.testing.assert_allclose(got, direct(control(), u), atol=1e-5)
    assert (np.asarray(got) == 0).any()


def test_equal_coefficients_give_a_constant_field():
    points = f32(np.ones((3, *COUNTS)))
    got = field_on(points, f32(aligned(*ALIGNED[0])), SHAPE)
    np.testing.assert_allclose(got, 1, atol=1e-6)


def test_the_field_is_linear_in_its_coefficients():
    matrix = f32(aligned(*ALIGNED[2]))
    points, step = (f32(control(s)) for s in (3, 4))
    value, slope = jax.jit(lambda c, d: jax.jvp(lambda c: field_on(c, matrix, SHAPE), (c,), (d,)))(points, step)
    np.testing.assert_allclose(value + slope, field_on(points + step, matrix, SHAPE), atol=1e-5)
