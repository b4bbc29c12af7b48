"""The way back: the steps of a pipeline undone, the last one first, each fused run by one reading.

Params hold draws alone. The grids that a run came through are planned again from what the pipeline was given, and what
a step had measured or located there is found again by running it, where a step needs that.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from medjax.errors import needs_concrete, one_of
from medjax.image import Image
from medjax.ops.warp import INTERPOLATIONS
from medjax.subject import Subject
from medjax.transforms import buckets
from medjax.transforms.host import bare, followed, on_host, outline, settled, start_all
from medjax.transforms.moves import annotated_back
from medjax.transforms.place import (
    INDEXED,
    Known,
    Measured,
    Place,
    Record,
    Step,
    Turn,
    advance,
    cost_back,
    included,
    is_spatial,
    place_of,
)
from medjax.transforms.program import Places, Run, flatten, flatten_params, is_traced, reads, runs_of, walk
from medjax.transforms.read import read_back
from medjax.transforms.run import Shapes, execute
from medjax.typing import Params, Tracer, working

if TYPE_CHECKING:  # transforms are called through this
    from medjax.transforms.transform import Transform

Sources = dict[str, str]
"""For each image that is brought back, the one of the original whose way it takes."""
Keepers = dict[str, tuple[int, str]]
"""For each name that steps have kept an image under: the step, and the image."""


def invert(t: "Transform", subject: Subject, params: Params, like: Subject, interpolation: str | None) -> Subject:
    """Undo a pipeline, traced or not; gives the images of `subject` on the grids of `like`."""
    if interpolation is not None:
        one_of("interpolation", interpolation, INTERPOLATIONS)
    steps, flat = flatten(t), flatten_params(t, params)
    runs = runs_of(steps)
    if not is_traced(t, subject, params, like):
        return invert_on_host(t, steps, runs, subject, params, like, interpolation)
    record = execute(steps, runs, flat, like.load())[1] if sees(steps) else {}
    begin = {name: place_of(image, jnp) for name, image in like.images.items()}
    *_, (_, _, last) = walk(steps, runs, located(steps, flat, record), begin)
    sources = match(subject, last)
    keepers = keepers_of(steps, flat, sources.values())
    return undo(steps, runs, flat, subject, like, record, sources, keepers, interpolation)


def invert_on_host(t, steps, runs, subject, params, like, interpolation) -> Subject:
    """`invert` by one compiled program, all grids planned in float64 first."""
    record: Record = {}
    if sees(steps):
        on_host(t, like.load(), params, record)
    flat = located(steps, flatten_params(t, params), record)
    spatial = {i: jax.device_get(flat[i]) for i, step in enumerate(steps) if is_spatial(step.transform)}
    first = here = start_all(like)
    shapes: list[tuple[tuple[str, Known], ...]] = []
    for _, begin, here in followed(steps, runs, {**dict(enumerate(flat)), **spatial}, first, advance):
        shapes.append(tuple((name, known_before(begin[name], here[name])) for name in begin))
    here = {name: place.anew() for name, place in here.items()}
    sources = match(subject, here)
    keepers = keepers_of(steps, flat, sources.values())
    result = compiled_undo(
        tuple(step.transform for step in steps), flat, bare(subject), outline(like), record,
        certain=tuple(step.certain for step in steps), runs=runs, shapes=tuple(shapes),
        sources=tuple(sources.items()), keepers=tuple(keepers.items()), interpolation=interpolation,
    )  # fmt: skip
    return settled(result, {name: first[origin(source, keepers, -1)] for name, source in sources.items()})


@partial(jax.jit, static_argnames=("certain", "runs", "shapes", "sources", "keepers", "interpolation"))
def compiled_undo(transforms, flat, subject, like, record, *, certain, runs, shapes, sources, keepers, interpolation):
    """`undo`, compiled: numbers are arguments, structure is static."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return undo(steps, runs, flat, subject, like, record, dict(sources), dict(keepers), interpolation, shapes)


def sees(steps: Sequence[Step]) -> bool:
    """Whether the way back needs what the pipeline saw in voxels."""
    return any(
        step.spatial.locates if is_spatial(step.transform) else step.voxels.measures and step.voxels.invertible
        for step in steps
    )


def located(steps: Sequence[Step], flat: Sequence[Turn], record: Record) -> list[Turn]:
    """The turns with what the steps had located."""
    return [turn._replace(located=record[i]) if i in record and is_spatial(steps[i].transform) else turn
            for i, turn in enumerate(flat)]  # fmt: skip


def known_before(before: Place, after: Place) -> Known:
    """The shape in which the grid before a run is read back, and whether all of it is real; few, where it may be."""
    i, j, k = (int(n) for n in before.grid.shape)
    exact = cost_back(before, after) <= INDEXED
    return ((i, j, k), True) if exact else (buckets.rounded((i, j, k)), False)


def match(subject: Subject, ends: Places) -> Sources:
    """Whose way each image takes back: its own, or that of the first like it in kind and shape, or in shape.

    Raises ValueError for an image that no place has the shape of.
    """
    sources = {}
    for name, image in subject.images.items():
        shapes = {n: p.grid.fixed for n, p in ends.items()}
        fitting = [n for n, shape in shapes.items() if shape in (None, image.spatial_shape)]
        alike = [n for n in fitting if ends[n].label == image.is_label]
        if (name in ends and name not in fitting) or not fitting:
            raise ValueError(
                f"{name} has shape {image.spatial_shape}, but the pipeline ends in "
                + ", ".join(f"{shape} for {n}" for n, shape in shapes.items())
            )
        sources[name] = name if name in ends else (alike or fitting)[0]
    return sources


def keepers_of(steps: Sequence[Step], flat: Sequence[Turn], names: Collection[str]) -> Keepers:
    """Which step has kept an image under each of `names`, and of which image: the last that is on.

    Raises TypeError where that hangs on coins that are traced.
    """
    kept: Keepers = {}
    for index, step in enumerate(steps):
        for old, new in step.transform.copies:
            if new in kept and not step.certain and new in names and isinstance(flat[index].on, Tracer):
                needs_concrete(f"which member has kept {new!r}", "leave it out, or call invert outside of jit")
            if new not in kept or step.certain or flat[index].on:
                kept[new] = index, old
    return kept


def origin(name: str, keepers: Keepers, begin: int) -> str:
    """The image that `name` was where the run of step `begin` begins, before a later step kept it under that name."""
    index, old = keepers.get(name, (-1, name))
    return origin(old, keepers, begin) if index > begin else name


def undo(
    steps: Sequence[Step],
    runs: Sequence[Run],
    flat: Sequence[Turn],
    subject: Subject,
    like: Subject,
    record: Record,
    sources: Sources,
    keepers: Keepers,
    interpolation: str | None,
    shapes: Shapes = (),
) -> Subject:
    """Take back run after run, traced."""
    begin = {name: place_of(image, jnp) for name, image in like.images.items()}
    way = [(before, after) for _, before, after in walk(steps, runs, located(steps, flat, record), begin)]
    for number in reversed(range(len(runs))):
        run, (before, after) = runs[number], way[number]
        own = {name: origin(source, keepers, run[0]) for name, source in sources.items()}
        if reads(steps, run):
            known = dict(shapes[number]) if shapes else {}
            subject = undo_run([steps[i] for i in run], subject, own, before, after, known, interpolation)
        else:
            found = record.get(run[0])
            measured = found.images if isinstance(found, Measured) else {}
            subject = undo_single(steps[run[0]], flat[run[0]], subject, own, measured, sources)
    return subject


def undo_run(chosen, subject: Subject, own: Sources, before: Places, after: Places, known, interpolation) -> Subject:
    """Take back a fused run: each image read once, on the grid that it had before."""
    images = {}
    for name, image in subject.images.items():
        source = own[name]
        mine = [step for step in chosen if included(step.transform, source, before[source].label)]
        if mine:
            fixed = before[source].grid.fixed
            shape = known.get(source) or (None if fixed is None else (fixed, True))
            if shape is None:
                needs_concrete("a shape inside the pipeline", "call invert outside of jit")
            images[name] = read_back(image, mine, before[source], after[source], shape, interpolation)
    moves = next(iter(after.values())).moves
    return subject.replace(**images, **annotated_back(subject, moves))


def undo_single(
    step: Step, turn: Turn, subject: Subject, own: Sources, measured: dict[str, tuple[Params, ...]], sources: Sources
) -> Subject:
    """Take back an intensity or label step; a prediction that only shares the way of an image has no intensities."""
    t, images = step.voxels, {}
    for name, image in subject.images.items():
        source = own[name]
        predicted = sources[name] != name and not (t.labels_only and image.is_label)
        if not t.invertible or source not in turn.draw or predicted:
            continue

        def back(data: jax.Array, image: Image = image, source: str = source) -> jax.Array:
            before = t.for_image(source).undo
            return before(image.replace(data=data), turn.draw[source], *measured.get(source, ())).data

        data = jnp.asarray(image.data)
        data = data if image.is_label else data.astype(working(data.dtype))
        data = back(data) if step.certain else jax.lax.cond(turn.on, back, lambda d: d, data)
        images[name] = image.replace(data=data)
    return subject.replace(**images)
