"""A switch whose vmap is a loop, so that in a batch each element pays for its own branch alone.

`vmap` turns `lax.cond` into a select that runs every branch for every element. Here the batching rule is a loop
(`in_turn`), inside which coins are plain conditionals. A custom gradient makes the loop of the way back one as
well. What the function closes over is hoisted into arguments, and integers and keys are kept apart from what has a
gradient. There is no forward mode and no second derivative through it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jax.custom_batching import custom_vmap
from jaxtyping import Array, PyTree

from medjax.transforms.devices import by_devices, on_no_mesh


def looped(function: Callable[..., PyTree], *operands: PyTree) -> PyTree:
    """function(*operands), which under `vmap` is a loop over the batch, in both directions."""
    pure, closed_over, outline = hoist(function, operands)
    leaves, tree = jax.tree.flatten((operands, closed_over))
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

    def join(inexact: list[Array], rest: list[Array]) -> list[Array]:
        a, b = iter(inexact), iter(rest)
        return pure(*jax.tree.unflatten(tree, [next(a) if r else next(b) for r in real]))

    def pull(inexact: list[Array], rest: list[Array], cotangent: list[Array]) -> list[Array]:
        return jax.vjp(lambda values: join(values, rest), inexact)[1](cotangent)[0]

    forward, backward = in_turn(join), in_turn(pull)
    run = jax.custom_vjp(lambda inexact, rest: forward(inexact, rest))
    run.defvjp(
        lambda inexact, rest: (forward(inexact, rest), (inexact, rest)),
        lambda saved, cotangent: (backward(*saved, cotangent), None),
    )
    inexact = [leaf for leaf, r in zip(leaves, real, strict=True) if r]
    return jax.tree.unflatten(
        jax.tree.structure(outline), run(inexact, [leaf for leaf, r in zip(leaves, real, strict=True) if not r])
    )


def in_turn(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """`function`, which under `vmap` is a loop, on each device over the elements that it holds."""
    gated = custom_vmap(function)

    @gated.def_vmap
    def _(size: int, batched: PyTree[bool], *operands: PyTree) -> tuple[PyTree, PyTree[bool]]:
        del size
        leaves, tree = jax.tree.flatten(operands)
        mapped = jax.tree.leaves(batched)
        shared, batch = ([leaf for leaf, b in zip(leaves, mapped) if b == which] for which in (False, True))

        def loop(shared: list[Array], batch: list[Array]) -> PyTree:
            def element(own: list[Array]) -> PyTree:
                a, b = iter(shared), iter(own)
                return gated(*tree.unflatten([next(b) if m else next(a) for m in mapped]))

            return jax.lax.map(element, batch)

        result = by_devices(loop, shared, batch)
        return result, jax.tree.map(lambda _: True, result)

    return gated


def hoist(function: Callable[..., PyTree], operands: PyTree) -> tuple[Callable[..., list[Array]], list[Array], PyTree]:
    """`function` of its operands and of what it closes over, giving a list; what it closes over; an outline."""
    leaves, tree = jax.tree.flatten(operands)
    leaves = [leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf) for leaf in leaves]
    trace = jax.make_jaxpr(lambda *flat: function(*jax.tree.unflatten(tree, flat)), return_shape=True)
    with on_no_mesh(leaves) as outlines:
        traced, shape = trace(*outlines)

    def pure(operands: PyTree, consts: list[Array]) -> list[Array]:
        return eval_jaxpr(traced.jaxpr, consts, *jax.tree.leaves(operands))

    return pure, list(traced.consts), shape
