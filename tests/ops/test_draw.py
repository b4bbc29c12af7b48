"""What is drawn follows the weights, and nothing that weighs 0 is ever drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from medjax.ops import draw

KEY = jax.random.key(3)
N = 20_000


def drawn(weights, n=N, key=KEY):
    """Voxels (n, 3) of a volume."""
    weights = jnp.asarray(weights)
    voxel = jax.jit(jax.vmap(lambda k: draw.voxel(k, draw.marginals(weights), lambda i, j: weights[i, j])))
    return np.asarray(voxel(jax.random.split(key, n)))


def counts(found, shape):
    return np.bincount(np.ravel_multi_index(tuple(found.T), shape), minlength=np.prod(shape))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, bool])
def test_voxels_follow_weights(dtype):
    weights = np.random.default_rng(0).integers(0, 2 if dtype is bool else 5, (4, 5, 6)).astype(dtype)
    weights[1], weights[2, 3] = 0, 0
    got = counts(drawn(weights), weights.shape)
    share = weights.astype(float).ravel() / weights.sum()
    assert not got[share == 0].any()
    assert chisquare(got[share > 0], N * share[share > 0]).pvalue > 1e-3


def test_many_tiny_and_few_huge_weights():
    """Nothing tiny is lost in a sum: two voxels weigh as much as two million do together."""
    weights = np.full((128, 128, 128), 1e-6, np.float32)
    weights[40, 50, 60], weights[100, 5, 7] = 1.0, 1.0
    found = drawn(weights)
    share = weights[40, 50, 60] / weights.sum(dtype=float)
    huge = [(found == at).all(1) for at in ((40, 50, 60), (100, 5, 7))]
    rest = ~(huge[0] | huge[1])
    got = [h.sum() for h in huge] + [rest.sum()]
    assert chisquare(got, N * np.array([share, share, 1 - 2 * share])).pvalue > 1e-3
    for axis in range(3):
        assert chisquare(np.bincount(found[rest][:, axis] // 8, minlength=16)).pvalue > 1e-3


def test_zero_is_never_chosen_where_partial_sums_round():
    """Sums of a prefix are added in another order than those of the next, and may then differ over a weight of 0."""
    weights = np.random.default_rng(1).random((64, 509)).astype(np.float32) ** 8
    weights[:, 1::2] = 0
    choose = jax.jit(jax.vmap(lambda k, w: draw.choose(k, w), (0, None)))
    for row in weights:
        assert not (np.asarray(choose(jax.random.split(KEY, 4096), row)) % 2).any()


def test_sums_in_any_order_lead_to_a_weight_above_0(monkeypatch):
    """A device may sum each prefix in another order, as a tree does: tried with numbers right at the partial sums."""
    weights = (np.random.default_rng(2).random(509).astype(np.float32) ** 8) * (np.arange(509) % 3 == 0)
    weights = jnp.asarray(weights, jnp.float32)
    monkeypatch.setattr(draw.jnp, "cumsum", lambda w, dtype: jax.lax.associative_scan(jnp.add, w))
    monkeypatch.setattr(draw.random, "uniform", lambda key, shape, dtype: key)
    ends = draw.jnp.cumsum(weights, weights.dtype)
    assert (jnp.diff(ends)[weights[1:] == 0] != 0).any()
    ends = ends / ends[-1]
    near = [ends, jnp.nextafter(ends, jnp.zeros(1)), jnp.nextafter(ends, jnp.ones(1)), jnp.array([0, 1 - 2**-24])]
    near = jnp.concatenate([n.astype(jnp.float32) for n in near])
    found = jax.vmap(lambda u: draw.choose(u, weights))(near[near < 1])
    assert (weights[found] > 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_single_weight_is_always_chosen_and_none_is_0(dtype):
    one = np.zeros(37, dtype)
    one[36] = 3
    choose = jax.vmap(draw.choose, (0, None))
    assert (np.asarray(choose(jax.random.split(KEY, 500), one)) == 36).all()
    assert (np.asarray(choose(jax.random.split(KEY, 20), np.zeros(5, dtype))) == 0).all()


def test_marginals_count_masks_in_whole_numbers():
    mask = np.random.default_rng(0).random((7, 8, 9)) > 0.5
    sums = draw.marginals(jnp.asarray(mask))
    assert sums.lines.dtype == sums.planes.dtype == jnp.int32
    np.testing.assert_array_equal(sums.lines, mask.sum(2))
    np.testing.assert_array_equal(sums.planes, mask.sum((1, 2)))
    weights = np.random.default_rng(0).random((7, 8, 9)).astype(np.float32)
    np.testing.assert_allclose(draw.marginals(jnp.asarray(weights)).planes, weights.sum((1, 2), dtype=float), rtol=1e-6)
