"""nnU-Net's normalisation of computed tomography."""

import jax
import numpy as np
import pytest
from conftest import blobs

import medjax as mj

NUMBERS = dict(low=-960.0, high=1200.0, mean=98.0, std=142.0)


def hounsfield():
    return (blobs() * 4000 - 1500).astype(np.float32)[None]


def test_it_clips_then_normalises():
    want = (np.clip(hounsfield().astype(float), -960, 1200) - 98) / 142
    np.testing.assert_allclose(mj.CTNormalization(**NUMBERS)(hounsfield()), want, atol=1e-5)


def test_the_inverse_recovers_what_was_not_clipped():
    t, subject = mj.CTNormalization(**NUMBERS), mj.Subject(ct=mj.ScalarImage(hounsfield()))
    back = t.invert(t(subject), t.sample(jax.random.key(0), subject), like=subject).ct.numpy()
    np.testing.assert_allclose(back, np.clip(hounsfield(), -960, 1200), atol=1e-2)


@pytest.mark.parametrize("changes, message", [
    ({"low": 2000}, "low=2000 is greater than high=1200"), ({"std": 0}, "std must be at least"),
    ({"mean": None}, "mean must be made of numbers, got None"), ({"std": None}, "std must be made of"),
    ({"mean": (1, 2)}, "mean must be one number"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        mj.CTNormalization(**{**NUMBERS, **changes})
