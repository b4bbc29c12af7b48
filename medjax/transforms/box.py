"""A patch of a transformed volume without the rest of it.

A pipeline is cut in three. The *head*, all before the first random member, is the same for every patch of a volume. The
*whole* part runs on the volume for each patch: up to the last member that needs all of it, or that measures it after a
random one. The *box* part, a fused run and what is pointwise or local behind it, computes the box alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from medjax import geometry
from medjax.image import Image
from medjax.ops import warp
from medjax.subject import LOCATION, Subject
from medjax.transforms import fuse
from medjax.transforms.fuse import Place, Step
from medjax.transforms.inverse import trail
from medjax.transforms.steps import Group as Indices
from medjax.transforms.steps import (
    execute,
    flatten,
    groups_of,
    is_certain,
    is_group,
    is_random,
    keep,
    locate,
    run_single,
)
from medjax.transforms.transform import Transform
from medjax.typing import Params, Shape3

Place3 = Callable[[Subject, dict[str, Place]], Int[Array, "3"]]
"""Where a patch begins, in the grid at the end of the run, from the subject before it and the places after it."""


class Parts(NamedTuple):
    """The groups of a pipeline: once per volume, per patch on the volume, per patch on the box; why some are whole."""

    head: tuple[Indices, ...]
    whole: tuple[Indices, ...]
    box: tuple[Indices, ...]
    why: tuple[tuple[int, str], ...]


def chances(t: Any, above: bool = False) -> list[bool]:
    """For each step of a pipeline whether what it does is random: it draws, or a coin or choice decides on it."""
    if not is_group(t):
        return [above or is_random(t)]
    above = above or not is_certain(t.p) or t.chooses
    return [chance for member in t.members for chance in chances(member, above)]


def split(pipeline: Transform) -> Parts:
    """The three parts; on the host."""
    steps, random = flatten(pipeline), chances(pipeline)
    groups = groups_of(steps)
    chance = [any(random[i] for i in group) for group in groups]
    first = chance.index(True) if True in chance else len(groups)
    begin, foreseen = first, True
    why: dict[int, str] = {}
    for number in range(first, len(groups)):
        t = steps[groups[number][0]].transform
        if t.kind == "spatial":
            if number > begin:
                why |= {n: "comes before a change of space" for n in range(begin, number) if n not in why}
            begin, foreseen = max(begin, number), foreseen and not sizes_by_voxels(steps, groups[number])
            if any(steps[i].transform.sampling().pad in warp.EDGE_OF for i in groups[number]):
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
    return Parts(groups[:first], groups[first:begin], groups[begin:], tuple(why.items()))


def sizes_by_voxels(steps: Sequence[Step], group: Indices) -> bool:
    """Whether the spacing after a run may hang on voxels: it changes behind a step that places itself by them."""
    located = [steps[i].transform.locates for i in group]
    return any(any(located[:n]) and steps[i].transform.rescales for n, i in enumerate(group))


def shown(pipeline: Transform) -> str:
    """The three parts in words."""
    steps, parts = flatten(pipeline), split(pipeline)

    def names(groups: Sequence[Indices]) -> str:
        return ", ".join(type(steps[i].transform).__name__ for group in groups for i in group) or "nothing"

    lines = [f"once per volume: {names(parts.head)}", f"per patch on the volume: {names(parts.whole)}"]
    offset, why = len(parts.head), dict(parts.why)
    lines += [f"  {names([group])} {why[offset + i]}" for i, group in enumerate(parts.whole)]
    return "\n".join([*lines, f"per patch on the box: {names(parts.box)}"])


class Ends(NamedTuple):
    """Images at both ends of the box part, for some keys: grids whose affines are (S, 4, 4) and shapes (S, 3)."""

    begin: dict[str, geometry.Grid]
    end: dict[str, geometry.Grid]


def ends(steps: Sequence[Step], parts: Parts, params: Sequence[Params], places: dict[str, Place]) -> Ends:
    """Where the box part begins and ends, of one key, from the places after the head alone; traced.

    What steps see in voxels, which says where a window lies, is left out: their grids have the right size and spacing.
    """
    way = trail(steps, (*parts.whole, *parts.box), params, places)
    end = way[-1][1] if way else places
    begin = way[len(parts.whole)][0] if parts.box else end
    bare = [{n: geometry.Grid(p.grid.affine, p.grid.shape) for n, p in found.items()} for found in (begin, end)]
    return Ends(*bare)


def margin_of(
    steps: Sequence[Step], groups: Sequence[Indices], grids: dict[str, geometry.Grid], labels: dict[str, bool]
) -> Shape3:
    """How many voxels beyond the patch the box part has to read, for any image and any of the draws in `grids`.

    grids: at the end of the run. A spacing decides on a whole number, so it is taken a little smaller than it is.
    """
    most = np.zeros(3, np.int64)
    local = [steps[group[0]].transform for group in groups if not is_spatial(steps, group)]
    for name, grid in grids.items():
        mine = [t for t in local if fuse.included(t, name, labels[name])]
        for spacing in np.unique(geometry.spacing(np.asarray(grid.affine)), axis=0) if mine else ():
            most = np.maximum(most, np.sum([t.margin(spacing * (1 - 1e-5)) for t in mine], 0))
    i, j, k = most.tolist()
    return i, j, k


def is_spatial(steps: Sequence[Step], group: Indices) -> bool:
    """Whether a group is a run of spatial steps."""
    return steps[group[0]].transform.kind == "spatial"


def boxed(
    steps: Sequence[Step],
    parts: Parts,
    params: Sequence[Params],
    subject: Subject,
    place: Place3,
    size: Shape3,
    margin: Shape3,
) -> Subject:
    """The patch of `size` where `place` says, of a subject that the head has run on; traced.

    It equals the box at its location, cut from the whole transformed volume.
    """
    subject = execute(steps, parts.whole, params, subject)[0]
    run = parts.box[:1] if parts.box and is_spatial(steps, parts.box[0]) else ()
    begin = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
    end = begin
    for group in run:
        subject = keep(subject, steps[group[0]], params[group[0]]["on"])
        begin = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
        end = locate(steps, group, params, subject)[0]
    start = place(subject, end)
    around = jnp.asarray(margin, jnp.int32)
    i, j, k = (n + 2 * m for n, m in zip(size, margin, strict=True))
    chosen = [steps[index] for group in run for index in group]
    images = {}
    for name, image in subject.images.items():
        mine = [step for step in chosen if fuse.included(step.transform, name, begin[name].label)]
        box = fuse.read(image, mine, begin[name], windowed(end[name], start - around, (i, j, k)))
        images[name] = box.replace(offset=start - around, full=end[name].grid.shape)
    moves = next(iter(end.values())).moves
    subject = subject.replace(**images, **fuse.annotated(subject, moves))
    for group in parts.box[len(run) :]:
        if any(margin):
            subject = subject.replace(**{name: continued(image) for name, image in subject.images.items()})
        subject = run_single(steps[group[0]], params[group[0]], subject)[0]
    whole = jnp.concatenate([start, start + jnp.asarray(size, jnp.int32)])
    return subject.replace(**{name: inner(image, margin, size) for name, image in subject.images.items()},
                           **{LOCATION: whole})  # fmt: skip


def windowed(place: Place, first: Int[Array, "3"], shape: Shape3) -> Place:
    """The place of a box of a grid."""
    grid = geometry.window(place.grid, first, jnp.asarray(shape, jnp.int32), shape)
    cost = jnp.maximum(place.cost, fuse.INDEXED)
    return place._replace(grid=grid, low=place.low - first, high=place.high - first, cost=cost)


def continued(image: Image) -> Image:
    """A box whose voxels beyond the volume are mirrored from inside, as a blur of the volume would see them."""
    data, offset, full = image.data, jnp.asarray(image.offset), jnp.asarray(image.full)
    for axis, size in enumerate(image.spatial_shape):
        index = jnp.arange(size, dtype=jnp.int32) + offset[axis]
        inside = warp.fold(index, jnp.int32(0), full[axis], "symmetric") - offset[axis]
        data = jnp.take(data, jnp.clip(inside, 0, size - 1), axis=axis + 1)
    return image.replace(data=data)


def inner(image: Image, margin: Shape3, size: Shape3) -> Image:
    """The patch of a box, an image of its own."""
    data = image.data[(slice(None), *(slice(m, m + n) for m, n in zip(margin, size, strict=True)))]
    affine = geometry.matmul(image.affine, geometry.translation(jnp.asarray(margin, image.affine.dtype)))
    return type(image).of(data, affine)
