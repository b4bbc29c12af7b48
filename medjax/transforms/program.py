"""A pipeline opened: its steps in order, the runs of them that are read at once, and their params, flat.

It depends on types and settings alone, never on what was drawn nor on any grid; nothing is computed here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from medjax.image import Image
from medjax.ops import warp
from medjax.transforms import sampling
from medjax.transforms.place import Place, Step, Turn, advance, is_spatial, with_copies
from medjax.transforms.sampling import NOTHING, Sampling
from medjax.typing import Coin, Params, Tracer

if TYPE_CHECKING:  # transforms are called through what is built on this
    from typing_extensions import TypeIs

    from medjax.transforms.compose import Group
    from medjax.transforms.transform import Transform

Run = tuple[int, ...]
"""The numbers of neighbouring spatial steps that are read at once, or of one other step."""
Places = dict[str, Place]
Told = Sequence[Turn] | Mapping[int, Turn]
"""What happens to each step, by its number."""


def is_certain(p: object) -> bool:
    """Whether a p is 1 by structure, so that it is known while tracing too; what a leaf holds is never asked.

    A p that was given as the number 1 is kept as a Python float and is no leaf (see `transform.chance`).
    """
    return type(p) is float and p == 1.0


def is_group(t: "Transform") -> "TypeIs[Group]":
    """Whether a transform stands for its members."""
    return t.group


def flatten(t: "Transform", certain: bool = True) -> list[Step]:
    """The members of a pipeline, nests opened, in order."""
    certain = certain and is_certain(t.p)
    if not is_group(t):
        return [Step(t, certain)]
    return [step for member in t.members for step in flatten(member, certain and not t.chooses)]


def flatten_params(t: "Transform", params: Params, on: Coin = True) -> list[Turn]:
    """The turn of each step, with the coins of the nests above it joined into its own."""
    if not is_group(t):
        return [Turn(both(on, params["on"]), params["draw"])]
    if not is_certain(t.p):
        on = both(on, params["on"])
    members = enumerate(zip(t.members, params["members"], strict=True))
    parts = [flatten_params(m, inner, both(on, t.taken(params["draw"], i))) for i, (m, inner) in members]
    return [entry for part in parts for entry in part]


def both(one: Coin, other: Coin) -> Coin:
    """Logical and, without an operation where one is known to be true."""
    return other if one is True else one if other is True else one & other


def runs_of(steps: Sequence[Step]) -> tuple[Run, ...]:
    """The indices of the steps, neighbouring spatial ones that can be read at once together.

    A run also ends before a second change of spacing, before a step that must see voxels, and where interpolation or
    fill clash. It depends on the types and settings alone, never on what was drawn or on any grid.
    """
    runs: list[list[int]] = []
    asked, rescaled, open_run = NOTHING, False, False
    for index, (t, _) in enumerate(steps):
        if not is_spatial(t):
            runs.append([index])
            open_run = False
            continue
        wanted = t.sampling()
        blind = t.locates and not t.follows
        if not open_run or blind or (t.rescales and rescaled) or t.copies or sampling.clash(asked, wanted):
            runs.append([])
            asked, rescaled, open_run = NOTHING, False, True
        runs[-1].append(index)
        asked, rescaled = asked.merged(wanted), rescaled or t.rescales
    return tuple(tuple(run) for run in runs)


def asked_of(steps: Sequence[Step]) -> tuple[Sampling, bool]:
    """Which interpolation and fill a run asks for, and whether it may interpolate at all."""
    asked = NOTHING
    for step in steps:
        asked = asked.merged(step.spatial.sampling())
    return asked, any(not step.spatial.exact for step in steps)


def seen_on_host(t: "Transform") -> bool:
    """Whether the host must see what was drawn for a step: to plan its grids again, or to carry metadata along."""
    return is_spatial(t) or carries(t)


def carries(t: "Transform") -> bool:
    """Whether the metadata of images hang on what is drawn for a step."""
    return t.retimes or bool(t.copies) or getattr(t, "cuts", False)


def is_random(t: "Transform") -> bool:
    """Whether a key is needed: something is drawn, or a coin is thrown; the same inside of a trace as outside."""
    inner = any(is_random(member) for member in t.members) if is_group(t) else False
    return not is_certain(t.p) or inner or t.random


def is_traced(*trees: PyTree) -> bool:
    """Whether any leaf is known only while tracing; reads no file."""
    found = jax.tree.leaves(trees, is_leaf=lambda x: isinstance(x, Image))
    return any(isinstance(leaf, Tracer) for x in found for leaf in (x.held() if isinstance(x, Image) else (x,)))


def reads(steps: Sequence[Step], run: Run) -> bool:
    """Whether a run is one of spatial steps, which is read; any other is one step that changes voxels."""
    return is_spatial(steps[run[0]].transform)


def walk(
    steps: Sequence[Step],
    runs: Sequence[Run],
    params: Told,
    places: Places,
    follow: Callable[[Places, Step, Turn], Places] = advance,
    see: Callable[[Run, Places], None] | None = None,
) -> Iterator[tuple[Run, Places, Places]]:
    """The places before and after each run, from grids alone, on the host as under a trace; lazily.

    follow: what takes places through a step. see: called where a run begins, to put what its steps locate into params.
    """
    for run in runs:
        first = steps[run[0]]
        begin = end = with_copies(
            places, first, params[run[0]].on if first.transform.copies and not first.certain else True
        )
        if reads(steps, run):
            if see is not None:
                see(run, begin)
            for index in run:
                end = follow(end, steps[index], params[index])
        yield run, begin, end
        places = {name: place.anew() for name, place in end.items()}


class Parts(NamedTuple):
    """The runs of a pipeline: once per volume, per patch on the volume, per patch on the box; why some are whole."""

    head: tuple[Run, ...]
    whole: tuple[Run, ...]
    box: tuple[Run, ...]
    why: tuple[tuple[int, str], ...]


def chances(t: "Transform", above: bool = False) -> list[bool]:
    """For each step of a pipeline whether what it does is random: it draws, or a coin or choice decides on it."""
    if not is_group(t):
        return [above or is_random(t)]
    above = above or not is_certain(t.p) or t.chooses
    return [chance for member in t.members for chance in chances(member, above)]


def split(pipeline: "Transform") -> Parts:
    """The three parts; on the host."""
    steps, random = flatten(pipeline), chances(pipeline)
    runs = runs_of(steps)
    chance = [any(random[i] for i in run) for run in runs]
    first = chance.index(True) if True in chance else len(runs)
    begin, foreseen = first, True
    why: dict[int, str] = {}
    for number in range(first, len(runs)):
        t = steps[runs[number][0]].voxels
        if reads(steps, runs[number]):
            if number > begin:
                why |= {n: "comes before a change of space" for n in range(begin, number) if n not in why}
            begin, foreseen = max(begin, number), foreseen and not sizes_by_voxels(steps, runs[number])
            if any(steps[i].spatial.sampling().pad in warp.EDGE_OF for i in runs[number]):
                why[number] = "pads by a ramp over the whole image"
                begin = number + 1
            continue
        if t.copies or t.rechannels:
            why[number] = "makes other images or channels"
        elif t.measures:
            why[number] = "measures what a random member has changed"
        elif t.margin(np.ones(3)) is None:
            why[number] = "needs the whole image"
        elif not foreseen and any(t.margin(np.ones(3))):
            why[number] = "reaches as many voxels as a spacing says that hangs on what is seen"
        else:
            continue
        begin = number + 1
    why |= {n: "comes before one that is whole" for n in range(first, begin) if n not in why}
    return Parts(runs[:first], runs[first:begin], runs[begin:], tuple(why.items()))


def sizes_by_voxels(steps: Sequence[Step], run: Run) -> bool:
    """Whether the spacing after a run may hang on voxels: it changes behind a step that places itself by them."""
    located = [steps[i].spatial.locates for i in run]
    return any(any(located[:n]) and steps[i].spatial.rescales for n, i in enumerate(run))


def shown(pipeline: "Transform") -> str:
    """The three parts in words."""
    steps, parts = flatten(pipeline), split(pipeline)

    def names(runs: Sequence[Run]) -> str:
        return ", ".join(type(steps[i].transform).__name__ for run in runs for i in run) or "nothing"

    lines = [f"once per volume: {names(parts.head)}", f"per patch on the volume: {names(parts.whole)}"]
    offset, why = len(parts.head), dict(parts.why)
    lines += [f"  {names([run])} {why[offset + i]}" for i, run in enumerate(parts.whole)]
    return "\n".join([*lines, f"per patch on the box: {names(parts.box)}"])
