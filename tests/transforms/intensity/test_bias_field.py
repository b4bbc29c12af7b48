"""The polynomial of BiasField, against NumPy in float64."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject

import medjax as mj

SHAPE = (23, 31, 18)


def field(coefficients, order, shape=SHAPE):
    """Sum of c X^a Y^b Z^c, the last power fastest, X, Y, Z from -1 to 1 along the axes."""
    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    powers = [(a, b, c) for a in range(order + 1) for b in range(order + 1 - a) for c in range(order + 1 - a - b)]
    return sum(weight * x**a * y**b * z**c for weight, (a, b, c) in zip(coefficients, powers, strict=True))


@pytest.mark.parametrize("order", [0, 2, 5])
def test_the_field_is_the_polynomial(order):
    size = (order + 1) * (order + 2) * (order + 3) // 6
    coefficients = np.random.default_rng(order).uniform(-0.3, 0.3, size)
    data = np.stack([blobs() + 1, -blobs()])
    got = mj.BiasField(coefficients, order)(data)
    np.testing.assert_allclose(got, data * np.exp(field(coefficients, order)), rtol=2e-5, atol=1e-6)


def test_w37_the_first_coefficient_is_a_gain():
    data = blobs()[None]
    np.testing.assert_allclose(mj.BiasField([0.5], 0)(data), data * np.exp(0.5), rtol=1e-6)


def test_the_inverse_divides_it_away():
    data, coefficients = blobs()[None] + 1, np.linspace(-0.4, 0.4, 20)
    np.testing.assert_allclose(mj.BiasField(-coefficients)(mj.BiasField(coefficients)(data)), data, rtol=1e-5)


def test_the_random_one_draws_for_each_image_or_once_for_all():
    subject = small_subject()
    subject = mj.Subject(t1=subject.t1, t2=subject.t1)
    own = mj.RandomBiasField()(subject, jax.random.key(0))
    assert np.abs(own.t1.numpy() - own.t2.numpy()).max() > 1e-2
    one = mj.RandomBiasField(shared=True)(subject, jax.random.key(0))
    np.testing.assert_array_equal(one.t1.numpy(), one.t2.numpy())


NONSENSE = [([0.1] * 19, 3), ([], 0), ([[0.1]], 0), ([np.nan], 0), ([0.1], -1), ([0.1], 1.5)]


@pytest.mark.parametrize("coefficients, order", NONSENSE)
def test_arguments_that_make_no_sense_are_refused(coefficients, order):
    with pytest.raises(ValueError, match=r"order|coefficients"):
        mj.BiasField(coefficients, order)


def test_w37_without_a_constant_the_middle_is_not_changed():
    coefficients = np.random.default_rng(0).uniform(-0.5, 0.5, 19)
    data = np.ones((1, *SHAPE), np.float32)
    got = np.asarray(mj.BiasField(coefficients, constant=False)(data))
    np.testing.assert_allclose(got[0], np.exp(field([0, *coefficients], 3)), rtol=2e-5)
    np.testing.assert_allclose(mj.RandomBiasField(constant=False, order=0)(data, jax.random.key(0)), data)
    with pytest.raises(ValueError, match="19 coefficients"):
        mj.BiasField(np.zeros(20), constant=False)


@pytest.mark.parametrize("constant", [True, False])
def test_the_inverse_divides_by_the_field(constant):
    subject, t = small_subject(), mj.RandomBiasField(constant=constant)
    params = t.sample(jax.random.key(3), subject)
    there = t.apply(subject, params)
    assert np.abs(there.t1.numpy() - subject.t1.numpy()).max() > 0.1
    np.testing.assert_allclose(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "t",
    [
        mj.RandomBiasField(1e30),
        mj.RandomBiasField(mj.Normal(0, 1e30)),
        mj.RandomBSplineBiasField(std=mj.Normal(0, 1e30, low=0)),
        mj.BSplineBiasField(np.full((4, 4, 4), 1e30)),
    ],
    ids=repr,
)
def test_no_gain_makes_a_voxel_infinite(t):
    got = np.asarray(t(np.full((1, 6, 5, 4), 1000, np.float32), jax.random.key(0)))
    assert np.isfinite(got).all() and (got > 0).all()
