"""Constants that stand beside operands, and so are split and vary over devices as these do.

What is made from thin air does not vary: where it is what a loop starts from, or one branch of a conditional, and what
comes out does, JAX refuses it in a `shard_map`.
"""

from functools import reduce
from operator import add

import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array


def zeros(shape: tuple[int, ...], dtype: DTypeLike, *beside: ArrayLike) -> Array:
    """Zeros that vary as any of the operands beside them."""
    return jnp.zeros_like(reduce(add, (jnp.zeros_like(x, dtype, ()) for x in beside)), shape=shape)
