"""What of a transform is structure and what is a leaf; above all its p, which is both."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import blobs, compilations, small_subject

import medjax as mj
from medjax.transforms.program import is_random

KEY = jax.random.key(0)
X = blobs((6, 5, 4))[None] + np.float32(0.1)


def leaves(t):
    return {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(t)}


@pytest.mark.parametrize("one", [1, 1.0, np.float32(1), np.ones(()), np.float64(1)], ids=repr)
def test_a_p_of_1_is_structure_and_any_other_a_leaf(one):
    assert set(leaves(mj.Gamma(1.5, p=one))) == set(leaves(mj.Gamma(1.5))) == {".gamma"}
    for p in (0.5, 0, np.float32(0.999), jnp.asarray(0.5), jnp.asarray(1.0)):
        t = mj.Gamma(1.5, p=p)
        assert set(leaves(t)) == {".gamma", ".p"} and is_random(t)
    assert mj.Gamma(1.5, p=one).p == 1 and not is_random(mj.Gamma(1.5, p=one))


@pytest.mark.parametrize("p, needed", [(1, False), (0.5, True), (0, True), (jnp.asarray(1.0), True)], ids=repr)
def test_a_key_is_needed_inside_of_a_trace_where_it_is_outside(p, needed):
    t = mj.Compose([mj.ZNormalization(p=p), mj.Gamma(2.0)])
    for call in (t, jax.jit(t), lambda x: jax.jit(lambda t, x: t(x))(t, x), lambda x: jax.vmap(t)(x[None])[0]):
        if needed:
            with pytest.raises(TypeError, match="Compose draws random numbers, so it needs a key"):
                call(X)
        else:
            np.testing.assert_allclose(call(X), t(X), atol=1e-5)


def test_it_stays_structure_through_trees_copies_and_pickles():
    t = mj.Gamma(1.5)
    for again in (
        jax.tree.map(lambda leaf: leaf, t), jax.tree.map(jnp.asarray, t), jax.device_put(t), copy.deepcopy(t),
        pickle.loads(pickle.dumps(t)), t.replace(gamma=1.5), mj.from_config(mj.to_config(t)),
    ):  # fmt: skip
        assert set(leaves(again)) == {".gamma"} and again.p == 1 and not is_random(again)
        np.testing.assert_allclose(again(X), X**1.5, atol=1e-6)


def test_the_gradient_is_that_of_the_power_without_a_key_and_p_has_none():
    gradient = jax.grad(lambda t: t(X).sum())(mj.Gamma(1.5))
    x = X.astype(np.float64)
    np.testing.assert_allclose(gradient.gamma, (x**1.5 * np.log(x)).sum(), rtol=1e-4)
    assert set(leaves(gradient)) == {".gamma"}


def test_an_optimiser_learns_a_strength_without_a_key():
    t, target = mj.Gamma(1.5), jnp.asarray(X**0.8)
    adam = optax.adam(0.05)

    @jax.jit
    def step(t, state):
        gradient = jax.grad(lambda t: jnp.mean((t(X) - target) ** 2))(t)
        updates, state = adam.update(gradient, state, t)
        return optax.apply_updates(t, updates), state

    state = adam.init(t)
    with jax.numpy_dtype_promotion("standard"):  # which optax asks for
        for _ in range(150):
            t, state = step(t, state)
    assert abs(float(t.gamma) - 0.8) < 0.01 and t.p == 1


def happens(t):
    """How often of 2000 times."""
    draw = jax.jit(lambda t, keys: jax.vmap(lambda key: t.sample(key, X)["on"])(keys))
    return np.asarray(draw(t, jax.random.split(KEY, 2000))).mean()


def test_a_p_that_is_a_leaf_is_what_the_tree_says_and_one_that_is_none_comes_by_replace():
    t = mj.Gamma(1.5, p=0.5)
    assert abs(happens(t) - 0.5) < 0.04
    assert abs(happens(jax.tree.map(lambda leaf: leaf / 2, t)) - 0.25) < 0.04
    assert happens(jax.tree.map(lambda leaf: leaf / 2, mj.Gamma(1.5))) == 1
    assert abs(happens(mj.Gamma(1.5).replace(p=0.3)) - 0.3) < 0.04
    assert abs(happens(mj.Gamma(1.5, p=jnp.asarray(1.0)).replace(p=jnp.asarray(0.3))) - 0.3) < 0.04
    with pytest.raises(ValueError, match="None"):  # not one p for both
        jax.tree.map(np.add, mj.Gamma(1.5), t)


def test_a_traced_p_is_a_leaf_whatever_it_holds():
    scheduled = jax.jit(lambda p, key: mj.Gamma(2.0).replace(p=p)(X, key))
    np.testing.assert_allclose(scheduled(1.0, KEY), X**2, atol=1e-6)
    np.testing.assert_array_equal(scheduled(0.0, KEY), X)
    with pytest.raises(TypeError, match="Gamma draws random numbers, so it needs a key"):
        jax.jit(lambda p: mj.Gamma(2.0).replace(p=p)(X))(1.0)


def test_a_schedule_of_p_compiles_once_and_once_more_for_the_number_1():
    subject = small_subject(shape=(6, 5, 4))
    t = mj.RandomNoise(p=0.3)
    t(subject, KEY)
    arrays = [jnp.asarray(value, jnp.float32) for value in (0.2, 1.0)]  # which may take a program themselves
    with compilations() as count:
        for p in (0.0, 0.7, np.float32(0.9), *arrays):
            t.replace(p=p)(subject, KEY)
    assert count() == 0
    t.replace(p=1)(subject, KEY)
    with compilations() as count:
        t.replace(p=1.0)(subject, jax.random.key(1))
    assert count() == 0


@pytest.mark.parametrize("make", [lambda p: mj.Compose([mj.Flip(0)], p=p), lambda p: mj.CropOrPad(4, p=p)])
def test_where_p_is_structure_a_traced_one_is_refused(make):
    with pytest.raises(TypeError, match="p must be known while tracing here"):
        jax.jit(lambda p: make(p)(X, KEY))(0.5)


@pytest.mark.parametrize("p, message", [(1.5, "p must be at most 1"), (-1, "p must be at least 0"),
                                        ((0.1, 0.2), "p must be one number"), (np.nan, "p must be finite")])  # fmt: skip
def test_what_is_no_probability_is_refused(p, message):
    with pytest.raises(ValueError, match=message):
        mj.Gamma(1.5, p=p)
