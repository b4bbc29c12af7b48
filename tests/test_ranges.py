"""How arguments expand into ranges: TorchIO's rules, as TorchIO itself expands them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.peer import tio

import medjax as mj
from medjax import ranges

FORMS = [0.3, (0.1, 0.5), (0.1, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]


@pytest.mark.parametrize("value", FORMS, ids=str)
@pytest.mark.parametrize("name", ["scales", "degrees", "translation"])
def test_numbers_per_axis_are_torchios(name, value):
    want = np.array(getattr(tio.RandomAffine(**{name: value}), name)).reshape(3, 2)
    np.testing.assert_allclose(getattr(mj.RandomAffine(**{name: value}), name), want, atol=1e-7)


@pytest.mark.parametrize("value", FORMS, ids=str)
def test_widths_per_axis_are_torchios(value):
    want = np.array(tio.RandomBlur(value).std_ranges).reshape(3, 2)
    np.testing.assert_allclose(mj.RandomBlur(value).std, want, atol=1e-7)


@pytest.mark.parametrize("value", [0.3, 0, (-0.1, 0.5), (0.2, 0.2)], ids=str)
def test_single_ranges_are_torchios(value):
    np.testing.assert_allclose(mj.RandomGamma(value).log_gamma, tio.RandomGamma(value).log_gamma_range, atol=1e-7)
    np.testing.assert_allclose(
        mj.RandomBiasField(value).coefficients, tio.RandomBiasField(value).coefficients_range, atol=1e-7
    )
    np.testing.assert_allclose(mj.RandomNoise(mean=value).mean, tio.RandomNoise(mean=value).mean_range, atol=1e-7)


@pytest.mark.parametrize("value", [0.3, 0, (0.1, 0.5)], ids=str)
def test_ranges_with_a_least_value_are_torchios(value):
    np.testing.assert_allclose(mj.RandomNoise(std=value).std, tio.RandomNoise(std=value).std_range, atol=1e-7)


def test_defaults_are_torchios():
    pairs = [
        (mj.RandomAffine().scales, np.reshape(tio.RandomAffine().scales, (3, 2))),
        (mj.RandomAffine().degrees, np.reshape(tio.RandomAffine().degrees, (3, 2))),
        (mj.RandomBlur().std, np.reshape(tio.RandomBlur().std_ranges, (3, 2))),
        (mj.RandomNoise().std, tio.RandomNoise().std_range), (mj.RandomGamma().log_gamma, tio.RandomGamma().log_gamma_range),
        (mj.RandomBiasField().coefficients, tio.RandomBiasField().coefficients_range),
        (mj.RandomElasticDeformation().max_displacement, tio.RandomElasticDeformation().max_displacement),
        (mj.RandomElasticDeformation().num_control_points, tio.RandomElasticDeformation().num_control_points),
        (mj.RandomFlip().flip_probability, tio.RandomFlip().flip_probability),
    ]  # fmt: skip
    for mine, peers in pairs:
        np.testing.assert_allclose(mine, peers, atol=1e-7)


@pytest.mark.parametrize("value", [10, 10.0, np.float64(10), np.array(10), [-10, 10], np.full((3, 2), [-10, 10])])
def test_whatever_the_form_the_leaf_is_one_float32_numpy_array(value):
    degrees = mj.RandomAffine(degrees=value).degrees
    assert isinstance(degrees, np.ndarray) and degrees.dtype == np.float32
    np.testing.assert_array_equal(degrees, np.full((3, 2), [-10, 10]))


def test_jax_numbers_stay_on_their_device_and_traced_ones_are_taken():
    assert isinstance(mj.RandomAffine(degrees=jnp.asarray(3.0)).degrees, jax.Array)
    got = jax.jit(lambda d: mj.RandomAffine(degrees=d).degrees)(4.0)
    np.testing.assert_array_equal(got, np.full((3, 2), [-4, 4]))
    got = jax.jit(lambda a, b: mj.RandomGamma((a, b)).log_gamma)(-1.0, 2.0)
    np.testing.assert_array_equal(got, [-1, 2])


def test_a_draw_lies_between_low_and_high_and_can_reach_both():
    key = jax.random.key(0)
    values = np.asarray(ranges.draw(key, np.array([[2.0, 2.0], [-1, 5]], np.float32), (500,)))
    assert values.shape == (500, 2) and np.all(values[:, 0] == 2)
    assert -1 <= values[:, 1].min() < -0.9 and 4.9 < values[:, 1].max() <= 5


def test_whole_numbers_are_drawn_with_both_ends():
    values = np.asarray(ranges.draw_integer(jax.random.key(1), np.array([3.0, 7.0], np.float32), (2000,)))
    assert values.dtype == np.int32
    counts = np.bincount(values, minlength=8)
    assert counts[:3].sum() == 0 and len(counts) == 8 and counts[3:].min() > 300
