"""Reading at other coordinates, against scipy.ndimage.map_coordinates, numpy.pad and a one-hot map in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medjax.ops import warp

SHAPE = (7, 9, 6)
POINTS = (5, 11, 13)


def points(low, high, seed=0):
    """Coordinates (3, *POINTS), uniform from `low` to n - 1 - `high` along each axis."""
    unit = np.random.default_rng(seed).uniform(size=(3, *POINTS))
    size = np.reshape(SHAPE, (3, 1, 1, 1))
    return (low + unit * (size - 1 - high - low)).astype(np.float32)


def volume(seed=0, channels=2):
    return np.random.default_rng(seed).normal(size=(channels, *SHAPE)).astype(np.float32)


def read(data, at, interpolation="linear", is_label=False, dtype=None, fill=0.0, edge=None, extent=SHAPE):
    data = jnp.asarray(data)
    dtype = data.dtype if dtype is None else dtype
    fill = jnp.full(data.shape[0], fill, jnp.float32)
    return np.asarray(
        warp.sample(data, tuple(jnp.asarray(c) for c in at), extent=jnp.asarray(extent, jnp.int32),
                    interpolation=interpolation, is_label=is_label, dtype=dtype, fill=fill, edge=edge)
    )  # fmt: skip


@pytest.mark.parametrize("order, interpolation", [(0, "nearest"), (1, "linear")])
def test_inside_it_is_scipys(order, interpolation):
    data, at = volume(), points(0, 0)
    tie = (np.abs(at - np.floor(at) - 0.5) < 2 * warp.SLACK).any(0)
    want = np.stack([map_coordinates(channel.astype(float), at.astype(float), order=order) for channel in data])
    got = read(data, at, interpolation)
    assert tie.mean() < 0.05
    np.testing.assert_allclose(got[:, ~tie], want[:, ~tie], atol=2e-6)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.int32])
def test_integers_are_converted_after_they_are_read(dtype):
    data, at = np.random.default_rng(1).integers(0, 250, (1, *SHAPE)).astype(dtype), points(0, 0)
    want = map_coordinates(data[0].astype(float), at.astype(float), order=1)
    np.testing.assert_allclose(read(data, at, dtype=jnp.float32)[0], want, atol=1e-4)
    assert read(data, at, "nearest").dtype == dtype


def test_equal_voxels_give_their_value_exactly():
    data = np.full((1, *SHAPE), 0.1, np.float32)
    assert np.all(read(data, points(0, 0)) == data.max())


@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_the_edge_is_repeated_for_half_a_voxel_and_then_comes_the_fill(interpolation):
    data, at = volume(), points(-1.2, -1.2, seed=2).astype(float)
    got = read(data, at.astype(np.float32), interpolation, fill=-7.0)
    size = np.reshape(SHAPE, (3, 1, 1, 1))
    near = np.minimum(np.abs(at + 0.5), np.abs(at - size + 0.5)).min(0) < 2 * warp.SLACK
    inside = ((at >= -0.5) & (at < size - 0.5)).all(0)
    clamped = np.clip(at, 0, size - 1)
    if interpolation == "nearest":
        clamped = np.floor(clamped + 0.5)
    want = np.stack([map_coordinates(channel.astype(float), clamped, order=1) for channel in data])
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_allclose(got[:, ~near], np.where(inside, want, -7.0)[:, ~near], atol=3e-6)


def test_an_exact_edge_is_inside_at_the_low_end_and_outside_at_the_high_end():
    data = np.ones((1, *SHAPE), np.float32)
    for axis, size in enumerate(SHAPE):
        at = np.zeros((3, 2, 1, 1), np.float32)
        at[axis, :, 0, 0] = -0.5, size - 0.5
        np.testing.assert_array_equal(read(data, at).ravel(), [1, 0])


def test_ties_of_nearest_go_up():
    data = np.arange(7, dtype=np.float32).reshape(1, 7, 1, 1)
    at = np.zeros((3, 6, 1, 1), np.float32)
    at[0, :, 0, 0] = np.arange(6) + 0.5
    at[0, ::2] -= warp.SLACK / 2  # rounding does not decide a tie
    np.testing.assert_array_equal(read(data, at, "nearest", extent=(7, 1, 1)).ravel(), np.arange(1, 7))


def test_beyond_the_extent_nothing_is_read():
    data = volume()
    padded = np.full((2, 10, 10, 10), 1e6, np.float32)
    padded[:, :7, :9, :6] = data
    at = points(-1.2, -1.2, seed=3)
    for interpolation in ("nearest", "linear"):
        for edge in (None, "reflect"):
            got, want = (read(d, at, interpolation, edge=edge, fill=-3.0) for d in (padded, data))
            np.testing.assert_array_equal(got, want)


SCIPY = {"edge": "nearest", "reflect": "mirror", "symmetric": "reflect", "wrap": "grid-wrap"}


@pytest.mark.parametrize("edge, mode", SCIPY.items())
def test_continued_images_are_scipys(edge, mode):
    data, at = volume(), points(-9, -9, seed=4)
    want = np.stack([map_coordinates(c.astype(float), at.astype(float), order=1, mode=mode) for c in data])
    between = ((at >= 0) & (at <= np.reshape(SHAPE, (3, 1, 1, 1)) - 1)).all(0)
    smooth = np.ones(POINTS, bool) if edge in ("edge", "reflect") else between  # else SciPy mixes across the seam
    np.testing.assert_allclose(read(data, at, edge=edge)[:, smooth], want[:, smooth], atol=1e-5)


@pytest.mark.parametrize("edge", warp.EDGES)
@pytest.mark.parametrize("low, high", [(0, 6), (2, 5), (3, 4)])
def test_folding_is_numpys_padding(edge, low, high):
    values = np.arange(low, high)
    want = np.pad(values, 11, mode=edge)
    index = jnp.arange(low - 11, high + 11, dtype=jnp.int32)
    got = warp.fold(index, jnp.asarray(low, jnp.int32), jnp.asarray(high, jnp.int32), edge)
    np.testing.assert_array_equal(got, want)


def one_hot_vote(data, at):
    """Argmax of the linearly interpolated one-hot map, in float64; argmax takes the first on ties."""
    labels = np.unique(data)
    size = np.reshape(data.shape[1:], (3, 1, 1, 1))
    at = np.clip(at.astype(float), 0, size - 1)
    shares = np.stack([map_coordinates((data[0] == v).astype(float), at, order=1) for v in labels])
    return labels[np.argmax(np.round(shares, 9), 0)], np.sort(shares, 0)


@pytest.mark.parametrize("count", [2, 5, 40])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_the_vote_is_the_argmax_of_an_interpolated_one_hot_map(count, dtype):
    data = np.random.default_rng(count).integers(0, count, (1, *SHAPE)).astype(dtype) * (6 if dtype == np.uint8 else -7)
    at = points(-0.4, -0.4, seed=5)
    want, shares = one_hot_vote(data, at)
    clear = shares[-1] - shares[-2] > 1e-5
    got = read(data, at, is_label=True)[0]
    assert clear.mean() > 0.9 and got.dtype == dtype
    np.testing.assert_array_equal(got[clear], want[clear])


def test_a_tied_vote_goes_to_the_lowest_label():
    data = np.random.default_rng(6).integers(0, 4, (1, *SHAPE)).astype(np.int16) - 1
    part = np.random.default_rng(7).choice([0, 0.25, 0.5], (3, *POINTS))
    at = (np.floor(points(0, 1, seed=6)) + part).astype(np.float32)
    want, shares = one_hot_vote(data, at)
    assert (shares[-1] == shares[-2]).mean() > 0.1
    np.testing.assert_array_equal(read(data, at, is_label=True)[0], want)


def test_reindexing_is_numpys_indexing():
    data = volume()
    matrix = np.array([[0, -1, 0, 6], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # i_in = 6 - j, j_in = k, k_in = i
    got = warp.reindex(
        jnp.asarray(data), jnp.asarray(matrix, jnp.int32), [jnp.arange(n, dtype=jnp.int32) for n in (6, 8, 9)],
        extent=jnp.asarray(SHAPE, jnp.int32), fill=jnp.full(2, -1, jnp.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(got[:, :, :7], np.transpose(data[:, ::-1], (0, 3, 1, 2)))
    np.testing.assert_array_equal(got[:, :, 7], np.full((2, 6, 9), -1))


def test_mapping_coordinates_is_a_product_of_matrices():
    matrix = np.random.default_rng(8).normal(size=(4, 4))
    index = warp.indices(SHAPE, jnp.int32)
    got = np.stack(warp.map_coordinates(jnp.asarray(matrix, jnp.float32), index))
    want = np.einsum("ab,bijk->aijk", matrix[:3, :3], np.indices(SHAPE)) + matrix[:3, 3, None, None, None]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_gradient_is_that_of_the_interpolation():
    data, at = volume(channels=1), points(0.1, 0.1)
    step = 1e-3 * np.random.default_rng(9).normal(size=at.shape)
    step = np.where((np.floor(at + step) == np.floor(at - step)).all(0), step, 0)

    def total(*coordinates):
        return warp.linear(jnp.asarray(data), coordinates, jnp.asarray(SHAPE, jnp.int32), jnp.float32).sum()

    slope = jax.grad(total, argnums=(0, 1, 2))(*map(jnp.asarray, at))
    got = sum((np.asarray(s, float) * d).sum() for s, d in zip(slope, step))
    after, before = (map_coordinates(data[0].astype(float), at + sign * step, order=1).sum() for sign in (1, -1))
    np.testing.assert_allclose(got, (after - before) / 2, rtol=1e-3, atol=1e-6)
