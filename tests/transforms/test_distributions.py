"""What random transforms draw has the documented distribution: 4000 draws under fixed keys, p-values over 1e-3."""

from functools import cache, partial

import jax
import numpy as np
import pytest
from conftest import OBLIQUE
from scipy import stats

import medjax as mj

COUNT = 4000
IMAGE = mj.ScalarImage(np.zeros((2, 5, 6, 7), np.float32), OBLIQUE)
SUBJECT = mj.Subject(t1=IMAGE, t2=IMAGE)


def between(*ends):
    """Uniform on each (low, high)."""
    return [stats.uniform(low, high - low) for low, high in ends]


CASES = {
    # name: (transform, {parameter: distribution of each of its numbers})
    "affine": (
        mj.RandomAffine(scales=(0.7, 0.9, 1, 1.2, 0.8, 1.5), degrees=(10, 20, 0.1), translation=(-3, 8)),
        {
            "scales": between((0.7, 0.9), (1, 1.2), (0.8, 1.5)),
            "degrees": between((-10, 10), (-20, 20), (-0.1, 0.1)),
            "translation": between(*[(-3, 8)] * 3),
        },
    ),
    "affine by default": (
        mj.RandomAffine(translation=5),
        {
            "scales": between(*[(0.9, 1.1)] * 3),
            "degrees": between(*[(-10, 10)] * 3),
            "translation": between(*[(-5, 5)] * 3),
        },
    ),
    "elastic": (
        mj.RandomElasticDeformation((4, 5, 4), (3, 2, 7), locked_borders=1),
        {"control_points": between(*[(-3, 3), (-2, 2), (-7, 7)] * 12)},
    ),
    "crop": (mj.CropOrPad(3, location="random"), {"start": between(*[(0, 1)] * 3)}),
    "noise": (mj.RandomNoise(2, (0.5, 1)), {"mean": between((-2, 2)), "std": between((0.5, 1))}),
    "noise by default": (mj.RandomNoise(mean=(-1, 3)), {"mean": between((-1, 3)), "std": between((0, 0.25))}),
    "gamma": (mj.RandomGamma((-0.5, 0.1)), {"log_gamma": between(*[(-0.5, 0.1)] * 2)}),
    "gamma by default": (mj.RandomGamma(), {"log_gamma": between(*[(-0.3, 0.3)] * 2)}),
    "blur": (mj.RandomBlur((1, 3, 0.2)), {"std": between((0, 1), (0, 3), (0, 0.2))}),
    "blur by default": (mj.RandomBlur(), {"std": between(*[(0, 2)] * 3)}),
    "bias field": (mj.RandomBiasField((-0.2, 0.7), 2), {"coefficients": between(*[(-0.2, 0.7)] * 10)}),
    "bias field by default": (mj.RandomBiasField(), {"coefficients": between(*[(-0.5, 0.5)] * 20)}),
}


@jax.jit
def draws(t, keys):
    """The params of many calls; p and the ranges are arguments of the program."""
    return jax.vmap(lambda key: t.sample(key, SUBJECT))(keys)


def keys():
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(2024)))(np.arange(COUNT, dtype=np.uint32))


@cache
def sampled(name, p=1.0):
    """{parameter: (COUNT, n)} of the first image, or of the subject; and the coins (COUNT,)."""
    t = CASES[name][0].replace(p=p)
    params = draws(t, keys())
    drawn = params["draw"]["t1"] if "t1" in params["draw"] else params["draw"]
    numbers = {n: np.asarray(drawn[n], float).reshape(COUNT, -1) for n in CASES[name][1]}
    if name == "elastic":
        moving = numbers["control_points"].any(0)
        assert moving.sum() == 3 * 2 * 3 * 2
        numbers["control_points"] = numbers["control_points"][:, moving]
    return numbers, np.asarray(params["on"])


def check(values, distribution):
    assert stats.kstest(values, distribution.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_has_its_documented_distribution(name):
    numbers, on = sampled(name)
    assert on.all()
    for parameter, distributions in CASES[name][1].items():
        assert numbers[parameter].shape[1] == len(distributions)
        for values, distribution in zip(numbers[parameter].T, distributions, strict=True):
            check(values, distribution)


@pytest.mark.parametrize("name", CASES)
def test_pairs_of_parameters_are_uncorrelated(name):
    table = np.concatenate(list(sampled(name)[0].values()), 1)
    r = np.corrcoef(table.T)
    assert np.all(np.abs(r - np.eye(len(table.T))) < 0.1)


GATED = [name for name in CASES if name != "crop"]  # its p decides a shape, so it is structure


@pytest.mark.parametrize("name", GATED)
def test_the_coin_has_its_frequency_and_the_parameters_do_not_know_it(name):
    numbers, on = sampled(name, p=0.3)
    assert stats.binomtest(int(on.sum()), COUNT, 0.3).pvalue > 1e-3
    for parameter, distributions in CASES[name][1].items():
        for values, distribution in zip(numbers[parameter].T, distributions, strict=True):
            check(values[on], distribution)
            check(values[~on], distribution)
            assert abs(np.corrcoef(values, on)[0, 1]) < 0.1


@pytest.mark.parametrize("name", GATED)
def test_p_changes_nothing_that_is_drawn(name):
    for parameter, values in sampled(name)[0].items():
        np.testing.assert_array_equal(values, sampled(name, p=0.3)[0][parameter])


@pytest.mark.parametrize("p", [0.0, 0.1, 0.75, 1.0])
def test_coins_of_members_of_a_pipeline_are_independent(p):
    t = mj.Compose([mj.RandomGamma(p=p), mj.RandomGamma(p=p), mj.RandomFlip(p=p), mj.Compose([mj.RandomBlur(p=p)])])
    params = draws(t, keys())["members"]
    coins = np.array([m["on"] for m in params[:3]] + [params[3]["members"][0]["on"]])
    for coin in coins:
        assert stats.binomtest(int(coin.sum()), COUNT, p).pvalue > 1e-3
    if 0 < p < 1:
        assert np.all(np.abs(np.corrcoef(coins) - np.eye(4)) < 0.1)


def test_members_of_a_pipeline_draw_independently():
    t = mj.Compose([mj.RandomGamma(), mj.RandomGamma(), mj.RandomNoise(3)])
    params = draws(t, keys())["members"]
    first, second = (np.asarray(m["draw"]["t1"]["log_gamma"], float) for m in params[:2])
    mean = np.asarray(params[2]["draw"]["t1"]["mean"], float)
    r = np.corrcoef(np.column_stack([first, second, mean]).T)
    assert np.all(np.abs(r - np.eye(5)) < 0.1)


@pytest.mark.parametrize("probability", [0.2, 0.5])
def test_each_axis_is_flipped_with_its_probability_on_its_own(probability):
    t = mj.RandomFlip((0, "AP", "IS"), flip_probability=probability)
    flips = np.asarray(draws(t, keys())["draw"]["flip"])
    for flip in flips.T:
        assert stats.binomtest(int(flip.sum()), COUNT, probability).pvalue > 1e-3
    assert np.all(np.abs(np.corrcoef(flips.T) - np.eye(3)) < 0.1)


def test_a_random_crop_takes_every_place_alike():
    """Places 0, 1, 2 of an axis of 7 voxels, 0 to 3 of one of 6, and the only one of 3."""
    ramp = np.stack(np.indices((7, 6, 3))).astype(np.float32)
    t = mj.CropOrPad((5, 3, 3), location="random")
    first = np.asarray(jax.jit(jax.vmap(lambda key: t(ramp, key)[:, 0, 0, 0]))(keys()))
    for values, places in zip(first.T, (3, 4, 1)):
        counts = np.bincount(values.astype(int), minlength=places)
        assert len(counts) == places
        assert places == 1 or stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.corrcoef(first[:, :2].T)[0, 1]) < 0.1


def test_images_draw_their_own_unless_shared():
    for shared in (False, True):
        t = mj.RandomNoise(1, shared=shared)
        drawn = draws(t, keys())["draw"]
        first, second = (np.asarray(drawn[name]["mean"], float) for name in ("t1", "t2"))
        check(second, *between((-1, 1)))
        assert np.array_equal(first, second) if shared else abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_isotropic_scales_are_one_number_uniform():
    t = mj.RandomAffine((0.8, 1.4), isotropic=True)
    scales = np.asarray(draws(t, keys())["draw"]["scales"], float)
    np.testing.assert_array_equal(scales[:, :1] + np.zeros(3), scales)
    check(scales[:, 0], *between((0.8, 1.4)))


def test_with_rbg_keys_the_distributions_hold():
    t = mj.RandomAffine(degrees=(-5, 15))
    raw = jax.random.split(jax.random.key(1, impl="rbg"), COUNT)
    degrees = np.asarray(draws(t, raw)["draw"]["degrees"], float)
    for values in degrees.T:
        check(values, *between((-5, 15)))
