"""A patch of a transformed volume without the rest of it.

A pipeline is cut in three. The *head*, all before the first random member, is the same for every patch of a volume. The
*whole* part runs on the volume for each patch: up to the last member that needs all of it, or that measures it after a
random one. The *box* part, a fused run and what is pointwise or local behind it, computes the box alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from medjax import geometry
from medjax.image import Image
from medjax.ops import warp
from medjax.subject import LOCATION, Subject
from medjax.transforms.moves import annotated
from medjax.transforms.place import INDEXED, Place, Step, Turn, included, place_of
from medjax.transforms.program import Parts, Run, reads, walk
from medjax.transforms.read import read
from medjax.transforms.run import execute, keep, locate, run_single
from medjax.typing import Shape3

Place3 = Callable[[Subject, dict[str, Place]], Int[Array, "3"]]
"""Where a patch begins, in the grid at the end of the run, from the subject before it and the places after it."""


class Ends(NamedTuple):
    """Images at both ends of the box part, for some keys: grids whose affines are (S, 4, 4) and shapes (S, 3)."""

    begin: dict[str, geometry.Grid]
    end: dict[str, geometry.Grid]


def ends(steps: Sequence[Step], parts: Parts, params: Sequence[Turn], places: dict[str, Place]) -> Ends:
    """Where the box part begins and ends, of one key, from the places after the head alone; traced.

    What steps see in voxels, which says where a window lies, is left out: their grids have the right size and spacing.
    """
    way = [(begin, end) for _, begin, end in walk(steps, (*parts.whole, *parts.box), params, places)]
    end = way[-1][1] if way else places
    begin = way[len(parts.whole)][0] if parts.box else end
    bare = [{n: geometry.Grid(p.grid.affine, p.grid.shape) for n, p in found.items()} for found in (begin, end)]
    return Ends(*bare)


def margin_of(
    steps: Sequence[Step], runs: Sequence[Run], grids: dict[str, geometry.Grid], labels: dict[str, bool]
) -> Shape3:
    """How many voxels beyond the patch the box part has to read, for any image and any of the draws in `grids`.

    grids: at the end of the run. A spacing decides on a whole number, so it is taken a little smaller than it is.
    """
    most = np.zeros(3, np.int64)
    local = [steps[run[0]].voxels for run in runs if not reads(steps, run)]
    for name, grid in grids.items():
        mine = [t for t in local if included(t, name, labels[name])]
        for spacing in np.unique(geometry.spacing(np.asarray(grid.affine)), axis=0) if mine else ():
            most = np.maximum(most, np.sum([t.margin(spacing * (1 - 1e-5)) or (0, 0, 0) for t in mine], 0))
    i, j, k = most.tolist()
    return i, j, k


def boxed(
    steps: Sequence[Step],
    parts: Parts,
    params: Sequence[Turn],
    subject: Subject,
    place: Place3,
    size: Shape3,
    margin: Shape3,
) -> Subject:
    """The patch of `size` where `place` says, of a subject that the head has run on; traced.

    It equals the box at its location, cut from the whole transformed volume.
    """
    subject = execute(steps, parts.whole, params, subject)[0]
    spatial = parts.box[:1] if parts.box and reads(steps, parts.box[0]) else ()
    begin = {name: place_of(image, jnp) for name, image in subject.images.items()}
    end = begin
    for run in spatial:
        subject = keep(subject, steps[run[0]], params[run[0]].on)
        begin = {name: place_of(image, jnp) for name, image in subject.images.items()}
        _, end = locate(steps, run, params, subject)[0]
    start = place(subject, end)
    around = jnp.asarray(margin, jnp.int32)
    i, j, k = (n + 2 * m for n, m in zip(size, margin, strict=True))
    chosen = [steps[index] for run in spatial for index in run]
    images = {}
    for name, image in subject.images.items():
        mine = [step for step in chosen if included(step.transform, name, begin[name].label)]
        box = read(image, mine, begin[name], windowed(end[name], start - around, (i, j, k)))
        images[name] = box.replace(offset=start - around, full=end[name].grid.shape)
    moves = next(iter(end.values())).moves
    subject = subject.replace(**images, **annotated(subject, moves))
    for run in parts.box[len(spatial) :]:
        if any(margin):
            subject = subject.replace(**{name: continued(image) for name, image in subject.images.items()})
        subject = run_single(steps[run[0]], params[run[0]], subject)[0]
    whole = jnp.concatenate([start, start + jnp.asarray(size, jnp.int32)])
    return subject.replace(**{name: inner(image, margin, size) for name, image in subject.images.items()},
                           **{LOCATION: whole})  # fmt: skip


def windowed(place: Place, first: Int[Array, "3"], shape: Shape3) -> Place:
    """The place of a box of a grid."""
    grid = geometry.window(place.grid, first, jnp.asarray(shape, jnp.int32), shape)
    cost = jnp.maximum(place.cost, INDEXED)
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
