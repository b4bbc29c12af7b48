"""Metadata rides in the tree structure in a box that equals every other box.

So it never recompiles a program and never stops two subjects from being stacked. The price is that whoever unflattens
a tree may hold the metadata of one subject and the leaves of others. Metadata is dropped wherever that shows:

- where a leaf is traced: a compiled function would give back the metadata of whichever subject it was traced with; the
  calls of medjax carry it around themselves;
- where the axes of the batch are not those that the leaves had when they were flattened: `jax.tree.map(np.stack)` and
  grain's `batch` make a batch of several subjects in the box of the first, and `jax.tree.map(lambda x: x[0])` the
  reverse. `medjax.stack` and `medjax.unstack` carry metadata.

It does not show where leaves of one shape are mixed (`jax.tree.map(np.add, one, other)`): there the first's is kept, as
in every pytree of JAX. What belongs to the numbers and is to reach a compiled step, as a class label, is to be an array
(`Subject(t1=..., y=np.int32(3))`): arrays are leaves, not metadata, and go wherever the voxels go.
"""

from collections.abc import Iterable
from typing import Any

import jax

from medjax.typing import Tracer

Leading = tuple[int, ...] | None
"""The axes of a batch; None where they are not known."""


class Box:
    """Holds metadata, and the axes of the batch that it is of; equal to every other box."""

    __slots__ = ("leading", "value")

    def __init__(self, value: Any = None, leading: Leading = None):
        self.value, self.leading = value, leading

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box)

    def __hash__(self) -> int:
        return hash(Box)


def carried(box: Box, leaves: Iterable[Any], leading: Leading) -> Any:
    """What is in the box, unless a leaf is traced or the axes of the batch are others: then nothing, as it is stale."""
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return None
    return None if None not in (leading, box.leading) and leading != box.leading else box.value


def leading_axes(leaf: Any, rank: int) -> Leading:
    """The axes of a leaf before its last `rank`; None for what has no shape, as JAX's own placeholders."""
    shape = getattr(leaf, "shape", None)
    return shape[: max(len(shape) - rank, 0)] if isinstance(shape, tuple) else None


LEAVES = ("data", "affine", "extent", "offset", "full")


def register_image(cls: Any) -> None:
    """Make a kind of image a pytree."""

    def flatten(image: Any):
        data = image.data  # read first: the affine of a file comes with it
        children = (data, image.affine, image._extent, image._offset, image._full)
        return children, Box((image._metadata, image._assumed), image.leading)

    def flatten_with_keys(image: Any):
        children, box = flatten(image)
        return tuple((jax.tree_util.GetAttrKey(n), c) for n, c in zip(LEAVES, children, strict=True)), box

    def unflatten(box: Box, children: tuple[Any, ...]) -> Any:
        image = cls.of(*children)
        metadata, assumed = carried(box, children, image.leading) or ({}, False)
        return cls.of(*children, metadata=metadata, assumed=assumed)

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
