"""A bump of brightness, against the formula in NumPy float64."""

import numpy as np
import pytest
from conftest import blobs
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import Halves, between, draws, follow

SHAPE = (23, 31, 18)
DATA = np.stack([blobs(SHAPE), 2 * blobs(SHAPE, 1)])


def bump(location, scale):
    """The mass of a Gaussian in each voxel, from 0 to 1."""
    lines = [
        np.diff(stats.norm.cdf(np.arange(n + 1) - 0.5, c * n, s * n))
        for n, c, s in zip(SHAPE, location, scale, strict=True)
    ]
    values = np.einsum("i,j,k->ijk", *lines)
    values -= values.min()
    return values / values.max()


PLACES = [((0.5, 0.5, 0.5), (0.2, 0.4, 1)), ((-0.4, 1.3, 0.2), (0.2, 0.3, 0.9))]


@pytest.mark.parametrize("location, scale", PLACES)
@pytest.mark.parametrize("centered", [False, True])
def test_it_adds_a_bump(location, scale, centered):
    b = bump(location, scale)
    if centered:
        b -= b.mean()
        b /= np.abs(b).max()
    got = mj.BrightnessGradient(-2.5, location, scale, mean_centered=centered)(DATA)
    np.testing.assert_allclose(got, DATA - 2.5 * b, atol=1e-4)


def test_the_range_is_that_of_the_whole_image_on_request():
    got = np.asarray(mj.BrightnessGradient(9.0, preserve_range=True)(DATA))
    assert got.max() == DATA.max() and got[0].max() == DATA.max() > DATA[0].max()


def test_a_shift_of_the_whole_image_moves_nothing_in_a_padded_one():
    import jax

    image = mj.ScalarImage(DATA)
    padded = jax.tree.map(lambda leaf: leaf[0], mj.stack([mj.Subject(t1=image)], shape=(25, 32, 24)))["t1"]
    t = mj.BrightnessGradient(3.0, (0.1, 1.2, 0.4), (0.3, 0.4, 0.5), mean_centered=True)
    np.testing.assert_allclose(np.asarray(t(padded).data)[:, :23, :31, :18], t(image).numpy(), atol=1e-5)


def test_what_is_drawn():
    drawn = draws(mj.RandomBrightnessGradient(per_channel=True))
    follow(drawn["strength"], Halves((-5, -1), (1, 5)))
    follow(drawn["location"], between(-0.5, 1.5))
    follow(drawn["log_scale"], between(-np.log(6), 0))
    drawn = draws(mj.RandomBrightnessGradient(1.0, scale=(0.1, 0.2, 0.1, 0.2, 0.1, 0.2)))
    np.testing.assert_array_equal(drawn["strength"], 1)
    follow(drawn["log_scale"], between(np.log(0.1), np.log(0.2)))


@pytest.mark.parametrize("arguments", [{"scale": 0}, {"strength": np.nan}, {"location": (1, 0)}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomBrightnessGradient(**arguments)
