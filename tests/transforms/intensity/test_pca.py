"""Principal components, against the singular value decomposition in float64."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs

import medjax as mj


def features(channels=5, shape=(9, 8, 7), seed=0):
    """Correlated channels of skewed distribution."""
    rng = np.random.default_rng(seed)
    latent = rng.gamma(2, size=(channels, np.prod(shape))) * np.arange(1, channels + 1)[:, None]
    mixed = rng.normal(size=(channels, channels)) @ latent + 10 * rng.normal(size=(channels, 1))
    return mixed.reshape(channels, *shape).astype(np.float32)


def components(data, number, whiten=True, normalize=True, skew=True):
    """The definition, by an SVD of the centred samples in float64."""
    x = data.reshape(len(data), -1).astype(float)
    x = x - x.mean(1, keepdims=True)
    _, values, axes = np.linalg.svd(x.T, full_matrices=False)
    axes = axes[:number]
    axes = axes * np.sign(axes[np.arange(number), np.abs(axes).argmax(1)])[:, None]
    y = axes @ x
    if whiten:
        y = y / (values[:number, None] / np.sqrt(x.shape[1] - 1))
    if normalize:
        y = y / y[0].std()
    if skew:
        y = y * np.where((y**3).mean(1) < 0, -1, 1)[:, None]
    return y.reshape(number, *data.shape[1:])


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("skew", [True, False])
def test_it_is_the_singular_value_decomposition(whiten, normalize, skew):
    data, number = features(), 4
    t = mj.PCA(number, whiten=whiten, normalize=normalize, make_skewness_positive=skew, values_range=(0, 1), clip=False)
    got, want = np.asarray(t(data)), components(data, number, whiten, normalize, skew)
    assert got.shape == (4, 9, 8, 7) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


def test_the_default_maps_and_clips():
    want = np.clip((components(features(), 3) + 2.3) / 4.6, 0, 1)
    np.testing.assert_allclose(mj.PCA()(features()), want, atol=1e-3)
    want = components(features(), 3)
    want = (want - want.min()) / np.ptp(want)
    np.testing.assert_allclose(mj.PCA(values_range=None)(features()), want, atol=1e-3)


def test_whitened_components_are_uncorrelated():
    got = np.asarray(mj.PCA(5, values_range=(0, 1), clip=False)(features())).reshape(5, -1)
    np.testing.assert_allclose(np.cov(got), np.eye(5), atol=5e-3)


def test_it_does_not_matter_in_which_order_channels_come():
    data = features()
    np.testing.assert_allclose(mj.PCA()(data), mj.PCA()(data[::-1]), atol=1e-3)


def test_many_channels_and_the_number_of_channels_under_jit():
    data = features(40, (6, 5, 4))
    got = jax.jit(mj.PCA(2))(mj.Subject(t=mj.ScalarImage(data, OBLIQUE))).t
    assert got.shape == (2, 6, 5, 4)
    np.testing.assert_allclose(got.numpy(), np.clip((components(data, 2) + 2.3) / 4.6, 0, 1), atol=2e-3)


def test_a_component_without_variance_is_zero():
    data = np.concatenate([features(2), features(2)])
    got = np.asarray(mj.PCA(4, values_range=(0, 1), clip=False)(data))
    assert np.abs(got[2:]).max() == 0
    np.testing.assert_allclose(got[:2], components(data, 2), atol=1e-2)


def test_gradients_are_finite_for_equal_eigenvalues():
    """Where `jnp.linalg.eigh` has none: two channels that are uncorrelated and vary alike."""
    x = np.array([[1, 1, -1, -1], [1, -1, 1, -1]], np.float32).reshape(2, 4, 1, 1)
    slope = jax.jit(jax.grad(lambda x: (mj.PCA(2)(x) ** 2).sum()))(x)
    assert np.isfinite(slope).all()
    rank_one = np.stack([blobs(), blobs(), blobs()])
    slope = jax.jit(jax.grad(lambda x: (mj.PCA(3)(x) ** 2).sum()))(rank_one)
    assert np.isfinite(slope).all()


def test_gradients_are_those_of_central_differences():
    with jax.enable_x64(True):
        data = features(4, (5, 4, 3)).astype(float)
        t = mj.PCA(3, clip=False)
        weights, direction = np.random.default_rng(1).normal(size=(2, 4, 5, 4, 3))

        def loss(x):
            return (t(x) * weights[:3]).sum()

        slope = (jax.jit(jax.grad(loss))(data) * direction).sum()
        value, step = jax.jit(loss), 1e-5 * direction
        np.testing.assert_allclose(slope, (value(data + step) - value(data - step)) / 2e-5, rtol=1e-5)


def test_voxels_that_are_not_finite_change_no_other():
    data = features()
    spoiled = data.copy()
    spoiled[2, 0, 0, 0], spoiled[0, 3, 3, 3] = np.nan, np.inf
    known = np.isfinite(spoiled).all(0)
    got = np.asarray(mj.PCA(3, values_range=(0, 1), clip=False)(spoiled))
    assert not np.isfinite(got[:, ~known]).any()
    want = components(data[:, known][..., None, None], 3)[..., 0, 0]
    np.testing.assert_allclose(got[:, known], want, atol=1e-2)


def test_padding_has_no_influence():
    subjects = [mj.Subject(t=mj.ScalarImage(features(4, shape))) for shape in ((9, 12, 10), (12, 9, 8))]
    batch = mj.PCA(2).batch(mj.stack(subjects, shape=(12, 12, 12)))
    for got, s in zip(mj.unstack(batch), subjects):
        np.testing.assert_allclose(got.t.numpy(), mj.PCA(2)(s).t.numpy(), atol=1e-3)


def test_images_without_components_are_errors_and_finite_under_jit():
    flat = np.full((4, 5, 6, 7), 3, np.float32)
    with pytest.raises(ValueError, match="the voxels of image are all equal"):
        mj.PCA()(flat)
    assert np.isfinite(jax.jit(mj.PCA())(flat)).all()
    with pytest.raises(ValueError, match="num_components=3 of an image of 2 channels"):
        mj.PCA()(flat[:2])


@pytest.mark.parametrize("arguments, message", [
    ({"num_components": 0}, "num_components must be a whole number"), ({"num_components": 1.5}, "num_components"),
    ({"values_range": (2, 1)}, "values_range has low > high"), ({"p": 0.5}, "p must be 1"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.PCA(**arguments)
