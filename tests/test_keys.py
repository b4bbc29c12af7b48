"""Keys: what is drawn hangs on what is asked, never on where it stands."""

import jax
import numpy as np
import pytest
from conftest import small_subject

import medjax as mj
from medjax import keys

KEY = jax.random.key(0)


def bits(key):
    return np.asarray(jax.random.key_data(key)).tolist()


def test_all_derivations_of_one_key_differ():
    derived = [keys.for_step(KEY, i) for i in range(5)]
    derived += [keys.for_name(KEY, name) for name in ("coin", "degrees", "scales", "noise", "t1", "image:t1x")]
    derived += [keys.for_image(KEY, name) for name in ("t1", "t2")]
    derived += [keys.for_element(KEY, epoch, index) for epoch in range(3) for index in range(3)]
    assert len({tuple(bits(key)) for key in derived}) == len(derived)


def test_derivations_are_fold_in_of_what_is_asked():
    assert bits(keys.for_step(KEY, 3)) == bits(jax.random.fold_in(KEY, 3))
    assert bits(keys.for_element(KEY, 2, 7)) == bits(jax.random.fold_in(jax.random.fold_in(KEY, 2), 7))
    batch = keys.as_keys(KEY, 4)
    assert [bits(key) for key in batch] == [bits(jax.random.fold_in(KEY, i)) for i in range(4)]


def test_keys_of_a_batch_are_taken_as_they_are():
    own = jax.random.split(KEY, 3)
    assert bits(keys.as_keys(own, 3)) == bits(own) == bits(keys.as_keys(jax.random.key_data(own), 3))


IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


def stands_for(impl, default):
    """What a raw key is that PRNGKey(impl=impl) has made: what JAX takes it for, where its words fit the default."""
    if impl == "threefry2x32":
        return impl
    return "rbg" if default == "threefry2x32" else default


@pytest.mark.parametrize("default", IMPLEMENTATIONS)
def test_raw_keys_become_typed_ones_as_jax_takes_them(default):
    with jax.default_prng_impl(default):
        assert jax.random.key_impl(keys.as_key(jax.random.PRNGKey(5))) == jax.random.key_impl(jax.random.key(5))
        for impl in IMPLEMENTATIONS:
            want = jax.random.key(5, impl=stands_for(impl, default))
            raw = jax.random.key_data(want)
            for form in (raw, np.asarray(raw)):
                assert keys.as_key(form) == want and keys.as_keys(np.stack([form] * 3), 3)[1] == want


NOISE = mj.Compose([mj.RandomNoise(p=0.6), mj.RandomFlip((0, 1, 2))])
DATASET = mj.SubjectsDataset([small_subject(shape=(8, 7, 6), seed=i) for i in range(3)], NOISE)
COMPILED = jax.jit(NOISE)
SAMPLER = mj.UniformSampler(4)  # one, for which programs are kept


def patches(key):
    """The first batch of a queue of patches."""
    return next(iter(mj.PatchQueue(DATASET, SAMPLER, 2, key, samples_per_volume=2, max_length=3)))


DOORS = {
    "call": lambda key: NOISE(DATASET.read(0), key),
    "jit": lambda key: COMPILED(DATASET.read(0), keys.as_key(key)),
    "batch": lambda key: NOISE.batch(mj.stack([DATASET.read(i) for i in range(3)]), key),
    "loader": lambda key: next(iter(mj.loader(DATASET, 2, key))),
    "queue": patches,
    "sampler": lambda key: SAMPLER(DATASET.read(0), key),
    "sampler.batch": lambda key: SAMPLER.batch(DATASET.read(0), key, 3),
}


def plain(tree):
    """The leaves as NumPy's, keys as their implementation and words."""
    leaves = jax.tree.leaves(tree)
    is_key = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [(str(x.dtype), np.asarray(jax.random.key_data(x) if k else x)) for x, k in zip(leaves, is_key)]


def assert_equal(one, other):
    assert [kind for kind, _ in one] == [kind for kind, _ in other]
    for (_, a), (_, b) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_takes_keys_of_every_implementation_whatever_the_default(door):
    """A key means what it says; a raw one the typed one that JAX takes it for; another default changes neither."""
    run = DOORS[door]
    want = {impl: plain(run(jax.random.key(5, impl=impl))) for impl in IMPLEMENTATIONS}
    for default in IMPLEMENTATIONS:
        with jax.default_prng_impl(default):
            for impl in IMPLEMENTATIONS:
                assert_equal(plain(run(jax.random.key(5, impl=impl))), want[impl])
                assert_equal(plain(run(jax.random.PRNGKey(5, impl=impl))), want[stands_for(impl, default)])


@pytest.mark.parametrize("door", DOORS)
def test_places_orders_and_keys_do_not_hang_on_x64(door):
    want = plain(DOORS[door](KEY))
    with jax.enable_x64(True):
        found = plain(DOORS[door](KEY))
    for (kind, a), (_, b) in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=0 if a.dtype.kind in "iu" else 1e-5, err_msg=kind)


def test_the_keys_of_patches_are_of_the_queues_implementation_and_repeat_them():
    for impl in IMPLEMENTATIONS:
        batch = patches(jax.random.key(5, impl=impl))
        assert jax.random.key_impl(batch["key"]) == impl
        whole = [mj.Subject(NOISE(DATASET.read(i), batch["key"][0]).images) for i in range(3)]
        (i0, j0, k0), (i1, j1, k1) = np.asarray(batch[mj.LOCATION][0]).reshape(2, 3)
        boxes = [s.t1.numpy()[:, i0:i1, j0:j1, k0:k1] for s in whole]
        assert min(np.abs(box - batch.t1.data[0]).max() for box in boxes) < 1e-6


def logits(subject):
    return subject.t1.data


def test_tta_takes_several_keys_typed_or_raw_and_no_other():
    subject = DATASET.read(0)

    def mean(many):
        return plain(mj.tta(logits, subject, NOISE, many))

    for impl in IMPLEMENTATIONS:
        many = jax.random.split(jax.random.key(5, impl=impl), 2)
        with jax.default_prng_impl(impl):
            assert_equal(mean(many), mean(jax.random.key_data(many)))
        for one in (many[0], jax.random.key_data(many[0]), 3):
            with pytest.raises(TypeError, match="keys must be several"):
                mean(one)


def test_a_seed_means_the_same_whatever_the_default_and_on_x64():
    for seed in (0, 3, -1, 2**31 + 7, 2**40 + 3):
        want = bits(keys.of_seed(seed))
        for default in IMPLEMENTATIONS:
            with jax.default_prng_impl(default), jax.enable_x64(True):
                assert bits(keys.of_seed(seed)) == want


def test_the_draw_of_an_image_does_not_hang_on_its_neighbours_or_its_place():
    subject = small_subject()
    t1, t = subject.t1, mj.RandomGamma()
    draws = [
        t.sample(KEY, mj.Subject(s))["draw"]["t1"]["log_gamma"]
        for s in ({"t1": t1}, {"a": t1, "t1": t1}, {"t1": t1, "z": t1})
    ]
    assert draws[0] == draws[1] == draws[2]


def test_the_draw_of_a_member_hangs_on_its_path():
    """Equal members draw unlike one another, and what follows a member changes nothing in it."""
    subject = small_subject()

    def scales(*transforms):
        members = mj.Compose(transforms).sample(KEY, subject)["members"]
        return [np.asarray(m["draw"]["scales"]).tolist() for m in members if "scales" in m["draw"]]

    one, two = scales(mj.RandomAffine(), mj.RandomAffine())
    assert one != two
    assert scales(mj.RandomAffine(), mj.RandomFlip()) == [one]
    assert scales(mj.RandomFlip(), mj.RandomAffine()) == [two]


def test_the_same_is_drawn_alone_in_a_batch_under_jit_and_under_vmap():
    subjects = [small_subject(seed=i) for i in range(3)]
    ranges = [mj.RandomGamma(p=0.5), mj.RandomNoise(), mj.RandomBlur(), mj.RandomBiasField(0.7)]
    t = mj.Compose([*ranges, mj.RandomAffine(0.3, 7, 1), mj.RandomFlip((0, 1))])
    own = [jax.random.fold_in(KEY, i) for i in range(3)]
    alone = [t.sample(key, subject) for key, subject in zip(own, subjects)]
    run = jax.jit(t.sample)
    compiled = [run(key, subject) for key, subject in zip(own, subjects)]
    mapped = jax.jit(jax.vmap(t.sample))(keys.as_keys(KEY, 3), mj.stack(subjects))
    for i in range(3):
        for other in (compiled[i], jax.tree.map(lambda leaf, i=i: leaf[i], mapped)):
            for got, want in zip(jax.tree.leaves(other), jax.tree.leaves(alone[i]), strict=True):
                if jax.dtypes.issubdtype(got.dtype, jax.dtypes.prng_key):
                    got, want = jax.random.key_data(got), jax.random.key_data(want)
                np.testing.assert_array_equal(got, want)
