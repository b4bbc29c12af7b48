"""Distributions in place of ranges: every argument that takes a range takes them, and they draw what SciPy says."""

import json
from dataclasses import fields

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import medjax as mj
from medjax.distributions import DISTRIBUTIONS
from medjax.ranges import draw, support
from tests.test_arguments import NONSENSE, value_of
from tests.test_laws import CASES, key, subject_of, transform_of

COUNT = 4000
TRUTHS = {
    "normal": (mj.Normal(2.0, 0.5), stats.norm(2, 0.5)),
    "truncated": (mj.Normal(0.0, 1.0, low=-0.5, high=2.0), stats.truncnorm(-0.5, 2)),
    "truncated above": (mj.Normal(1.0, 2.0, high=0.0), stats.truncnorm(-np.inf, -0.5, loc=1, scale=2)),
    "log-normal": (mj.LogNormal(0.3, 0.4), stats.lognorm(0.4, scale=np.exp(0.3))),
    "log-uniform": (mj.LogUniform(0.5, 8.0), stats.loguniform(0.5, 8)),
}

DISTRIBUTION_OF = {
    "Normal": mj.Normal(0.0, 1.0),
    "LogNormal": mj.LogNormal(0.0, 1.0),
    "LogUniform": mj.LogUniform(1.0, 2.0),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_what_is_drawn_is_what_scipy_says(name):
    given, truth = TRUTHS[name]
    values = np.asarray(draw(jax.random.key(1), given, (COUNT,)))
    assert values.dtype == np.float32 and stats.kstest(values, truth.cdf).pvalue > 1e-3
    low, high = support(given)
    assert low <= values.min() and values.max() <= high
    compiled = jax.jit(draw, static_argnums=2)(jax.random.key(1), given, (COUNT,))
    np.testing.assert_allclose(compiled, values, rtol=5e-7 if "log" in name else 0)  # exponentials to the last bits


def ranged():
    """(transform, field, the range that it has in the table of laws) for each field that takes a distribution."""
    for name in CASES:
        t = transform_of(name)
        for f in fields(t):
            try:
                taken = f.metadata["convert"](f.name, mj.Normal(0.5, 0.1, low=0.45, high=0.55))
            except (KeyError, TypeError, ValueError):
                continue
            if isinstance(taken, mj.Normal):
                yield pytest.param(name, f.name, id=f"{name}-{f.name}")


FIELDS = list(ranged())


def test_most_random_arguments_take_a_distribution():
    assert len(FIELDS) >= 30 and {p.values[1] for p in FIELDS} >= {"std", "degrees", "log_gamma", "factor", "zoom"}


def test_only_what_is_drawn_takes_a_distribution():
    assert [name for name, _ in (p.values for p in FIELDS) if not transform_of(name).random] == []


@pytest.mark.parametrize("name, field", FIELDS)
def test_a_distribution_of_one_point_is_that_number_and_goes_through_configurations(name, field):
    t, s = transform_of(name, p=1.0) if "p" not in CASES[name].skip else transform_of(name), subject_of()
    point = 0.5
    one = t.replace(**{field: mj.Normal(point, 0.0, low=point - 0.05, high=point + 0.05)})
    ready = next(f for f in fields(t) if f.name == field).metadata["convert"](field, (point, point))
    other = t.replace(**{field: ready})
    for a, b in zip(jax.tree.leaves(one.sample(key(), s)), jax.tree.leaves(other.sample(key(), s)), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    again = mj.from_config(json.loads(json.dumps(mj.to_config(one))))
    assert repr(again) == repr(one)


def test_a_patch_queue_reads_as_far_as_a_distribution_reaches():
    blur = mj.RandomBlur(mj.Normal(0.5, 0.2, low=0.0, high=1.25))
    assert blur.margin(np.ones(3)) == (5, 5, 5)
    assert mj.RandomBlur(mj.LogNormal(0.0, 0.2)).margin(np.ones(3)) is None


def test_an_optimiser_reaches_the_numbers_of_a_distribution():
    t = mj.RandomGamma(mj.Normal(0.1, 0.2))
    x = jnp.linspace(0.1, 0.9, 27).reshape(1, 3, 3, 3)
    slope = jax.grad(lambda t: t(x, jax.random.key(0)).sum())(t).log_gamma
    assert all(np.isfinite(v) for v in (slope.mean, slope.std)) and slope.mean != 0
    mean = jnp.asarray(0.1)
    nearby = [float(mj.RandomGamma(mj.Normal(mean + d, 0.2))(x, jax.random.key(0)).sum()) for d in (-1e-2, 1e-2)]
    np.testing.assert_allclose(slope.mean, (nearby[1] - nearby[0]) / 2e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: mj.RandomAffine(scales=mj.Normal(1, 0.1)),
            r"scales must be at least 1e-06, but Normal.* give it low=",
        ),
        (lambda: mj.RandomAffine(shears=mj.Normal(0, 0.1, low=-0.3)), "shears must be at most 0.4"),
        (lambda: mj.RandomGamma(mj.Normal([0, 0.1, 0.2], 0.1)), "log_gamma is one number, not one for each axis"),
        (lambda: mj.RandomMotion(num_transforms=mj.Normal(2, 1)), "num_transforms"),
        (lambda: mj.Noise(std=mj.Normal(2, 1)), "std must be"),
        (lambda: mj.Normal(0, -1), "std must be at least 0"),
        (lambda: mj.Normal(0, 1, low=1, high=0), "low must be below high"),
        (lambda: mj.Normal([0, 1], 1), "mean of Normal.* must be one number or three"),
        (lambda: mj.Normal("a"), "mean"),
        (lambda: mj.LogUniform(0, 1), "low must be above 0"),
        (lambda: mj.LogUniform(2, 1), "low must not be above high"),
        (lambda: mj.LogNormal(low=-1), "low must be at least 0"),
        (lambda: mj.from_config({"name": "Normal", "mean": 0.0, "std": 1.0}), "there is no transform 'Normal'"),
    ],
)
def test_what_makes_no_distribution_is_refused_by_name(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_each_is_public():
    assert all(getattr(mj, name) is cls for name, cls in DISTRIBUTIONS.items())


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_nonsense_is_refused_by_name_or_draws_finite_numbers(name):
    right = {f.name: getattr(DISTRIBUTION_OF[name], f.name) for f in fields(DISTRIBUTION_OF[name])}
    built = 0
    for field in right:
        for kind in NONSENSE:
            try:
                made = DISTRIBUTIONS[name](**{**right, field: value_of(kind)})
            except (TypeError, ValueError) as error:
                assert field in str(error).split("(")[0], f"{field}, {kind}: {error}"
                continue
            values = np.asarray(made.sample(jax.random.key(0), (20, *made.shape)))
            assert np.isfinite(values).all(), (field, kind)
            built += 1
    assert built > 4, "some of it is no nonsense"
