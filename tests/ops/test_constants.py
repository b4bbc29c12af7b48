"""Constants vary over devices as what they stand beside, or JAX refuses the loops and conditionals that they enter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from medjax.ops import bspline, constants, statistics, warp

rng = np.random.default_rng(0)
VOLUME = rng.random((2, 1, 6, 5, 7), np.float32)
MATRIX = np.stack([np.diag([0.5, 0.6, 0.4, 1.0])] * 2).astype(np.float32) + np.float32(0.01)
EXTENT = np.array([6, 5, 7], np.int32)
KERNELS = {
    "zeros": lambda x, m: x + constants.zeros(x.shape, x.dtype, m),
    "spline": lambda x, m: warp.spline(x, warp.map_coordinates(m, warp.indices((4, 3, 5), m.dtype)), EXTENT, x.dtype),
    "field": lambda x, m: bspline.field_on(jnp.concatenate([x] * 3), m, (4, 3, 5)),
    "finite": lambda x, m: statistics.finite_only(statistics.mean_std, x),
    "quantiles": lambda x, m: statistics.quantiles(x, jnp.asarray([0.1, 0.7], x.dtype)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_one_operand_may_vary_and_another_not(name):
    """A shape alone is asked for: JAX checks it while tracing."""
    mesh = Mesh(np.array(jax.devices()[:2]), ("d",))
    kernel, split, same = KERNELS[name], PartitionSpec("d"), PartitionSpec()
    for specs, given in (((split, same), (VOLUME, MATRIX[:1])), ((same, split), (VOLUME[:1], MATRIX))):
        run = jax.shard_map(
            lambda x, m: jax.tree.map(lambda r: r[None], kernel(x[0], m[0])), mesh=mesh, in_specs=specs, out_specs=split
        )
        assert all(result.shape[0] == 2 for result in jax.tree.leaves(jax.eval_shape(run, *given)))


def test_zeros_are_zeros_whatever_stands_beside():
    found = constants.zeros((2, 3), jnp.float32, jnp.full(4, jnp.nan), np.int32(7), jnp.ones((), bool))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.zeros((2, 3)))
