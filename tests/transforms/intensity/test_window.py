"""Windows of computed tomography, and nnU-Net's normalisation."""

import jax
import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from medjax.transforms.intensity.window import WINDOWS

KEY = jax.random.key(0)


def hounsfield():
    return (blobs() * 4000 - 1000).astype(np.int16)[None]


@pytest.mark.parametrize("name", WINDOWS)
def test_a_name_stands_for_center_and_width(name):
    center, width = WINDOWS[name]
    got = mj.Window(name)(hounsfield())
    low, high = center - width / 2, center + width / 2
    want = (np.clip(hounsfield().astype(float), low, high) - low) / width
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_array_equal(got, mj.Window(center, width)(hounsfield()))


def test_the_edges_of_the_window_are_those_of_the_new_range():
    edges = np.array([-5000, -1350, -600, 150, 5000], np.float32).reshape(1, 5, 1, 1)
    np.testing.assert_allclose(mj.Window("lung", out_min_max=(-1, 3))(edges).ravel(), [-1, -1, 1, 3, 3], atol=1e-6)


def test_the_inverse_recovers_what_was_not_clipped():
    data = hounsfield().astype(np.float32)
    t = mj.Window("bone", out_min_max=2)
    subject = mj.Subject(ct=mj.ScalarImage(data))
    params = t.sample(jax.random.key(0), subject)
    back = t.invert(t(subject), params, like=subject).ct.numpy()
    np.testing.assert_allclose(back, np.clip(data, -500, 1300), atol=1e-2)


def test_center_and_width_have_gradients():
    data = hounsfield() + np.float32(0.5)  # none on the ends
    gradient = jax.grad(lambda t: t(data, KEY).sum())(mj.Window(50, 400))
    inside = data[(data > -150) & (data < 250)].astype(float)
    np.testing.assert_allclose(gradient.center, -len(inside) / 400, rtol=1e-4)
    np.testing.assert_allclose(gradient.width, -((inside - 50) / 400**2).sum(), rtol=1e-3, atol=1e-3)


def test_nan_stays_alone():
    data = hounsfield().astype(np.float32)
    data[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    got = np.asarray(mj.Window("brain")(data))
    np.testing.assert_array_equal(got[0, 0, 0, :3], [np.nan, 1, 0])
    assert np.isnan(got).sum() == 1


@pytest.mark.parametrize("arguments, message", [
    (("lungs",), "center='lungs' is not one of .*Did you mean 'lung'"), ((40,), "width is missing"),
    (("lung", 80), "leave width out"), ((40, 0), "width must be at least"), ((40, -3), "width must be at least"),
    ((None, 3), "center must be a number or one of"), (((1, 2), 3), "center must be one number"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mj.Window(*arguments)
