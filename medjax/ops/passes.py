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


def summed(count: int, step: Callable[[Any, T], T], start: T) -> T:
    """`start` after `count` steps(number, state): on a CPU a loop, which keeps the program small, else unrolled."""

    def unrolled(state: T) -> T:
        for number in range(count):
            state = step(number, state)
        return state

    return jax.lax.platform_dependent(
        start, cpu=lambda state: jax.lax.fori_loop(0, count, step, state), default=unrolled
    )
