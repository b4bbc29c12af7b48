"""Metadata rides in the tree structure in a box that equals every other box.

So it never recompiles a program and never stops two subjects from being stacked. The price is that a compiled
function would give back the metadata of whichever subject it was traced with; therefore whoever unflattens a
tree with tracers in it drops what is in the box (`carried`), and the calls of medjax carry it around themselves.
"""

from collections.abc import Iterable
from typing import Any

from medjax.typing import Tracer


class Box:
    """Holds metadata; equal to every other box."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box)

    def __hash__(self) -> int:
        return hash(Box)


def carried(box: Box, leaves: Iterable[Any]) -> Any:
    """What is in the box, unless a leaf is traced: then nothing, for it would be stale."""
    return None if any(isinstance(leaf, Tracer) for leaf in leaves) else box.value
