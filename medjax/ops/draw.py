"""Draw voxels by weight, axis after axis from marginal sums, so that nothing is summed up over a volume.

A cumulative sum over a volume in float32 gives voxels no chance that have one, and some a chance that have none. Here
no sum is longer than an axis, masks are counted in whole numbers, and what weighs 0 is never drawn.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Int, Num

from medjax import keys
from medjax.typing import Key


class Marginals(NamedTuple):
    """Sums of weights over the last axis, and over the last two."""

    lines: Num[Array, "I J"]
    planes: Num[Array, "I"]


def marginals(weights: Num[Array, "I J K"] | Bool[Array, "I J K"]) -> Marginals:
    """The sums of a volume of weights of at least 0, float32; of a mask int32, and summed as by `statistics.count`."""
    if weights.dtype != bool:
        lines = weights.sum(2, dtype=jnp.float32)
        return Marginals(lines, lines.sum(1))
    lines = weights.astype(jnp.bfloat16).sum(2, dtype=jnp.float32).astype(jnp.int32)
    return Marginals(lines, lines.sum(1, dtype=jnp.int32))


def choose(key: Key, weights: Num[Array, "N"]) -> Int[Array, ""]:
    """An index, each in proportion to its weight; 0 where all weights are.

    Partial sums may be off in the last bit and so step where a weight is 0; there they are taken out.
    """
    ends = jnp.where(weights > 0, jnp.cumsum(weights, dtype=weights.dtype), 0)
    total = ends.max()
    if jnp.issubdtype(weights.dtype, jnp.inexact):
        left = random.uniform(key, (), weights.dtype) * total
    else:
        left = random.randint(key, (), 0, jnp.maximum(total, 1), weights.dtype)
    return jnp.argmax(ends > left).astype(jnp.int32)


def voxel(key: Key, sums: Marginals, line: Callable[[Array, Array], Num[Array, "K"]]) -> Int[Array, "3"]:
    """Index of a voxel, each in proportion to its weight; `line(i, j)` gives the weights along the last axis there."""
    i = choose(keys.for_name(key, "plane"), sums.planes)
    j = choose(keys.for_name(key, "line"), sums.lines[i])
    k = choose(keys.for_name(key, "voxel"), line(i, j).astype(sums.lines.dtype))
    return jnp.stack([i, j, k])
