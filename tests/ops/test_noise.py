import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from medjax.ops import noise

SHAPE = (2, 40, 37, 41)
KEY = jax.random.key(7)


def field(key=KEY, shape=SHAPE, **options):
    return np.asarray(jax.jit(lambda key: noise.normal(key, shape, **options))(key))


def correlation(a, b):
    return abs(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_hash_is_the_threefry_of_jax():
    counter = np.random.default_rng(0).integers(2**32, size=(2, 1000), dtype=np.uint32)
    words = jnp.array([0xDEADBEEF, 123], jnp.uint32)
    ours = jnp.stack(noise.threefry((words[0], words[1]), *jnp.asarray(counter)))
    np.testing.assert_array_equal(ours.ravel(), threefry_2x32(words, jnp.asarray(counter.ravel())))


@pytest.mark.parametrize("ours, theirs", [(noise.normal, jax.random.normal), (noise.uniform, jax.random.uniform)])
def test_a_line_holds_the_numbers_of_jax(ours, theirs):
    # Along the last axis our counter counts as that of jax.random does.
    np.testing.assert_array_equal(ours(KEY, (1, 1, 1, 500)).ravel(), theirs(KEY, (500,)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_box_of_the_field_is_the_box(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        whole = field(dtype=dtype)
        box = jax.jit(lambda offset: noise.normal(KEY, (2, 8, 9, 10), offset=offset, dtype=dtype))
        for i, j, k in ((0, 0, 0), (32, 28, 31), (5, 17, 2)):
            part = box(jnp.array([i, j, k], jnp.int32))
            assert part.dtype == dtype
            np.testing.assert_array_equal(part, whole[:, i : i + 8, j : j + 9, k : k + 10])


def test_voxels_before_the_first_have_their_own_values():
    around = field(shape=(1, 8, 8, 8), offset=(-4, -4, -4))
    assert len(np.unique(around)) > 0.99 * around.size
    np.testing.assert_array_equal(around[:, 4:, 4:, 4:], field(shape=(1, 4, 4, 4)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_distributions(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        uniform = np.asarray(noise.uniform(KEY, SHAPE, dtype=dtype))
        assert uniform.dtype == dtype and uniform.min() >= 0 and uniform.max() < 1
        assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.001
        assert stats.kstest(field(dtype=dtype).ravel(), "norm").pvalue > 0.001


def test_neighbours_channels_and_keys_are_independent():
    values = field()
    bound = 5 / np.sqrt(values.size)
    for axis in range(1, 4):
        for distance in (1, 2):
            first, last = np.split(values, [distance], axis)[1], np.split(values, [-distance], axis)[0]
            assert correlation(first, last) < bound
            assert correlation(first**2, last**2) < bound
    assert correlation(values[0], values[1]) < 2 * bound
    for key in (jax.random.key(8), jax.random.fold_in(KEY, 0)):
        assert correlation(values, field(key)) < bound


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_another_kind_are_hashed(impl):
    keys = [jax.random.key(seed, impl=impl) for seed in range(20)]
    words = {tuple(int(word) for word in noise.threefry_words(key)) for key in keys}
    assert len(words) == len(keys)
    a, b = (field(key) for key in keys[:2])
    assert correlation(a, b) < 5 / np.sqrt(a.size)
    assert stats.kstest(a.ravel(), "norm").pvalue > 0.001


def test_vmap_over_keys_and_offsets_is_a_loop():
    keys, offsets = jax.random.split(KEY, 3), jnp.arange(9, dtype=jnp.int32).reshape(3, 3)

    @jax.jit
    def draw(key, offset):
        return noise.normal(key, (1, 4, 5, 6), offset=offset)

    many = jax.vmap(draw)(keys, offsets)
    for one, key, offset in zip(many, keys, offsets, strict=True):
        np.testing.assert_array_equal(one, draw(key, offset))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    draw = jax.jit(lambda words, offset: noise.normal(jax.random.wrap_key_data(words), SHAPE, offset=offset))
    arguments = jax.ShapeDtypeStruct((2,), jnp.uint32), jax.ShapeDtypeStruct((3,), jnp.int32)
    jax.export.export(draw, platforms=[platform])(*arguments)
