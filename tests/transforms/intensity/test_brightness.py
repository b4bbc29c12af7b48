"""A factor and a shift."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import Halves, between, draws, follow


def test_it_is_a_factor_and_a_shift():
    x = blobs()[None]
    np.testing.assert_allclose(mj.Brightness(1.5, -0.25)(x), x.astype(float) * 1.5 - 0.25, atol=1e-6)


def test_the_inverse_takes_it_back():
    subject, t = small_subject(), mj.RandomBrightness(shift=(1, 2), per_channel=True)
    params = t.sample(jax.random.key(0), subject)
    there = t.apply(subject, params)
    assert np.abs(there.t1.numpy() - subject.t1.numpy()).max() > 0.1
    np.testing.assert_allclose(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy(), atol=1e-5)


def test_what_is_drawn():
    follow(draws(mj.RandomBrightness(per_channel=True))["factor"], Halves((0.75, 1), (1, 1.25)))
    additive = draws(mj.RandomBrightness(1, shift_std=0.5, per_channel=True))
    np.testing.assert_array_equal(additive["factor"], 1)
    follow(additive["shift"], stats.norm(0, 0.5))
    follow(draws(mj.RandomBrightness(shift=(-1, 3)))["shift"], between(-1, 3))


@pytest.mark.parametrize("arguments", [{"factor": 0}, {"shift_std": -1}, {"shift": (1, 0)}])
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        mj.RandomBrightness(**arguments)
