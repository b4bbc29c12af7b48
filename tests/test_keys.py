"""Keys: what is drawn hangs on what is asked, never on where it stands."""

import jax
import numpy as np
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


def test_raw_keys_become_typed_ones():
    for impl in ("threefry2x32", "rbg"):
        key = jax.random.key(5, impl=impl)
        for raw in (jax.random.key_data(key), np.asarray(jax.random.key_data(key))):
            assert keys.as_key(raw) == key


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
