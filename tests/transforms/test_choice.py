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
    assert repr(t).count("one gather") == 1 and repr(t).splitlines()[-2].endswith(
        "CropOrPad(target_shape=(8, 8, 8)),  one gather"
    )


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


KEEPERS = [
    mj.OneOf([mj.RandomNoise(keep={"t1": "before"}), mj.RandomGamma(keep={"t1": "before"})]),
    mj.SomeOf([mj.RandomFlip(2, keep={"t1": "before"}), mj.RandomGamma(0.3, keep={"t1": "before"})], num=1),
    mj.Compose([mj.RandomNoise(keep={"t1": "before"}), mj.RandomNoise(keep={"t1": "before"}, p=0.0)]),
    mj.Compose([mj.RandomAffine(keep={"t1": "before"}), mj.RandomAffine(keep={"t1": "before"}, p=0.0)]),
]


@pytest.mark.parametrize("t", KEEPERS, ids=lambda t: type(t).__name__)
def test_what_is_kept_is_that_of_the_member_that_acts(t, subject):
    """Members that a coin or a choice leaves out keep nothing: in all of them it is what came in."""
    subject = subject.replace(t1=subject.t1.replace(data=(100 * subject.t1.numpy()).astype(np.int16)))
    batch = t.batch(mj.stack([subject] * 4), KEYS[:4])
    for i, key in enumerate(KEYS[:4]):
        for result in (t(subject, key), mj.unstack(batch)[i], jax.jit(t)(subject, key)):
            np.testing.assert_array_equal(np.asarray(result.before.data), subject.t1.numpy())
            np.testing.assert_allclose(result.before.affine, subject.t1.affine, atol=1e-4)


def test_a_draw_inside_a_choice_sees_the_grid_that_it_will_act_on(subject):
    """A member that was not chosen changes no shape for those behind it."""
    t = mj.OneOf([mj.CropOrPad(6), mj.RandomSwap(3, 40)], weights=(0, 1))
    corners = np.asarray(t.sample(KEYS[0], subject)["members"][1]["draw"]["t1"]["locations"])
    assert (corners.reshape(-1, 3).max(0) > 6).all()


def test_a_name_that_is_taken_is_refused(subject):
    subject = subject.replace(age=45)
    for name in ("label", "age"):
        with pytest.raises(ValueError, match=f"makes an image '{name}', a name that the subject has already"):
            mj.Gamma(2.0, keep={"t1": name})(subject)
    with pytest.raises(ValueError, match="'label'.*has already"):
        mj.LabelsToImage(mean=(1,), std=(0,), image_key="label")(subject)
    with pytest.raises(ValueError, match="the name 'b' is given to copies of both 't1' and 'label'"):
        mj.Compose([mj.Gamma(2.0, keep={"t1": "b"}), mj.Flip(0, keep={"label": "b"})])(subject)
    with pytest.raises(ValueError, match="keep gives the name 'b' to images of shape"):
        mj.Compose([mj.Gamma(2.0, keep={"t1": "b"}, exclude=None), mj.CropOrPad(5, include=["t1", "label"]),
                    mj.RandomNoise(keep={"t1": "b"}, p=0.5)])(subject, KEYS[0])  # fmt: skip
