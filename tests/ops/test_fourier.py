"""Changes to the spectrum, against full 3-D transforms of NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.ops import fourier

RNG = np.random.default_rng(0)
SHAPE = (2, 9, 12, 7)
X = RNG.normal(size=SHAPE).astype(np.float32)
PAD = [(0, 0), (0, 3), (0, 2), (0, 4)]
AXES = (1, 2, 3)


def spectrum(x):
    """Shifted, of each channel."""
    return np.fft.fftshift(np.fft.fftn(np.asarray(x, float), axes=AXES), AXES)


def image(spectrum):
    return np.fft.ifftn(np.fft.ifftshift(spectrum, AXES), axes=AXES)


def whole(n):
    return jnp.asarray(n, jnp.int32)


def across(axis, values):
    return np.reshape(values, [-1 if a == axis else 1 for a in range(4)])


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_planes_are_multiplied(axis, magnitude, channels):
    x, n = X[:channels], SHAPE[axis]
    factors = RNG.uniform(-1, 2, n).astype(np.float32)
    got = fourier.filter_planes(jnp.asarray(x), axis, jnp.asarray(factors), extent=whole(n), magnitude=magnitude)
    want = image(spectrum(x) * across(axis, factors))
    np.testing.assert_allclose(got, np.abs(want) if magnitude else want.real, atol=1e-5)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("magnitude", [False, True])
def test_padding_has_no_part_in_it_and_stays_0(axis, magnitude):
    n, size = SHAPE[axis], SHAPE[axis] + PAD[axis][1]
    factors = jnp.asarray(RNG.uniform(-1, 2, size), jnp.float32)
    padded = jnp.asarray(np.pad(X, PAD))
    got = fourier.filter_planes(padded, axis, factors, extent=whole(n), magnitude=magnitude)
    want = fourier.filter_planes(jnp.asarray(X), axis, factors[:n], extent=whole(n), magnitude=magnitude)
    np.testing.assert_allclose(got, np.pad(want, PAD), atol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 8, 9])
def test_factors_of_1_are_the_identity_exactly(n):
    x = jnp.asarray(RNG.normal(size=(1, n, 3, 2)), jnp.float32)
    np.testing.assert_array_equal(fourier.filter_planes(x, 1, jnp.ones(n, jnp.float32), extent=whole(n)), x)


@pytest.mark.parametrize("n, width, want", [(8, 2, [3, 4]), (8, 3, [3, 4, 5]), (9, 1, [4]), (9, 4, [2, 3, 4, 5])])
def test_the_centre_of_a_spectrum(n, width, want):
    np.testing.assert_array_equal(np.flatnonzero(fourier.centre(n, whole(n), whole(width))), want)


@pytest.mark.parametrize("n", [1, 2, 9, 12])
@pytest.mark.parametrize("width", ["none", "all"])
def test_the_centre_may_be_nothing_or_everything(n, width):
    got = fourier.centre(n, whole(n), whole(n if width == "all" else 0))
    assert got.all() if width == "all" else not got.any()


@pytest.mark.parametrize("n", [7, 8, 30])
@pytest.mark.parametrize("cutoff", [0.0, 0.3, 0.77, 1.0])
def test_a_low_pass_is_symmetric_in_frequency(n, cutoff):
    got = fourier.low_pass(n, whole(n), jnp.float32(cutoff), jnp.float32)
    frequency = np.abs(np.fft.fftshift(np.fft.fftfreq(n, 1 / n)))
    np.testing.assert_array_equal(got, frequency <= np.floor(cutoff * n / 2))


@pytest.mark.parametrize("padding", [None, PAD])
def test_waves_are_points_of_the_spectrum(padding):
    index = np.array([(0, 0, 0), (4, 6, 3), (8, 11, 6), (3, 1, 5), (3, 1, 5)])
    heights = RNG.normal(size=(2, 5)).astype(np.float32)
    points = np.zeros(SHAPE)
    for point, height in zip(index, heights.T, strict=True):
        points[:, *point] += height
    shape = SHAPE[1:] if padding is None else tuple(np.pad(X, padding).shape[1:])
    real, imaginary = fourier.plane_waves(
        jnp.asarray(index, jnp.int32), jnp.asarray(heights), shape, extent=whole(SHAPE[1:])
    )
    want = image(points) if padding is None else np.pad(image(points), padding)
    np.testing.assert_allclose(real, want.real, atol=1e-7)
    np.testing.assert_allclose(imaginary, want.imag, atol=1e-7)


def test_no_waves_are_nothing():
    none = jnp.zeros((0, 3), jnp.int32), jnp.zeros((2, 0), jnp.float32)
    assert not any(part.any() for part in fourier.plane_waves(*none, SHAPE[1:], extent=whole(SHAPE[1:])))


SIGNS = {"positive": np.abs(X), "negative": -np.abs(X), "both": X, "0": 0 * X, "alternating": X * (-1) ** np.arange(7)}


@pytest.mark.parametrize("name", SIGNS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_peak_is_the_maximum_of_the_spectrum(name, padded):
    x = SIGNS[name].astype(np.float32)
    want = np.abs(spectrum(x)).max(AXES)
    extent = whole(SHAPE[1:]) if padded else None
    got = fourier.peak(jnp.asarray(np.pad(x, PAD) if padded else x), extent=extent)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_gradient_of_a_magnitude_is_finite_at_0():
    def total(x):
        return fourier.modulus(x, 2 * x).sum()

    np.testing.assert_allclose(jax.grad(total)(jnp.asarray([0, 3, -2.0])), np.sqrt(5) * np.array([0, 1, -1]), rtol=1e-6)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    def run(x, factors, extent):
        y = fourier.filter_planes(x, 2, factors, extent=extent[1], magnitude=True)
        return y, fourier.peak(x, extent=extent), fourier.peak(x)

    shapes = [(SHAPE, jnp.float32), ((12,), jnp.float32), ((3,), jnp.int32)]
    jax.export.export(jax.jit(run), platforms=[platform])(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
