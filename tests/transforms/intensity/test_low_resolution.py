"""Low resolution against SciPy in float64, and what is drawn."""

import jax
import numpy as np
import pytest
from conftest import blobs
from scipy.ndimage import map_coordinates, zoom

import medjax as mj
from transforms.intensity.drawing import between, draws, follow

SHAPE = (23, 31, 18)
ZOOMS = [(0.5, 0.5, 0.5), (0.31, 0.77, 1.0), (0.93, 0.25, 0.6), (0.01, 1, 1)]


def small(x, factors):
    """The small image: nearest, ties up."""
    for axis, factor in enumerate(factors):
        n = x.shape[axis]
        m = max(round(n * factor), 1)
        x = np.take(x, (2 * np.arange(m) + 1) * n // (2 * m), axis)
    return x


def large(y, shape, order):
    """The small image read at the old voxels, edges repeated."""
    at = np.meshgrid(*((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(shape, y.shape)), indexing="ij")
    return map_coordinates(y, at, order=order, mode="nearest")


@pytest.mark.parametrize("factors", ZOOMS)
def test_linear_is_nearest_down_and_linear_up(factors):
    x = blobs(SHAPE)
    got = np.asarray(mj.LowResolution(np.float32(factors))(x[None]))[0]
    np.testing.assert_allclose(got, large(small(x.astype(float), factors), SHAPE, 1), atol=3e-6)


@pytest.mark.parametrize("factors", ZOOMS[:3])
def test_cubic_is_scipys_zoom_clipped(factors):
    x = blobs(SHAPE)
    y = small(x.astype(float), factors)
    want = zoom(y, np.array(SHAPE) / y.shape, order=3, mode="nearest", grid_mode=True)
    got = np.asarray(mj.LowResolution(factors, image_interpolation="cubic")(x[None]))[0]
    assert want.max() > y.max()
    np.testing.assert_allclose(got, np.clip(want, y.min(), y.max()), atol=1e-5)


def test_nearest_shows_the_voxels_of_the_small_image():
    x = blobs(SHAPE)
    got = np.asarray(mj.LowResolution(0.4, image_interpolation="nearest")(x[None]))[0]
    np.testing.assert_array_equal(np.unique(got), np.unique(small(x, (0.4,) * 3)))


def test_a_zoom_of_1_and_axes_left_out_change_nothing():
    x = blobs(SHAPE)[None]
    np.testing.assert_array_equal(mj.LowResolution(1.0)(x), x)
    one, all_but = mj.LowResolution((1, 0.3, 0.5))(x), mj.LowResolution((0.2, 0.3, 0.5), axes=(1, 2))(x)
    np.testing.assert_allclose(one, all_but, atol=1e-6)
    slices = np.asarray(mj.LowResolution(0.3, axes=(1, 2))(np.stack([x[0]] * 2)[:, :1]))
    assert slices.shape == (2, 1, 31, 18)


@pytest.mark.parametrize("name", ["linear", "cubic"])
def test_each_channel_has_its_own(name):
    x = np.stack([blobs(SHAPE), blobs(SHAPE, 1)])
    t = mj.RandomLowResolution((0.2, 0.9), image_interpolation=name, isotropic=False, per_channel=True)
    params = t.sample(jax.random.key(0), mj.ScalarImage(x))
    got = np.asarray(t.apply(x, params))
    for channel, factors in enumerate(np.asarray(params["draw"]["image"]["zoom"])):
        alone = mj.LowResolution(factors, image_interpolation=name)(x[channel : channel + 1])
        np.testing.assert_allclose(got[channel], alone[0], atol=1e-6)


def test_what_is_padded_has_no_influence():
    image = mj.ScalarImage(blobs(SHAPE)[None])
    padded = jax.tree.map(lambda leaf: leaf[0], mj.stack([mj.Subject(t1=image)], shape=(25, 32, 24)))["t1"]
    padded = padded.replace(data=np.where(np.asarray(padded.data) == 0, -7, padded.data).astype(np.float32))
    for name in ("linear", "cubic"):
        t = mj.LowResolution((0.4, 0.7, 0.3), image_interpolation=name)
        np.testing.assert_allclose(np.asarray(t(padded).data)[:, :23, :31, :18], t(image).numpy(), atol=2e-6)


def test_what_is_drawn():
    drawn = draws(mj.RandomLowResolution(per_channel=True))["zoom"]
    np.testing.assert_array_equal(drawn[..., :1] + np.zeros(3), drawn)
    follow(drawn[..., 0], between(0.5, 1))
    follow(draws(mj.RandomLowResolution((0.25, 1), isotropic=False))["zoom"], between(0.25, 1))


@pytest.mark.parametrize("arguments", [{"zoom": 1.5}, {"zoom": 0}, {"axes": (0, 4)}, {"image_interpolation": "spline"}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.LowResolution(**arguments)
