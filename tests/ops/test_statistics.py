"""Masked statistics against NumPy in float64 and SimpleITK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax.ops import statistics

SHAPE = (2, 17, 13, 11)
LEVELS = np.array([0, 0.001, 0.01, 0.25, 0.5, 0.731, 0.99, 1], np.float32)
RNG = np.random.default_rng(0)
MASK = RNG.random(SHAPE[1:]) > 0.6
TINY = np.finfo(np.float32).tiny  # smaller numbers are zero on some devices
mean_std, quantiles = jax.jit(statistics.mean_std), jax.jit(statistics.quantiles)
border_mean, otsu_border = jax.jit(statistics.border_mean), jax.jit(statistics.otsu_border)


def volume(kind="normal", shape=SHAPE):
    x = np.random.default_rng(1).normal(size=shape) * 30 + 100
    values = {
        "normal": x,
        "whole": np.round(x / 10),
        "half zero": np.maximum(x - 100, 0),
        "signs": (x - 100) ** 3,
        "constant": np.full(shape, 7.0),
        "two values": np.where(x > 100, 5.0, -3.0),
        "tiny": (x - 100) * 1e-39,  # about the smallest normal number
    }
    return values[kind].astype(np.float32)


def poisoned(x, mask):
    """NaN, which must have no influence, outside the mask."""
    return jnp.asarray(np.where(np.broadcast_to(mask, x.shape), x, np.nan).astype(x.dtype))


# -- mean and deviation --


@pytest.mark.parametrize("mask", [None, MASK, MASK[None], RNG.random(SHAPE) > 0.9])
def test_mean_std_is_numpys(mask):
    x = volume() + np.float32(1e5)
    inside = x.astype(float) if mask is None else x.astype(float)[np.broadcast_to(mask, SHAPE)]
    mean, std, n = mean_std(x if mask is None else poisoned(x, mask), mask)
    assert n == inside.size
    np.testing.assert_allclose(mean, inside.mean(), rtol=1e-6)
    np.testing.assert_allclose(std, inside.std(ddof=1), rtol=1e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_gradient_of_mean_and_std(index):
    with jax.enable_x64():
        x, direction = volume().astype(float), RNG.normal(size=SHAPE)
        slope = jnp.vdot(jax.jit(jax.grad(lambda x: mean_std(x, MASK)[index]))(x), direction)
        step = 1e-4 * direction
        difference = mean_std(x + step, MASK)[index] - mean_std(x - step, MASK)[index]
        np.testing.assert_allclose(slope, difference / 2e-4, rtol=1e-6)


def test_gradient_of_std_is_0_where_std_is():
    gradient = jax.jit(jax.grad(lambda x: mean_std(x, MASK)[1]))
    np.testing.assert_array_equal(gradient(poisoned(np.full(SHAPE, 3, np.float32), MASK)), 0)


def test_nan_inside_is_not_hidden():
    x = volume()
    x[0, 0, 0, 0] = np.nan
    assert np.isnan(mean_std(x)[:2]).all()


# -- extrema --


@pytest.mark.parametrize("mask", [None, MASK])
def test_extrema_are_numpys(mask):
    x = volume()
    inside = x if mask is None else x[np.broadcast_to(mask, SHAPE)]
    low, high = jax.jit(statistics.extrema)(x if mask is None else poisoned(x, mask), mask)
    assert (low, high) == (inside.min(), inside.max())


# -- quantiles --


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("kind", ["normal", "whole", "half zero", "signs", "constant", "two values", "tiny"])
@pytest.mark.parametrize("shape", [SHAPE, (1, 40, 60, 50)], ids=["sorted at once", "counted"])
def test_quantiles_are_numpys(kind, mask, shape):
    if mask is not None and shape != SHAPE:
        mask = np.random.default_rng(2).random(shape[1:]) > 0.3
    x = volume(kind, shape)
    inside = x.astype(float) if mask is None else x.astype(float)[np.broadcast_to(mask, shape)]
    got = quantiles(jnp.asarray(x) if mask is None else poisoned(x, mask), LEVELS, mask)
    want = np.quantile(inside, LEVELS.astype(float))
    np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-7 * np.abs(want).max() + TINY)


def test_quantiles_of_a_volume_with_few_voxels_in_the_mask():
    shape, mask = (1, 40, 60, 50), np.zeros((40, 60, 50), bool)
    mask.ravel()[::12345] = True
    x = volume(shape=shape)
    np.testing.assert_allclose(quantiles(x, LEVELS, mask), np.quantile(x[0][mask], LEVELS.astype(float)), rtol=3e-7)


def test_quantiles_when_the_sample_misleads(monkeypatch):
    # All of the sample is far from the quantile: it costs passes, never the result.
    x = volume(shape=(1, 40, 60, 50))
    places = np.random.default_rng(0).integers(x.size, size=statistics.SAMPLE)
    x.ravel()[places] = 1e6
    np.testing.assert_allclose(quantiles(x, LEVELS), np.quantile(x.astype(float), LEVELS.astype(float)), rtol=3e-7)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=False), min_size=6, max_size=6),
    st.floats(0, 1, width=32),
)
def test_quantile_of_any_six_numbers(values, q):
    x = np.array(values, np.float32)
    x[np.abs(x) < TINY] = 0
    x = np.clip(x, -1e37, 1e37)
    known = x[~np.isnan(x)].astype(float)
    got = quantiles(x.reshape(1, 1, 2, 3), np.array([q], np.float32))[0]
    want = np.quantile(known, q) if known.size else 0
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(known).max(initial=0) + TINY)


def test_ranks_are_exact_where_float32_is_not():
    q = np.concatenate([np.linspace(0, 1, 999), [0.1, 0.995, 1e-6]]).astype(np.float32)
    for last in (0, 1, 8_706_999, 2**24 + 1, 2**30 + 12345):
        rank, fraction = jax.jit(statistics.position)(q, jnp.asarray(last, jnp.int32))
        exact = q.astype(float) * last
        np.testing.assert_allclose((np.asarray(rank, float) - exact) + np.asarray(fraction, float), 0, atol=1e-4)
        assert (fraction >= 0).all() and (fraction <= 1).all() and (rank <= last).all()


def test_quantiles_in_float64():
    with jax.enable_x64():
        x = RNG.normal(size=(1, 30, 31, 32))
        got = statistics.quantiles(jnp.asarray(x), jnp.asarray(LEVELS, jnp.float64))
        np.testing.assert_allclose(got, np.quantile(x, LEVELS.astype(float)), rtol=1e-13)


quantile_slopes = jax.jit(jax.grad(lambda x, level: quantiles(x, level[None])[0], (0, 1)))


@pytest.mark.parametrize("kind", ["normal", "whole"])
def test_gradient_of_quantiles_goes_to_the_voxels_of_that_value(kind):
    x = volume(kind)
    flat = np.sort(x.ravel())
    below, above = flat[int(0.3 * (x.size - 1))], flat[int(0.3 * (x.size - 1)) + 1]
    gradient, by_level = (np.asarray(slope) for slope in quantile_slopes(x, np.float32(0.3)))
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)
    assert (gradient[(x != below) & (x != above)] == 0).all()
    assert len(np.unique(gradient[x == below])) == 1
    # Scaling all voxels scales the quantile.
    np.testing.assert_allclose(np.vdot(gradient, x), np.quantile(x.astype(float), 0.3), rtol=1e-5)
    np.testing.assert_allclose(by_level, (float(above) - float(below)) * (x.size - 1), rtol=1e-4)


# -- all of them --


def test_an_empty_mask_gives_zeros_and_finite_gradients():
    x, q, nothing = jnp.full(SHAPE, jnp.nan), jnp.asarray(LEVELS), jnp.zeros(SHAPE[1:], bool)

    def everything(x, q):
        mean, std, _ = statistics.mean_std(x, nothing)
        return jnp.concatenate(
            [jnp.stack([mean, std, *statistics.extrema(x, nothing)]), statistics.quantiles(x, q, nothing)]
        )

    np.testing.assert_array_equal(jax.jit(everything)(x, q), 0)
    for gradient in jax.jit(jax.grad(lambda *a: everything(*a).sum(), (0, 1)))(x, q):
        np.testing.assert_array_equal(gradient, 0)


def test_a_batch_of_extents():
    x = np.stack([volume(kind, (1, 40, 60, 50)) for kind in ("normal", "whole", "half zero")])
    extents = np.array([[40, 60, 50], [33, 60, 7], [5, 59, 50]], np.int32)

    def everything(x, extent):
        mask = statistics.extent_mask(x.shape[1:], extent)
        parts = [*statistics.mean_std(x, mask)[:2], *statistics.extrema(x, mask), *statistics.border_mean(x, extent)]
        return jnp.concatenate([jnp.stack(parts), statistics.quantiles(x, jnp.asarray(LEVELS), mask)])

    for got, one, (i, j, k) in zip(jax.jit(jax.vmap(everything))(x, extents), x, extents, strict=True):
        real = one[:, :i, :j, :k].astype(float)
        parts = [real.mean(), real.std(ddof=1), real.min(), real.max(), border_values(real).mean()]
        np.testing.assert_allclose(got, [*parts, *np.quantile(real, LEVELS.astype(float))], rtol=2e-6)


def test_extent_mask():
    mask = np.zeros(SHAPE[1:], bool)
    mask[:5, :13, :2] = True
    np.testing.assert_array_equal(statistics.extent_mask(SHAPE[1:], jnp.array([5, 13, 2], jnp.int32)), mask)


# -- borders --


def border_values(x):
    """The face voxels of each channel, as TorchIO collects them."""
    sides = [side for axis in (1, 2, 3) for side in (x.take(0, axis), x.take(-1, axis))]
    return np.concatenate([side.reshape(len(x), -1) for side in sides], 1)


def padded(x, after=(3, 0, 4)):
    return np.pad(x, [(0, 0), *((0, n) for n in after)], constant_values=np.nan)


@pytest.mark.parametrize("shape", [SHAPE, (1, 9, 8, 1), (3, 1, 1, 5)])
def test_border_mean_is_that_of_the_six_faces(shape):
    x = volume(shape=shape)
    want = border_values(x.astype(float)).mean(1)
    extent = jnp.asarray(shape[1:], jnp.int32)
    for data in (x, padded(x)):
        np.testing.assert_allclose(border_mean(jnp.asarray(data), extent), want, rtol=1e-6)


@pytest.mark.parametrize("kind", ["normal", "whole", "half zero", "signs", "two values"])
def test_otsu_border_is_itks(kind):
    x = volume(kind)
    want = []
    for values in border_values(x):
        otsu = sitk.OtsuThresholdImageFilter()
        otsu.Execute(sitk.GetImageFromArray(values[None]))
        want.append(values[values < otsu.GetThreshold()].astype(float).mean())
    extent = jnp.asarray(SHAPE[1:], jnp.int32)
    for data in (x, padded(x)):
        np.testing.assert_allclose(otsu_border(jnp.asarray(data), extent), want, rtol=1e-6)


def test_otsu_border_keeps_a_background_of_zeros():
    # TorchIO takes the mean of the faces here (W9).
    x = np.zeros(SHAPE, np.float32)
    x[:, :, 5:] = 100 + volume()[:, :, 5:]
    np.testing.assert_array_equal(otsu_border(jnp.asarray(x), jnp.asarray(SHAPE[1:], jnp.int32)), 0)


def test_border_of_a_constant_volume_is_the_constant():
    extent = jnp.asarray(SHAPE[1:], jnp.int32)
    x = jnp.full(SHAPE, 7.0)
    for border in (border_mean, otsu_border):
        np.testing.assert_array_equal(border(x, extent), 7)
        np.testing.assert_allclose(jax.jit(jax.grad(lambda x: border(x, extent)[0]))(x).sum(), 1, rtol=1e-5)  # noqa: B023


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    def everything(x, q, extent):
        mask = statistics.extent_mask(x.shape[1:], extent)
        parts = statistics.mean_std(x, mask), statistics.extrema(x, mask), statistics.quantiles(x, q, mask)
        return parts, statistics.border_mean(x, extent), statistics.otsu_border(x, extent)

    shapes = [((1, 64, 64, 64), jnp.float32), ((2,), jnp.float32), ((3,), jnp.int32)]
    jax.export.export(jax.jit(everything), platforms=[platform])(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))


# -- voxels that are not finite, channels --


@pytest.mark.parametrize("mask", [None, MASK[None], RNG.random(SHAPE) > 0.5])
@pytest.mark.parametrize("spoiled", [False, True])
def test_finite_only_leaves_out_what_is_not_finite(mask, spoiled):
    x = volume()
    if spoiled:
        x[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    inside = np.isfinite(x) & (True if mask is None else np.broadcast_to(mask, SHAPE))
    mean, std, n = jax.jit(lambda x: statistics.finite_only(statistics.mean_std, x, mask))(x)
    assert n == inside.sum()
    np.testing.assert_allclose(
        [mean, std], [x[inside].mean(dtype=float), x[inside].std(dtype=float, ddof=1)], rtol=1e-5
    )
    got = jax.jit(lambda x: statistics.finite_only(statistics.extrema, x, mask))(x)
    np.testing.assert_array_equal(got, [x[inside].min(), x[inside].max()])


def test_finite_only_where_the_sum_overflows():
    x = np.full(SHAPE, 3e38, np.float32)
    got = jax.jit(lambda x: statistics.finite_only(statistics.extrema, x))(x)
    np.testing.assert_array_equal(got, [x.min(), x.max()])


@pytest.mark.parametrize("mask", [None, MASK[None], RNG.random(SHAPE) > 0.5])
def test_each_channel_is_the_function_of_each(mask):
    x = volume() * np.array([1, 9], np.float32).reshape(2, 1, 1, 1)
    got = jax.jit(lambda x: statistics.each_channel(statistics.mean_std, x, mask))(x)
    inside = np.broadcast_to(True if mask is None else mask, SHAPE)
    want = [(c[m].mean(dtype=float), c[m].std(dtype=float, ddof=1), m.sum()) for c, m in zip(x, inside)]
    np.testing.assert_allclose(np.stack(got, 1), want, rtol=1e-5)


def test_over_channels_is_numpys_along_the_first_axis():
    x = np.random.default_rng(5).normal(size=(6, 5, 4, 3)).astype(np.float32) + 1000
    x[:, 0, 0, 0], x[0, 1, 1, 1], x[1:, 2, 2, 2] = 3, np.inf, np.nan
    mean, std = jax.jit(statistics.over_channels)(x)
    known = np.where(np.isfinite(x), x, np.nan).astype(float)
    np.testing.assert_allclose(mean[0], np.nanmean(known, 0), rtol=1e-6)
    want = np.sqrt(np.nansum((known - np.nanmean(known, 0)) ** 2, 0) / np.maximum(np.isfinite(x).sum(0) - 1, 1))
    np.testing.assert_allclose(std[0], want, rtol=1e-3, atol=1e-6)
    slope = jax.grad(lambda x: statistics.over_channels(x)[1].sum())(jnp.asarray(x))
    assert np.isfinite(slope).all()
