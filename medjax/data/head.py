"""A pipeline divided: the head, which is the same in every epoch and can be kept, and the rest.

The head ends where something random begins, or at the first step of which nothing tells whether it is still the same.
It ends between two runs, so that head and rest, one after the other, read what the pipeline reads.
"""

from typing import Any, NamedTuple

from medjax.data.keyed import Unkeyed, described
from medjax.transforms.compose import Compose
from medjax.transforms.program import flatten, split
from medjax.transforms.transform import Transform

NOTHING = Compose([])


class Divided(NamedTuple):
    """head: what is done once.  rest: what is left, or None.  told: the head as text.  why: what ended it early."""

    head: Compose
    rest: Transform | None
    told: list[Any]
    why: str | None


def divided(t: Transform | None) -> Divided:
    """The two parts of a pipeline."""
    if t is None:
        return Divided(NOTHING, None, [], None)
    steps, kept, told, why = flatten(t), [], [], None
    for run in split(t).head:
        try:
            told.append([described(steps[i].transform) for i in run])
        except Unkeyed as error:
            why = str(error)
            break
        kept += [steps[i].transform for i in run]
    rest = without(t, len(kept))[0]
    return Divided(Compose(kept), rest if flatten(rest) else None, told, why)


def without(t: Transform, count: int) -> tuple[Transform, int]:
    """A pipeline without its first `count` steps, and how many of them are still to be left out behind it.

    In their place is nothing, so that those behind keep the path of indices that their keys come from.
    """
    if not count:
        return t, 0
    steps = len(flatten(t))
    if steps <= count:
        return NOTHING, count - steps
    members = []
    for member in t.members:  # pyright: ignore
        member, count = without(member, count)
        members.append(member)
    return t.replace(transforms=tuple(members)), count
