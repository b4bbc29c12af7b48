"""Loops for the sake of a CPU's caches, which elsewhere are one pass: there each step of a loop is a launch.

On a CPU what a step works with stays in the cache, and of a volume less is kept. A GPU streams a volume through either
way, and a few hundred launches cost more than all that is computed in them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax

T = TypeVar("T")


def one_by_one(function: Callable[..., T], xs: Any) -> T:
    """`function` of each entry along the first axis of the arrays of a tree, stacked; off a CPU of all at once."""
    return jax.lax.platform_dependent(xs, cpu=partial(jax.lax.map, function), default=jax.vmap(function))


def over_lines(line: Callable[[Any, Any, T], T], start: T) -> T:
    """`start` after line(a, b, state) for a and b from 0 to 3: the lines of taps of a cubic spline, in order.

    On a CPU plane after plane. Elsewhere line after line: the host need not wait to see whether a loop of known length
    goes on, and of taps that are unrolled XLA would keep each, as large as the volume.
    """

    def plane(a: Any, state: T) -> T:
        for b in range(4):
            state = line(a, b, state)
        return state

    return jax.lax.platform_dependent(
        start,
        cpu=lambda state: jax.lax.fori_loop(0, 4, plane, state),
        default=lambda state: jax.lax.fori_loop(0, 16, lambda n, state: line(n // 4, n % 4, state), state),
    )
