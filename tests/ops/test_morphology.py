"""Label maps, against NumPy and scipy.ndimage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from medjax.ops import morphology

SHAPE = (2, 13, 11, 12)
DTYPES = [np.bool_, np.uint8, np.int8, np.int16, np.int32, np.float32]
CONNECTIVITY = [1, 2, 3]
LABELS = {np.bool_: (0, 0, 0, 1, 1), np.uint8: (0, 1, 2, 5)}


def noise(dtype=np.uint8, labels=(0, 1, 2, 5), seed=0, shape=SHAPE):
    """Labels in clumps of all sizes."""
    fine = np.random.default_rng(seed).choice(labels, shape)
    return ndimage.median_filter(fine, (1, 2, 2, 2)).astype(dtype)


def largest(x, connectivity):
    """By scipy: of each label of each channel the largest component, the first of equal ones."""
    kept = np.zeros(x.shape, bool)
    for channel, out in zip(x, kept):
        for label in np.unique(channel[channel != 0]):
            found, count = ndimage.label(channel == label, ndimage.generate_binary_structure(3, connectivity))
            sizes = np.bincount(found.ravel(), minlength=count + 1)[1:]
            first = [np.flatnonzero(found.ravel() == n + 1)[0] for n in range(count)]
            out |= found == 1 + min(range(count), key=lambda n: (-sizes[n], first[n]))
    return kept


def components(connectivity, per_label=True):
    return jax.jit(lambda x: morphology.largest_components(x, connectivity, per_label))


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_components_are_scipys(dtype, connectivity):
    x = noise(dtype, LABELS.get(dtype, (0, 1, -2, 5)))
    want = largest(x, connectivity)
    assert 0 < want.sum() < (x != 0).sum()
    np.testing.assert_array_equal(components(connectivity)(x), want)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_of_all_that_is_not_0_the_largest_component_is_scipys(connectivity):
    x = noise(labels=(0, 0, 0, 1, 2))
    np.testing.assert_array_equal(components(connectivity, False)(x), largest(x != 0, connectivity))


def test_under_vmap_each_is_on_its_own():
    x = np.stack([noise(seed=seed) for seed in range(3)])
    got = jax.jit(jax.vmap(components(2)))(x)
    np.testing.assert_array_equal(got, np.stack([largest(one, 2) for one in x]))


def test_of_equal_components_the_first_stays():
    """Single voxels all alike: a checkerboard, in which only memory order tells them apart."""
    x = (np.indices(SHAPE[1:]).sum(0) % 2).astype(np.uint8)[None]
    got = np.asarray(components(1)(x))
    assert np.flatnonzero(got).tolist() == [1]


def test_a_component_does_not_run_on_from_the_end_of_a_row_to_the_next():
    x = np.zeros((1, 2, 2, 4), np.uint8)
    x[0, 0, 0, 2:], x[0, 1, 0, 0], x[0, 0, 1, :1] = 1, 1, 1
    np.testing.assert_array_equal(components(1)(x), largest(x, 1))


@pytest.mark.parametrize("value", [0, 3])
def test_nothing_and_all(value):
    x = np.full(SHAPE, value, np.int16)
    np.testing.assert_array_equal(components(1)(x), x != 0)


def edges(x, connectivity):
    """By scipy: the largest or the least of a neighbourhood differs; beyond the volume there is nobody."""
    structure = ndimage.generate_binary_structure(3, connectivity)
    low = ndimage.minimum_filter(x, footprint=structure, mode="constant", cval=999)
    high = ndimage.maximum_filter(x, footprint=structure, mode="constant", cval=-999)
    return (low != x) | (high != x)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_border_is_scipys(dtype, connectivity):
    x = noise(dtype, (0, 1, 1, 1, 5))
    want = np.stack([edges(channel.astype(int), connectivity) for channel in x])
    assert 0.05 < want.mean() < 0.95
    np.testing.assert_array_equal(jax.jit(lambda x: morphology.border(x, connectivity))(x), want)


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_padding_is_no_neighbour(connectivity):
    x = noise(labels=(1, 1, 1, 5))
    real = np.zeros((16, 15, 14), bool)
    real[:13, :11, :12] = True
    padded = np.pad(x, ((0, 0), (0, 3), (0, 4), (0, 2)), constant_values=7)
    got = jax.jit(lambda x, real: morphology.border(x, connectivity, real))(padded, real[None])
    np.testing.assert_array_equal(got[:, :13, :11, :12], morphology.border(jnp.asarray(x), connectivity))


VALUES = {
    np.bool_: [(0, 1), (1,)],
    np.uint8: [(0, 3, 255), (7,)],
    np.int8: [(-128, -3, 0, 127)],
    np.int16: [(-32768, 0, 9, 32767)],
    np.uint16: [(3, 65535)],
    np.int32: [(0, 1, 7), (-(2**31), 5, 2**31 - 1), (-(2**31), -(2**31) + 3), (10**9, 10**9 + 40_000)],
    np.uint32: [(0, 4, 2**32 - 1), (2**32 - 9, 2**32 - 1)],
    np.float32: [(0.0, 1.0, 7.0), (-2.5, 0.0, 0.25, 1e30), (5.0,)],
}


@pytest.mark.parametrize("dtype", VALUES)
def test_present_and_rank_are_numpys_unique(dtype):
    run = jax.jit(lambda x: (lambda found: (*found, morphology.rank(x, found[0])))(morphology.present(x, None, 6)))
    for values in VALUES[dtype]:
        x = np.random.default_rng(0).choice(np.array(values, dtype), (1, 5, 6, 7))
        labels, count, rank = run(x)
        want, inverse = np.unique(x, return_inverse=True)
        assert count == len(want) and labels.dtype == dtype and rank.dtype == dtype
        np.testing.assert_array_equal(labels, np.append(want, np.full(6 - len(want), want[-1], dtype)))
        np.testing.assert_array_equal(rank, inverse.reshape(x.shape).astype(dtype))


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.uint8, 1), (np.int32, 1), (np.int32, 10**8), (np.float32, 1), (np.float32, 1e8)]
)
def test_only_what_the_mask_holds_is_present_and_too_many_are_noticed(dtype, scale):
    x = (np.arange(2 * 3 * 4).reshape(1, 2, 3, 4) % 12).astype(dtype) * dtype(scale)
    mask = np.zeros((1, 2, 3, 4), bool)
    mask[..., 1:3] = True
    labels, count = jax.jit(lambda x, mask: morphology.present(x, mask, 8))(x, mask)
    np.testing.assert_array_equal(labels[:6], np.unique(x[mask]))
    assert count == 6
    labels, count = jax.jit(lambda x: morphology.present(x, None, 8))(x)
    np.testing.assert_array_equal(labels, np.unique(x)[:8])
    assert count > 8


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [
        (np.bool_, (0, 1), (-1, 2)),
        (np.uint8, (0, 255), (-1, 256)),
        (np.int16, (-32768, 32767), (-32769, 32768)),
        (np.float32, (-(2**24), 2**24), (2**24 + 1,)),
        (np.float16, (2048,), (2049, 10**9)),
    ],
)
def test_holds(dtype, inside, outside):
    assert all(morphology.holds(np.dtype(dtype), value) for value in inside)
    assert not any(morphology.holds(np.dtype(dtype), value) for value in outside)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_lowers(platform):
    """All but the components, which are labelled on the host."""

    def everything(x):
        labels, _ = morphology.present(x, None, 9)
        x = jnp.where(morphology.border(x, 3), morphology.rank(x, labels), morphology.remap(x, [(1, 2), (2, 1)]))
        return morphology.one_hot(x, 4)

    for dtype in (jnp.uint8, jnp.int32):
        jax.export.export(jax.jit(everything), platforms=[platform])(jax.ShapeDtypeStruct((1, 5, 6, 7), dtype))


def by_offsets(x, radius, mirrored):
    """Every offset of the ball, one after the other."""
    m = int(2 * radius)
    steps = np.stack(np.meshgrid(*[range(-m, m + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centre = m % 2 * (-1 if mirrored else 1)
    wide = np.pad(x, [(0, 0), *[(m, m)] * 3])
    found = np.zeros(x.shape, bool)
    for step in steps[((2 * steps - centre) ** 2).sum(1) <= m * m]:
        window = tuple(slice(m + d, m + d + n) for d, n in zip(step, x.shape[1:], strict=True))
        found |= wide[(slice(None), *window)]
    return found


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0, 1.5, 2.3, 2.9, 4.0])
def test_dilation_is_that_by_every_offset_of_the_ball(radius, mirrored):
    x = np.random.default_rng(0).random(SHAPE) < 0.02
    run = jax.jit(lambda x, r: morphology.dilated(x, r, 4, None, mirrored=mirrored))
    np.testing.assert_array_equal(run(x, np.float32(radius)), by_offsets(x, radius, mirrored))
