"""OneOf, SomeOf, nests and p on a group: who is chosen, how often, and that only the chosen acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_subject
from scipy.stats import binomtest, chisquare

import medjax as mj

KEYS = jax.random.split(jax.random.key(11), 2000)


def chosen(t, subject):
    """What is drawn for every key."""
    return jax.jit(jax.vmap(t.sample, (0, None)))(KEYS, subject)["draw"]


def test_one_of_follows_the_weights(subject):
    t = mj.OneOf({mj.RandomFlip(): 1, mj.RandomNoise(): 2, mj.RandomAffine(): 5})
    counts = np.bincount(np.asarray(chosen(t, subject)["chosen"]), minlength=3)
    assert chisquare(counts, np.array([1, 2, 5]) / 8 * len(KEYS)).pvalue > 1e-3


def test_equal_weights_by_default_and_none_of_weight_zero(subject):
    t = mj.OneOf([mj.RandomFlip(), mj.RandomNoise()], weights=(1, 0))
    assert (np.asarray(chosen(t, subject)["chosen"]) == 0).all()
    equal = mj.OneOf([mj.RandomFlip(), mj.RandomNoise()])
    assert abs(np.asarray(chosen(equal, subject)["chosen"]).mean() - 0.5) < 0.05


def test_some_of_takes_each_equally_and_as_many_as_asked(subject):
    members = [mj.RandomFlip(), mj.RandomNoise(), mj.RandomGamma(), mj.RandomAffine()]
    taken = np.asarray(chosen(mj.SomeOf(members, num=(1, 3)), subject)["taken"])
    assert chisquare(np.bincount(taken.sum(1))[1:]).pvalue > 1e-3
    assert chisquare(taken.sum(0)).pvalue > 1e-3


def test_only_the_chosen_acts(subject):
    members = [mj.Affine(degrees=20), mj.Gamma(2.0), mj.Flip((0, 1))]
    t = mj.OneOf(members)
    seen = set()
    for key in KEYS[:12]:
        index = int(t.sample(key, subject)["draw"]["chosen"])
        seen.add(index)
        expected, result = members[index](subject), t(subject, key)
        np.testing.assert_allclose(result.t1.numpy(), expected.t1.numpy(), atol=1e-6)
        np.testing.assert_array_equal(result.label.numpy(), expected.label.numpy())
    assert seen == {0, 1, 2}


def test_some_of_keeps_the_order(subject):
    members = [mj.Gamma(2.0), mj.Noise(mean=0.5, std=0.0), mj.Gamma(0.5)]
    result = mj.SomeOf(members, num=3)(subject, KEYS[0])
    np.testing.assert_allclose(result.t1.numpy(), mj.Compose(members)(subject).t1.numpy(), atol=1e-6)


def test_each_element_of_a_batch_has_its_own_choice(subject):
    t = mj.OneOf([mj.Gamma(2.0), mj.Flip(0), mj.Affine(degrees=30)])
    batch = mj.stack([subject] * 8)
    result = t.batch(batch, KEYS[:8])
    for one, key in zip(mj.unstack(result), KEYS[:8], strict=True):
        np.testing.assert_allclose(np.asarray(one.t1.data), t(subject, key).t1.numpy(), atol=1e-5)


def test_p_of_a_group_is_one_coin_for_all_of_it(subject):
    inner = mj.Compose([mj.Gamma(2.0), mj.Noise(mean=1.0, std=0.0)], p=0.5)
    t = mj.Compose([mj.OneOf([inner], p=0.8), mj.Flip(0)])
    seen = set()
    for key in KEYS[:16]:
        out = mj.Flip(0)(t(subject, key)).t1.numpy()
        plain, both = subject.t1.numpy(), subject.t1.numpy() ** 2 + 1
        which = [np.allclose(out, value, atol=1e-5) for value in (plain, both)]
        assert sum(which) == 1
        seen.add(which.index(True))
    assert seen == {0, 1}


def test_nested_spatial_choices_fuse_into_one_gather():
    t = mj.Compose([mj.OneOf([mj.RandomAffine(), mj.RandomElasticDeformation()]), mj.RandomFlip(), mj.CropOrPad(8)])
    assert repr(t).count("one gather: ") == 1 and len(repr(t).splitlines()) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mj.OneOf([]), "transforms is empty"),
        (lambda: mj.OneOf([mj.RandomFlip()], weights=(1, 2)), "one number for each of 1"),
        (lambda: mj.OneOf([mj.RandomFlip()], weights=(-1,)), "weights must be at least 0"),
        (lambda: mj.OneOf([mj.RandomFlip()], weights=(0,)), "must not all be 0"),
        (lambda: mj.SomeOf([mj.RandomFlip()], num=2), "exceeds the 1 transforms"),
        (lambda: mj.SomeOf([mj.RandomFlip()], num=0.5), "whole number"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_change_of_channels_cannot_be_chosen():
    subject = small_subject()
    with pytest.raises(ValueError, match="changes the number of channels"):
        mj.OneOf([mj.OneHot(4), mj.RandomFlip()])(subject, KEYS[0])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_the_last_elements_of_a_batch_are_nnunets(size):
    t = mj.LastElements([mj.Lambda(lambda x: x + 1), mj.Lambda(lambda x: x - 1)], fraction=0.33)
    last = np.array([i >= round(size * (1 - 0.33)) for i in range(size)])  # nnunetv2, nnUNetDataLoader
    batch = np.zeros((size, 1, 2, 3, 4), np.float32)
    for key in (jax.random.key(0), jax.random.split(jax.random.key(1), size)):
        np.testing.assert_array_equal(np.asarray(t.batch(batch, key))[:, 0, 0, 0, 0], np.where(last, 1, -1))
    inside = jax.jit(lambda x: t.batch(x, jax.random.key(2)))(batch)
    np.testing.assert_array_equal(inside[:, 0, 0, 0, 0], np.where(last, 1, -1))


def test_alone_an_element_is_one_of_the_last_with_the_probability_of_their_share():
    t = mj.LastElements([mj.Lambda(lambda x: x + 1), mj.Lambda(lambda x: x)], fraction=0.33)
    drawn = jax.vmap(t)(jnp.zeros((2000, 1, 1, 1, 1)), jax.random.split(jax.random.key(0), 2000))
    assert binomtest(int(drawn.sum()), 2000, 0.33).pvalue > 1e-3
