"""Small arrays of a batch side by side, so that a loop over its elements takes one row of them; traced.

A loop takes a slice out of every array that it goes over: a kernel for each matrix, coin and number that was drawn, and
there are many more of these on a card than of what they are drawn for.
"""

from collections.abc import Callable, Sequence
from math import prod

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from medjax import keys


def in_rows(tree: PyTree) -> tuple[list[Array], Callable[[Sequence[Array]], PyTree]]:
    """The leaves (B, ...) of a tree, keys by their words, in an array (B, n) a dtype; and the way back from rows."""
    leaves, restore = keys.in_words(tree)
    of_dtype: dict[jnp.dtype, list[int]] = {}
    for number, leaf in enumerate(leaves):
        of_dtype.setdefault(leaf.dtype, []).append(number)
    arrays = [
        jnp.concatenate([leaves[number].reshape(len(leaves[number]), -1) for number in numbers], 1)
        for numbers in of_dtype.values()
    ]

    def element(rows: Sequence[Array]) -> PyTree:
        found: dict[int, Array] = {}
        for row, numbers in zip(rows, of_dtype.values(), strict=True):
            begin = 0
            for number in numbers:
                shape = leaves[number].shape[1:]
                found[number] = row[begin : begin + prod(shape)].reshape(shape)
                begin += prod(shape)
        return restore([found[number] for number in range(len(leaves))])

    return arrays, element
