"""Fewer samples along the axes and back, against NumPy and SciPy in float64."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import make_interp_spline

from medjax.ops import lowres

RNG = np.random.default_rng(0)


def sampling(extent, count, factor):
    return lowres.Sampling(jnp.int32(extent), jnp.int32(count), jnp.float32(factor))


@pytest.mark.parametrize("n", [1, 2, 9, 30, 197, 512])
def test_samples_are_the_nearest_voxels_exactly_and_ties_go_up(n):
    for m in {1, 2, 3, n // 3, n // 2, 2 * n // 3, n - 1, n} - {0}:
        if m <= n:
            got = lowres.voxel_of(jnp.arange(m, dtype=jnp.float32), sampling(n, m, np.float32(n) / np.float32(m)))
            np.testing.assert_array_equal(got, (2 * np.arange(m) + 1) * n // (2 * m))


def test_picked_are_the_samples():
    s = sampling(17, 5, 17 / 5)
    want = np.isin(np.arange(20), lowres.voxel_of(jnp.arange(5, dtype=jnp.float32), s))
    np.testing.assert_array_equal(lowres.picked(20, s), want)


def test_the_cardinal_spline_is_scipys():
    at = np.linspace(-6, 6, 121)
    knots = np.arange(-40, 41)
    want = make_interp_spline(knots, (knots == 0).astype(float), 3)(at)
    np.testing.assert_allclose(lowres.cardinal(jnp.asarray(at, jnp.float32)), want, atol=1e-6)


def test_axes_of_none_are_left_alone_and_any_dtype_is_read_by_nearest():
    x = RNG.integers(0, 200, (2, 7, 8, 9)).astype(np.uint8)
    np.testing.assert_array_equal(lowres.nearest(jnp.asarray(x), [None] * 3), x)
    got = lowres.nearest(jnp.asarray(x), [None, sampling(8, 2, 4), None])
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, np.repeat(x[:, :, [2, 6]], 4, axis=2))


@pytest.mark.parametrize("read", [lowres.linear, lowres.spline])
def test_lines_of_constants_stay_and_every_sample_is_met(read):
    x = RNG.normal(size=(1, 12, 1, 9)).astype(np.float32)
    s = sampling(9, 3, 3)
    got = np.asarray(read(jnp.asarray(x), [None, None, s]))
    np.testing.assert_allclose(got[..., 1::3], x[..., 1::3], atol=1e-5)
    flat = np.asarray(read(jnp.ones((1, 12, 5, 9)), [sampling(12, 5, 2.4), sampling(5, 2, 2.2), s]))
    np.testing.assert_allclose(flat, 1, atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    def run(x, factor):
        s = lowres.Sampling(jnp.int32(9), jnp.int32(3), factor)
        return lowres.linear(x, [None, s, s]) + lowres.spline(x, [s, None, s])

    shapes = jax.ShapeDtypeStruct((1, 9, 9, 9), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    jax.export.export(jax.jit(run), platforms=[platform])(*shapes)


@pytest.mark.parametrize("ulps", [-2, 0, 2])
def test_a_place_falls_between_the_same_samples_however_it_was_rounded(ulps):
    """Against whole fractions, which know no rounding."""
    for n, count in ((10, 6), (9, 3), (37, 13), (160, 53), (512, 129)):
        exact = [Fraction((2 * i - (n - 1)) * count, 2 * n) + Fraction(count - 1, 2) for i in range(n)]
        exact = [min(max(place, Fraction(0)), Fraction(count - 1)) for place in exact]
        at = np.asarray(exact, np.float32)
        at = at + np.float32(ulps) * np.spacing(at)
        s = lowres.Sampling(jnp.int32(n), jnp.int32(count), jnp.float32(n / count))
        expected = [min(place.__floor__(), count - 2) for place in exact]
        np.testing.assert_array_equal(lowres.sample_below(jnp.asarray(np.maximum(at, 0)), s), expected)
