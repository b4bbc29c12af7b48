"""Around a compiled program: after it comes what no program can carry.

Metadata goes around, affines are planned again in float64, and a shape that depends on values is computed in a bucket
and then cut. What is checked before and after stands in `checks.py`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from medjax import io, keys
from medjax.errors import about, is_out_of_memory
from medjax.geometry import Linear
from medjax.present import PRESENT
from medjax.subject import Subject, present_in
from medjax.transforms import buckets
from medjax.transforms.checks import check_beside, check_shapes, check_step, kinds_after, kinds_of, to_verify, verify
from medjax.transforms.place import (
    INDEXED,
    NOTHING_DONE,
    Known,
    Place,
    Record,
    Step,
    Turn,
    advance,
    is_spatial,
    linear_part,
    place_of,
    regridded,
)  # fmt: skip
from medjax.transforms.program import (
    Places,
    Run,
    Told,
    flatten,
    flatten_params,
    reads,
    runs_of,
    seen_on_host,
    walk,
)  # fmt: skip
from medjax.transforms.run import Shapes, draw, execute, locate
from medjax.transforms.seen import Packed
from medjax.transforms.series import Labels, labels_after, with_labels
from medjax.typing import Key, Params, Shape3

if TYPE_CHECKING:  # transforms are called through this
    from medjax.transforms.transform import Transform

T = TypeVar("T")


@jax.jit
def compiled_draw(t: "Transform", key: Key | None, subject: Subject) -> Params:
    """`draw`, compiled."""
    return draw(t, key, subject)


@partial(jax.jit, static_argnames=("certain", "runs", "shapes"))
def compiled_execute(
    transforms: Sequence["Transform"],
    params: Sequence[Turn],
    subject: Subject,
    *,
    certain: tuple[bool, ...],
    runs: tuple[Run, ...],
    shapes: Shapes,
) -> tuple[Subject, Record]:
    """`execute`, compiled: numbers are arguments, structure is static."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return execute(steps, runs, params, subject, shapes)


@partial(jax.jit, static_argnames="certain")
def compiled_locate(
    transforms: Sequence["Transform"], params: Sequence[Turn], subject: Subject, *, certain: tuple[bool, ...]
) -> dict[int, Params]:
    """What the steps of a run must see before it is planned, by their place in the run."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return locate(steps, tuple(range(len(steps))), params, subject)[1]


def outline(subject: Subject) -> Subject:
    """The grids of a subject, its voxels left out, so that every shape draws by one program."""
    images = {}
    for name, image in subject.images.items():
        size = np.asarray(image.size, np.int32)
        images[name] = type(image).of(np.zeros((image.shape[0], 0, 0, 0)), image.affine, size)
    return Subject(images)


class Pending(NamedTuple):
    """A run that is to be executed, the shapes that its images will have, and whether it changes nothing."""

    run: Run
    shapes: tuple[tuple[str, Known], ...]
    idle: bool


def on_host(t: "Transform", subject: Subject, params: Params, record: Record | None = None) -> Subject:
    """Run a pipeline outside of a trace; what was measured and located is put into `record`, if there is one."""
    record = {} if record is None else record
    steps, flat = flatten(t), flatten_params(t, params)
    host = {i: jax.device_get(flat[i]) for i, step in enumerate(steps) if seen_on_host(step.transform)}
    metadata = metadata_after(steps, {name: image.metadata for name, image in subject.images.items()}, host)
    assumed = {name for name, image in subject.images.items() if image.assumed and not changes_grids(steps)}
    pending: list[Pending] = []
    places, kinds = start_all(subject), kinds_of(subject)
    labels = labels_after(steps, subject, host)

    def flush(subject: Subject) -> Subject:
        """Run what is pending in one program, which is the same whichever coins have fallen.

        So runs that change nothing are in it; only where none changes anything nothing is run.
        """
        runs, shapes, idle = zip(*pending, strict=True) if pending else ((), (), ())
        pending.clear()
        if all(idle):
            return subject
        used = sorted(index for run in runs for index in run)
        renumbered = tuple(tuple(used.index(index) for index in run) for run in runs)
        result, seen = compiled_execute(
            tuple(steps[i].transform for i in used), [flat[i] for i in used], bare(subject),
            certain=tuple(steps[i].certain for i in used), runs=renumbered, shapes=shapes,
        )  # fmt: skip
        record.update(found := {used[i]: found for i, found in seen.items()})
        verify(steps, awaited(result, to_verify(steps, found)), present_in(subject).absent())
        return settled(result, places, assumed)

    def see(run: Run, _: Places) -> None:
        """Put what the steps of a run must see of voxels into params."""
        nonlocal subject
        if any(steps[index].spatial.locates for index in run):
            subject = flush(subject)
            located = compiled_locate(
                tuple(steps[i].transform for i in run), [flat[i] for i in run], bare(subject),
                certain=tuple(steps[i].certain for i in run),
            )  # fmt: skip
            for place_in_run, found in jax.device_get(located).items():
                for turns in (flat, host):
                    turns[run[place_in_run]] = turns[run[place_in_run]]._replace(located=found)

    for run, begin, ends in followed(steps, runs_of(steps), host, places, advance, see):
        before, kinds = kinds, kinds_after(steps, run, kinds)
        if not reads(steps, run):
            pending.append(Pending(run, (), False))
            places = begin
            continue
        idle = kinds == before and all(place.cost == NOTHING_DONE for place in ends.values())
        if run[0] == 0 and ends_fixed(steps, run, host, begin):
            subject = bucketed(subject)
        metadata = metadata | slice_times(metadata, begin, ends)
        known = {name: known_shape(place, kinds[name][0].itemsize) for name, place in ends.items()}
        pending.append(Pending(run, tuple(known.items()), idle))
        places = ends
        if not all(whole for _, whole in known.values()):
            subject = flush(subject)
    subject = flush(subject)
    subject = with_labels(subject, labels)
    return subject.replace(**{n: i.replace(metadata=metadata.get(n, {})) for n, i in subject.images.items()})


def metadata_after(steps: Sequence[Step], metadata: dict[str, Any], turns: dict[int, Turn]) -> dict[str, Any]:
    """The metadata of a subject's images, by name, after all steps; `turns`: of those that the host must see."""
    for index, step in enumerate(steps):
        t = step.transform
        for old, new in t.copies:
            if new not in metadata or step.certain or turns[index].on:
                metadata = metadata | {new: metadata[old]}
        if t.retimes and turns[index].on:
            drawn = turns[index].draw
            metadata |= {name: t.retime(metadata[name], drawn[name]) for name in drawn}
    return metadata


def changes_grids(steps: Sequence[Step]) -> bool:
    """Whether a pipeline has a step that may give images other affines."""
    return any(is_spatial(step.transform) for step in steps)


def slice_times(metadata: dict[str, dict[str, Any]], begin: Places, end: Places) -> dict[str, dict[str, Any]]:
    """The metadata of those images whose header says when each slice was taken, which holds no longer.

    It holds where each slice is where it was before: after a flip or a turn within the slices, and after no move at
    all. What crops and resampling do to slices is seen in the grid, when a file is written.
    """
    found = {}
    for name, place in end.items():
        axis = io.slice_axis(metadata.get(name, {}))
        if axis is None or not place.moves or place.cost == NOTHING_DONE:
            continue
        known = name in begin and all(isinstance(move, Linear) for move in place.moves)
        if not known or not np.allclose(linear_part(begin[name], place)[axis], np.eye(4)[axis], atol=1e-4):
            found[name] = io.without_slice_times(metadata[name])
    return found


def start_all(subject: Subject) -> Places:
    """The places of images on the host, before a run."""
    return {name: place_of(image, np) for name, image in subject.images.items()}


def followed(
    steps: Sequence[Step],
    runs: Sequence[Run],
    params: Told,
    places: Places,
    follow: Callable[[Places, Step, Turn], Places] = regridded,
    see: Callable[[Run, Places], None] | None = None,
) -> Iterator[tuple[Run, Places, Places]]:
    """`walk` on the host, where every step is checked before it, and what it leads to after it."""

    def checked(places: Places, step: Step, turn: Turn) -> Places:
        check_step(step, turn, places)
        return follow(places, step, turn)

    for run, begin, end in walk(steps, runs, params, places, checked, see):
        if reads(steps, run):
            check_shapes(end)
        else:
            check_beside(steps[run[0]].transform, begin)
        yield run, begin, end


def places_after(steps: Sequence[Step], runs: Sequence[Run], params: Told, places: Places) -> Places:
    """The places of images after some runs, every step checked, without reading a voxel."""
    for _, _, end in followed(steps, runs, params, places):
        places = end
    return {name: place.anew() for name, place in places.items()}


def known_shape(place: Place, itemsize: int) -> Known:
    """The shape in which a result is computed, and whether all of it is real.

    Exact where the types say it, and after indexing alone; else of a bucket, so that few programs serve many shapes.
    """
    i, j, k = place.grid.shape.tolist()
    exact = place.grid.fixed is not None or place.cost <= INDEXED
    buckets.check_memory((place.grid.channels, i, j, k), itemsize, "the result")
    return ((i, j, k), True) if exact else (buckets.rounded((i, j, k)), False)


def ends_fixed(steps: Sequence[Step], run: Run, params: Told, places: Places) -> bool:
    """Whether the shapes after a run are the same for images of any shape."""
    if not any(steps[index].spatial.reshapes for index in run):
        return False
    places = {name: place.unfixed() for name, place in places.items()}
    for index in run:
        before, places = places, regridded(places, steps[index], params[index])
        if not steps[index].certain:  # another coin leaves the shape that came in
            kept = (name for name, place in places.items() if place.grid.fixed != before[name].grid.fixed)
            places = places | {name: places[name].unfixed() for name in kept}
    return all(place.grid.fixed for place in places.values())


def settled(subject: Subject, places: Places, assumed: Collection[str] = ()) -> Subject:
    """The images with their float64 affines, cut to their true shapes; `assumed` names those that nobody gave one."""
    images = {}
    for name, image in subject.images.items():
        grid = places[name].grid
        data, shape = image.data, tuple(int(n) for n in grid.shape)
        if image.spatial_shape != shape:
            data = data[(slice(None), *map(slice, shape))]
        images[name] = type(image).of(data, np.asarray(grid.affine), assumed=name in assumed)
    return subject.replace(**images)


def bucketed(subject: Subject) -> Subject:
    """The subject with its host arrays padded to shapes that few programs serve."""
    images = {}
    for name, image in subject.images.items():
        if isinstance(image.data, np.ndarray) and image.extent is None:
            images[name] = buckets.padded(image, buckets.bucket(image.spatial_shape))
    return subject.replace(**images)


def fixed_shapes(t: "Transform", key: Key | None, subject: Subject) -> dict[str, Shape3]:
    """The shapes to which the first run of a pipeline brings images, by name, whatever shape they come in."""
    steps = flatten(t)
    if not steps or not is_spatial(steps[0].transform):
        return {}
    fixed: dict[str, Shape3] = {}

    def run(t: "Transform", key: Key | None, subject: Subject) -> None:
        params = flatten_params(t, draw(t, key, subject, (jnp.int32(0), 1)))
        _, places = locate(flatten(t), runs_of(steps)[0], params, subject)[0]
        fixed.update({name: place.grid.fixed for name, place in places.items() if place.grid.fixed})

    images = {}
    for name, image in subject.images.items():
        voxels = jax.ShapeDtypeStruct(image.shape[-4:], image.dtype)
        affine = jax.ShapeDtypeStruct((4, 4), np.float32)
        images[name] = type(image).of(voxels, affine, np.asarray(image.spatial_shape, np.int32))
    jax.eval_shape(run, t, key, Subject(images))
    return fixed


def bare(subject: Subject) -> Subject:
    """The images, points and directions alone, and which images are there."""
    present = present_in(subject)
    return Subject({**subject.images, **subject.annotations, **({PRESENT: present} if present else {})})


def after_batch(
    t: "Transform", subject: Subject, result: Subject, seen: Packed, size: int, who: Sequence[str] | None = None
) -> Subject:
    """Check what was measured in a batch, plan its affines again in float64 and give back its metadata.

    who: what an error calls each element.
    """
    steps = flatten(t)
    runs = runs_of(steps)
    with about(", ".join(who) if who else "the batch"):
        record, turns = awaited(result, seen).unpacked()
    affines = {name: np.asarray(image.affine, np.float64) for name, image in subject.images.items()}
    subject = subject.replace(**{name: subject[name].replace(affine=affine) for name, affine in affines.items()})
    places: list[Places] = []
    labels: list[Labels] = []
    kept: list[dict[str, Any]] = []
    planned: dict[bytes, Places] = {}
    for i in range(size):
        params, found = jax.tree.map(lambda leaf, i=i: leaf[i], (turns, record))
        known = {name: image.metadata for name, image in subject.images.items()}
        known = {name: each[i] if isinstance(each, tuple) else each for name, each in known.items()}
        here = begin = start_all(element_grids(subject, i))
        with about(who[i] if who else f"element {i}"):
            verify(steps, found, present_in(subject).element(i).absent())
            spatial = [n for n in found if is_spatial(steps[n].transform)]
            params |= {n: params[n]._replace(located=found[n]) for n in spatial}
            known = metadata_after(steps, known, params)
            if any(io.slice_axis(metadata) is not None for metadata in known.values()):
                for _, before, here in followed(steps, runs, params, begin, advance):
                    known = known | slice_times(known, before, here)
            else:
                # Elements on equal grids for which the same was drawn, as far as it changes grids, come to equal ones.
                case = drawn_for_grids(steps, params, begin)
                if case not in planned:
                    planned[case] = places_after(steps, runs, params, begin)
                here = planned[case]
        places.append(here)
        labels.append(labels_after(steps, subject, params, i))
        kept.append(known)
    images = {}
    for name, image in result.images.items():
        affine = np.stack([np.asarray(here[name].grid.affine) for here in places])
        images[name] = image.replace(affine=affine, metadata=tuple(metadata[name] for metadata in kept))
    result = with_labels(result, {name: tuple(own[name] for own in labels) for name in labels[0]})
    return Subject({**{n: i for n, i in subject.items() if n not in images}, **result.annotations, **images})


def drawn_for_grids(steps: Sequence[Step], turns: dict[int, Turn], places: Places) -> bytes:
    """All that the grids of one element of a batch, and the checks of them, hang on."""
    parts = [np.asarray(part) for place in places.values() for part in (place.grid.affine, place.grid.shape)]
    for index, turn in turns.items():
        t = steps[index].transform
        parts += [np.asarray(turn.on)] if t.copies else []
        if is_spatial(t):
            for leaf in jax.tree.leaves((turn.on, turn.draw if t.regrids else {}, turn.located)):
                if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                    parts.append(np.asarray(leaf))
                elif not t.locates:  # else what the key leads to is located
                    parts.append(np.asarray(keys.words_of(leaf)))
    return b"".join(part.tobytes() for part in parts)


def awaited(result: Subject, record: T) -> T:
    """The record of a program, after its result: what failed in between is an exception here, MemoryError if need be.

    Nothing waits for a small result without a record.
    """
    large = any(image.data.nbytes > buckets.SMALL for image in result.images.values())
    try:
        if large or jax.tree.leaves(record):
            jax.block_until_ready(result)
        return record
    except jax.errors.JaxRuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


def element_grids(subject: Subject, i: int) -> Subject:
    """Element i of a batch as far as grids go; voxels are not touched."""
    images = {}
    for name, image in subject.images.items():
        extent = None if image.extent is None else np.asarray(image.extent[i])
        outline = np.broadcast_to(np.zeros((), bool), image.data.shape[1:])
        images[name] = type(image).of(outline, np.asarray(image.affine)[i], extent)
    return Subject(images)
