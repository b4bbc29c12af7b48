"""What is done between the elements of a batch: what all kinds have in common."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats

import medjax as mj

SHAPE = (9, 10, 8)
KINDS = [mj.MixUp(1.0), mj.CutMix(), mj.CopyPaste(labels=(3,), rim=2)]
each_kind = pytest.mark.parametrize("t", KINDS, ids=lambda t: type(t).__name__)
KEY = jax.random.key(4)


def batch_of(size=5, **metadata):
    """Small subjects, each with an affine of its own."""
    affines = [OBLIQUE @ np.diag([1 + 0.1 * i, 1, 1, 1]) for i in range(size)]
    return mj.stack([small_subject(a, SHAPE, i, age=40 + i, **metadata) for i, a in enumerate(affines)])


def for_kind(t, batch):
    """The batch as a kind takes it."""
    return mj.OneHot(4).batch(batch) if isinstance(t, mj.MixUp) else batch


def equal(one, other):
    for name, image in one.images.items():
        assert image.dtype == other[name].dtype
        np.testing.assert_array_equal(image.numpy(), other[name].numpy())


@each_kind
def test_with_p_0_every_element_stays(t):
    batch = for_kind(t, batch_of())
    got = t.replace(p=0).batch(batch, KEY)
    for name, image in batch.images.items():
        np.testing.assert_array_equal(got[name].numpy(), image.numpy())


@each_kind
def test_it_is_the_same_inside_of_jit_and_by_its_params(t):
    batch = for_kind(t, batch_of())
    got = t.batch(batch, KEY)
    equal(jax.jit(lambda t, batch, key: t.batch(batch, key))(t, batch, KEY), got)
    equal(t.apply(batch, t.sample(KEY, batch)), got)
    equal(t.batch(batch, KEY), got)
    assert any((t.batch(batch, jax.random.key(5))[n].numpy() != got[n].numpy()).any() for n in batch.images)


@each_kind
def test_affines_metadata_and_other_arrays_stay(t):
    batch = for_kind(t, batch_of(y=np.int32(7)))
    got = t.batch(batch, KEY)
    assert got.age == (40, 41, 42, 43, 44) and list(got) == list(batch)
    np.testing.assert_array_equal(got.y, batch.y)
    for name in batch.images:
        np.testing.assert_array_equal(got[name].affine, batch[name].affine)
        assert got[name].metadata == batch[name].metadata and type(got[name]) is type(batch[name])


@each_kind
def test_padding_is_given_to_nobody(t):
    """Poison in the padding: no real voxel may be a mixture with it."""
    shapes = [SHAPE, (6, 10, 8), (9, 7, 5), (4, 9, 8)]
    subjects = [small_subject(OBLIQUE, shape, i) for i, shape in enumerate(shapes)]
    batch = for_kind(t, mj.stack(subjects, shape=(12, 12, 12)))
    poisoned = {}
    for name, image in batch.images.items():
        data, real = np.array(image.data), np.zeros((4, 1, 12, 12, 12), bool)
        for i, (a, b, c) in enumerate(shapes):
            real[i, :, :a, :b, :c] = True
        poisoned[name] = image.replace(data=np.where(real, data, 3 if image.is_label else 1e9).astype(data.dtype))
    for seed in range(3):
        clean, dirty = (t.batch(b, jax.random.key(seed)) for b in (batch, batch.replace(**poisoned)))
        for one, other in zip(mj.unstack(clean), mj.unstack(dirty)):
            equal(one, other)


@each_kind
def test_what_a_box_shows_beyond_its_grid_is_given_to_nobody(t):
    batch, real = for_kind(t, batch_of(4)), np.zeros((4, 1, *SHAPE), bool)
    real[:, :, 2:, :, 1:7] = True
    box = dict(offset=np.full((4, 3), (-2, 0, -1), np.int32), full=np.full((4, 3), (9, 12, 6), np.int32))
    clean = batch.replace(**{name: image.replace(**box) for name, image in batch.images.items()})
    dirty = clean.replace(**{
        name: image.replace(data=np.where(real, image.numpy(), 3).astype(image.dtype))
        for name, image in clean.images.items()
    })  # fmt: skip
    for name, image in t.batch(clean, KEY).images.items():
        other = t.batch(dirty, KEY)[name].numpy()
        np.testing.assert_array_equal(np.where(real, image.numpy(), 0), np.where(real, other, 0))


@each_kind
def test_another_strength_and_key_compile_nothing(t):
    batch = for_kind(t, batch_of())
    number = {} if isinstance(t, mj.CopyPaste) else {"alpha": 0.7}
    t.replace(p=0.5).batch(batch, KEY)
    with compilations() as count:
        t.replace(p=0.25, **number).batch(for_kind(t, batch_of()), jax.random.key(9))
    assert count() == 0


@each_kind
def test_coins_follow_p_and_partners_are_a_permutation(t):
    batch = for_kind(t, batch_of(4))
    drawn = jax.vmap(lambda key: t.replace(p=0.3).sample(key, batch))(jax.random.split(KEY, 2000))
    assert stats.binomtest(int(drawn["on"].sum()), 8000, 0.3).pvalue > 1e-3
    np.testing.assert_array_equal(np.sort(drawn["partner"], axis=1), np.broadcast_to(np.arange(4), (2000, 4)))
    for column in np.asarray(drawn["partner"]).T:
        assert stats.chisquare(np.bincount(column)).pvalue > 1e-3


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@each_kind
def test_over_devices_it_is_the_same_and_stays_split(t, axis_type):
    batch = for_kind(t, batch_of(4))
    mesh = jax.make_mesh((4,), ("batch",), (axis_type,), devices=jax.devices()[:4])
    split = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("batch")))
    got = t.batch(split, KEY)
    equal(got, t.batch(batch, KEY))
    assert got.t1.data.sharding.spec[0] == "batch"


@each_kind
def test_of_one_element_nothing_is_changed(t):
    batch = for_kind(t, batch_of(1))
    got = t.batch(batch, KEY)
    for name, image in batch.images.items():
        np.testing.assert_array_equal(got[name].numpy(), image.numpy())


@each_kind
def test_what_is_no_batch_or_no_key_is_refused(t):
    batch = for_kind(t, batch_of())
    with pytest.raises(ValueError, match="this is one subject"):
        t.batch(small_subject(), KEY)
    with pytest.raises(TypeError, match="batch must be a Subject"):
        t.batch(batch.t1.data, KEY)
    with pytest.raises(TypeError, match=f"{type(t).__name__} draws random numbers, so it needs a key"):
        t.batch(batch, None)
    with pytest.raises(TypeError, match="key must be one key|one key is due"):
        t.batch(batch, jax.random.split(KEY, 5))
    with pytest.raises(ValueError, match="p must be at most 1"):
        t.replace(p=1.5)
    assert repr(t).startswith(f"{type(t).__name__}(") and "p=1.0" in repr(t)
