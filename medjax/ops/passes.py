"""Loops for the sake of a CPU's caches, which elsewhere are one pass: there each step of a loop is a launch.

On a CPU what a step works with stays in the cache, and of a volume less is kept. A GPU streams a volume through either
way, and a few hundred launches cost more than all that is computed in them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

T = TypeVar("T")
LITTLE = 2**26
"""Bytes of operands up to which a card computes both branches in less time than the host needs to ask for one."""
FEW = 4
"""Channels up to which each has a kernel of its own."""


def one_by_one(function: Callable[..., T], xs: Any) -> T:
    """`function` of each entry along the first axis of the arrays of a tree, stacked; off a CPU of all at once."""
    return jax.lax.platform_dependent(xs, cpu=partial(jax.lax.map, function), default=jax.vmap(function))


def by_slabs(function: Callable[[Any], Array], xs: Any) -> Float[Array, "D I J K"]:
    """What `function` makes of arrays with a first axis, (D, I, J, K); on a CPU one entry after the other.

    For what works with much more than it gives. It is worked out again for a gradient.
    """
    function = jax.checkpoint(function)

    def one(x: Any) -> Array:
        return function(jax.tree.map(lambda x: x[None], x))[:, 0]

    return jax.lax.platform_dependent(xs, cpu=lambda xs: jnp.moveaxis(jax.lax.map(one, xs), 0, 1), default=function)


def over_planes(plane: Callable[[Float[Array, "N"], Any], Array], flat: Float[Array, "D N"]) -> Array:
    """The sum of plane(channel, a) for a from 0 to 3, the planes of taps of a cubic spline, for each of D channels.

    Elsewhere than on a CPU each channel for itself, in a row: XLA makes one kernel of that. Of taps of all channels it
    would store every index and weight, for these are worth more than one product.
    """

    def looped(flat: Array) -> Array:
        def of(a: Any) -> Array:
            return jax.vmap(lambda channel: plane(channel, a))(flat)

        return jax.lax.fori_loop(1, 4, lambda a, total: total + of(a), of(0))

    @jax.jit  # traced once for all channels, and made part of what calls it
    def in_a_row(channel: Array) -> Array:
        return sum((plane(channel, a) for a in range(1, 4)), plane(channel, 0))

    def elsewhere(flat: Array) -> Array:
        return jnp.stack(list(map(in_a_row, flat))) if len(flat) <= FEW else jax.lax.map(in_a_row, flat)

    return jax.lax.platform_dependent(flat, cpu=looped, default=elsewhere)


def at(flat: Num[Array, "N"], index: Int[Array, "..."]) -> Num[Array, "..."]:
    """The numbers at places that are among them, none counted from the end: nothing is done to an index."""
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
    mode = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.gather(flat, index[..., None], numbers, slice_sizes=(1,), mode=mode)


def either(condition: Array, new: Callable[..., T], old: Callable[..., T], *operands: Any) -> T:
    """One or the other of `operands`; off a CPU both, of which one is taken, where little is computed for that.

    There the host would wait to see which it is, for as long as a card takes for some hundred megabytes.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(operands))
    if size > LITTLE:
        return jax.lax.cond(condition, new, old, *operands)

    def both(*operands: Any) -> T:
        # What is not taken is made of ones: were a slope infinite there, 0 times it would be no number.
        given = jax.tree.map(lambda x: jnp.where(condition, x, jnp.ones_like(x)), operands)
        return jax.tree.map(partial(jnp.where, condition), new(*given), old(*operands))

    return jax.lax.platform_dependent(*operands, cpu=partial(jax.lax.cond, condition, new, old), default=both)
