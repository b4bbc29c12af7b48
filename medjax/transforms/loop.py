"""A switch whose vmap is a loop, so that in a batch each element pays for its own branch alone.

`vmap` turns `lax.cond` into a select that runs every branch for every element. Here the batching rule is a loop
(`sequential_vmap`), inside which coins are plain conditionals. A custom gradient makes the loop of the way back one as
well. What the function closes over is hoisted into arguments, and integers and keys are kept apart from what has a
gradient. There is no forward mode and no second derivative through it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.custom_batching import sequential_vmap


def looped(function: Callable[..., Any], *operands: Any) -> Any:
    """function(*operands), which under `vmap` is a loop over the batch, in both directions."""
    pure, closed_over, out = hoist(function, operands)
    leaves, tree = jax.tree.flatten((operands, closed_over))
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def join(inexact: list[Any], rest: list[Any]) -> list[Any]:
        a, b = iter(inexact), iter(rest)
        return pure(*jax.tree.unflatten(tree, [next(a) if r else next(b) for r in real]))

    def pull(inexact: list[Any], rest: list[Any], cotangent: list[Any]) -> list[Any]:
        return jax.vjp(lambda values: join(values, rest), inexact)[1](cotangent)[0]

    forward, backward = sequential_vmap(join), sequential_vmap(pull)
    run = jax.custom_vjp(lambda inexact, rest: forward(inexact, rest))
    run.defvjp(
        lambda inexact, rest: (forward(inexact, rest), (inexact, rest)),
        lambda saved, cotangent: (backward(*saved, cotangent), None),
    )
    inexact = [leaf for leaf, r in zip(leaves, real, strict=True) if r]
    return jax.tree.unflatten(out, run(inexact, [leaf for leaf, r in zip(leaves, real, strict=True) if not r]))


def hoist(function: Callable[..., Any], operands: Any) -> tuple[Callable[..., list[Any]], list[Any], Any]:
    """`function` of its operands and of what it closes over, giving a list; what it closes over; its result's tree."""
    leaves, tree = jax.tree.flatten(operands)
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    traced, shape = jax.make_jaxpr(lambda *flat: function(*jax.tree.unflatten(tree, flat)), return_shape=True)(*leaves)

    def pure(operands: Any, consts: list[Any]) -> list[Any]:
        return eval_jaxpr(traced.jaxpr, consts, *jax.tree.leaves(operands))

    return pure, list(traced.consts), jax.tree.structure(shape)
