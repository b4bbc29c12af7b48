"""Around a compiled program: checks before it, and after it what no program can carry.

Metadata goes around, affines are planned again in float64, and a shape that depends on values is computed in a bucket
and then cut.
"""

import warnings
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import io
from medjax.errors import about
from medjax.geometry import Grid, Linear, check_overlap
from medjax.image import Image
from medjax.subject import Subject
from medjax.transforms import buckets, fuse
from medjax.transforms.fuse import Known, Place, Step
from medjax.transforms.spatial.sampling import check_fill, is_label
from medjax.transforms.steps import (
    Group,
    copied,
    draw,
    execute,
    flatten,
    flatten_params,
    groups_of,
    is_traced,
    locate,
    seen_on_host,
)
from medjax.typing import Key, Params, Shape3, wider


@jax.jit
def compiled_draw(t: Any, key: Key | None, subject: Subject) -> Params:
    """`draw`, compiled."""
    return draw(t, key, subject)


@partial(jax.jit, static_argnames=("certain", "groups", "shapes"))
def compiled_execute(transforms, params, subject, *, certain, groups, shapes):
    """`execute`, compiled: numbers are arguments, structure is static."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return execute(steps, groups, params, subject, shapes)


@partial(jax.jit, static_argnames="certain")
def compiled_locate(transforms: Any, params: Any, subject: Subject, *, certain: tuple[bool, ...]) -> dict[int, Params]:
    """What the steps of a run must see before it is planned, by their place in the run."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return locate(steps, tuple(range(len(steps))), params, subject)[1]


def outline(subject: Subject) -> Subject:
    """The grids of a subject, its voxels left out, so that every shape draws by one program."""
    images = {}
    for name, image in subject.images.items():
        shape = image.spatial_shape if image.extent is None else image.extent
        images[name] = type(image).of(np.zeros((image.shape[0], 0, 0, 0)), image.affine, np.asarray(shape, np.int32))
    return Subject(images)


def on_host(t: Any, subject: Subject, params: Params, record: dict[int, Any] | None = None) -> Subject:
    """Run a pipeline outside of a trace; what was measured and located is put into `record`, if there is one."""
    record = {} if record is None else record
    steps, flat = flatten(t), [dict(p) for p in flatten_params(t, params)]
    host = {i: jax.device_get(flat[i]) for i, step in enumerate(steps) if seen_on_host(step.transform)}
    metadata = metadata_after(steps, {name: image.metadata for name, image in subject.images.items()}, host)
    assumed = {name for name, image in subject.images.items() if image.assumed and not changes_grids(steps)}
    pending: list[tuple[Group, tuple[tuple[str, Known], ...]]] = []
    places, kinds = start_all(subject), kinds_of(subject)

    def flush(subject: Subject) -> Subject:
        """Run what is pending in one program."""
        if not pending:
            return subject
        groups, shapes = zip(*pending, strict=True)
        pending.clear()
        used = sorted(index for group in groups for index in group)
        renumbered = tuple(tuple(used.index(index) for index in group) for group in groups)
        result, seen = compiled_execute(
            tuple(steps[i].transform for i in used), [flat[i] for i in used], bare(subject),
            certain=tuple(steps[i].certain for i in used), groups=renumbered, shapes=shapes,
        )  # fmt: skip
        verify([steps[i] for i in used], awaited(result, seen))
        record.update((used[i], found) for i, found in seen.items())
        return settled(result, places, assumed)

    for group in groups_of(steps):
        first = steps[group[0]].transform
        places = fuse.copied(places, steps[group[0]], host.get(group[0], {}))
        before, kinds = kinds, kinds_after(steps, group, kinds)
        if first.kind != "spatial":
            pending.append((group, ()))
            continue
        if any(steps[index].transform.locates for index in group):
            subject = flush(subject)
            located = compiled_locate(
                tuple(steps[i].transform for i in group), [flat[i] for i in group], bare(subject),
                certain=tuple(steps[i].certain for i in group),
            )  # fmt: skip
            for place_in_run, found in jax.device_get(located).items():
                flat[group[place_in_run]]["located"] = host[group[place_in_run]]["located"] = found
        ends = planned(steps, group, host, places)
        if kinds == before and all(place.cost == fuse.NOTHING_DONE for place in ends.values()):
            continue
        if group[0] == 0 and ends_fixed(steps, group, host, places):
            subject = bucketed(subject)
        metadata = metadata | slice_times(metadata, places, ends)
        known = {name: known_shape(place) for name, place in ends.items()}
        pending.append((group, tuple(known.items())))
        places = {name: concrete(place) for name, place in ends.items()}
        if not all(whole for _, whole in known.values()):
            subject = flush(subject)
    subject = flush(subject)
    return subject.replace(**{n: i.replace(metadata=metadata.get(n, {})) for n, i in subject.images.items()})


def metadata_after(steps: Sequence[Step], metadata: dict[str, Any], params: dict[int, Params]) -> dict[str, Any]:
    """The metadata of a subject's images, by name, after all steps; `params` are those that the host must see."""
    for index, step in enumerate(steps):
        t = step.transform
        for old, new in t.copies:
            if new not in metadata or step.certain or params[index]["on"]:
                metadata = metadata | {new: metadata[old]}
        if t.retimes and params[index]["on"]:
            drawn = params[index]["draw"]
            metadata |= {name: t.retime(metadata[name], drawn[name]) for name in drawn}
    return metadata


def changes_grids(steps: Sequence[Step]) -> bool:
    """Whether a pipeline has a step that may give images other affines."""
    return any(step.transform.kind == "spatial" for step in steps)


def slice_times(
    metadata: dict[str, dict[str, Any]], begin: dict[str, Place], end: dict[str, Place]
) -> dict[str, dict[str, Any]]:
    """The metadata of those images whose header says when each slice was taken, which holds no longer.

    It holds where each slice is where it was before: after a flip or a turn within the slices, and after no move at
    all. What crops and resampling do to slices is seen in the grid, when a file is written.
    """
    found = {}
    for name, place in end.items():
        axis = io.slice_axis(metadata.get(name, {}))
        if axis is None or not place.moves or place.cost == fuse.NOTHING_DONE:
            continue
        known = name in begin and all(isinstance(move, Linear) for move in place.moves)
        if not known or not np.allclose(fuse.linear_part(begin[name], place)[axis], np.eye(4)[axis], atol=1e-4):
            found[name] = io.without_slice_times(metadata[name])
    return found


def start_all(subject: Subject) -> dict[str, Place]:
    """The places of images on the host, before a run."""
    return {name: fuse.start(image, np) for name, image in subject.images.items()}


def planned(
    steps: Sequence[Step], group: Group, params: dict[int, Params], places: dict[str, Place]
) -> dict[str, Place]:
    """The places after a run, in float64, every step checked."""
    for index in group:
        t, located = steps[index].transform, params[index].get("located", {})
        grids = {name: place.grid for name, place in places.items() if fuse.included(t, name, place.label)}
        if steps[index].certain or params[index]["on"]:
            t.check(grids, located)
        places = fuse.advance(places, steps[index], params[index], located)
    return places


def shapes_after(t: Any, params: Params, subject: Subject) -> dict[str, Shape3]:
    """The shape that each image has at the end of a pipeline, every step checked, without reading a voxel."""
    steps, flat = flatten(t), flatten_params(t, params)
    host = {i: jax.device_get(flat[i]) for i, step in enumerate(steps) if seen_on_host(step.transform)}
    places = start_all(subject)
    for group in groups_of(steps):
        places = fuse.copied(places, steps[group[0]], host.get(group[0], {}))
        if steps[group[0]].transform.kind == "spatial":
            places = {name: concrete(place) for name, place in planned(steps, group, host, places).items()}
    return {name: concrete(place).grid.fixed for name, place in places.items()}


def concrete(place: Place) -> Place:
    """The place at which the next run begins: all of the grid shows, nothing has moved yet."""
    i, j, k = (int(n) for n in place.grid.shape)
    if min(i, j, k) < 1:
        raise ValueError(f"the result has no voxels: shape {(i, j, k)}; the target spacing is larger than the image")
    buckets.check_count((i, j, k), "the result")
    grid = place.grid._replace(fixed=(i, j, k))
    return Place(grid, np.zeros(3, np.int32), np.asarray(grid.shape, np.int32), place.label)


def known_shape(place: Place) -> Known:
    """The shape in which a result is computed, and whether all of it is real.

    Exact where the types say it, and after indexing alone; else of a bucket, so that few programs serve many shapes.
    """
    i, j, k = (int(n) for n in concrete(place).grid.shape)
    exact = place.grid.fixed is not None or place.cost <= fuse.INDEXED
    # What is read is a channel of float32 at least; labels, and what is indexed, may be of one byte.
    buckets.check_memory((i, j, k), 1 if place.label or place.cost <= fuse.INDEXED else 4, "the result")
    return ((i, j, k), True) if exact else (buckets.rounded((i, j, k)), False)


def ends_fixed(steps: Sequence[Step], group: Group, params: dict[int, Params], places: dict[str, Place]) -> bool:
    """Whether the shapes after a run are the same for images of any shape."""
    places = {name: place._replace(grid=place.grid._replace(fixed=None)) for name, place in places.items()}
    for index in group:
        places = fuse.advance(places, steps[index], params[index], params[index].get("located", {}))
    return all(place.grid.fixed for place in places.values())


def settled(subject: Subject, places: dict[str, Place], assumed: Collection[str] = ()) -> Subject:
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


def fixed_shapes(t: Any, key: Key | None, subject: Subject) -> dict[str, Shape3]:
    """The shapes to which the first run of a pipeline brings images, by name, whatever shape they come in."""
    steps = flatten(t)
    if not steps or steps[0].transform.kind != "spatial":
        return {}
    fixed: dict[str, Shape3] = {}

    def run(t: Any, key: Key | None, subject: Subject) -> None:
        params = flatten_params(t, draw(t, key, subject, (jnp.int32(0), 1)))
        places = locate(flatten(t), groups_of(steps)[0], params, subject)[0]
        fixed.update({name: place.grid.fixed for name, place in places.items() if place.grid.fixed})

    images = {}
    for name, image in subject.images.items():
        voxels = jax.ShapeDtypeStruct(image.shape[-4:], image.dtype)
        affine = jax.ShapeDtypeStruct((4, 4), np.float32)
        images[name] = type(image).of(voxels, affine, np.asarray(image.spatial_shape, np.int32))
    jax.eval_shape(run, t, key, Subject(images))
    return fixed


def bare(subject: Subject) -> Subject:
    """The images, points and directions alone."""
    return Subject({**subject.images, **subject.annotations})


def after_batch(
    t: Any, subject: Subject, result: Subject, record: Any, size: int, who: Sequence[str] | None = None
) -> Subject:
    """Check what was measured in a batch, plan its affines again in float64 and give back its metadata.

    who: what an error calls each element.
    """
    steps = flatten(t)
    groups = groups_of(steps)
    with about(", ".join(who) if who else "the batch"):
        record = jax.device_get(awaited(result, record))
    places: list[dict[str, Place]] = []
    kept: list[dict[str, Any]] = []
    for i in range(size):
        params, found = jax.tree.map(lambda leaf, i=i: leaf[i], (record["params"], record["record"]))
        starts = here = start_all(element_grids(subject, i))
        with about(who[i] if who else f"element {i}"):
            verify(steps, found)
            for group in groups:
                first = steps[group[0]].transform
                here = fuse.copied(here, steps[group[0]], params.get(group[0], {}))
                if first.kind == "spatial":
                    located = {i: {**params[i], "located": found[i]} for i in group if i in found}
                    here = planned(steps, group, {**params, **located}, here)
        places.append(here)
        known = {name: image.metadata for name, image in subject.images.items()}
        known = {name: found[i] if isinstance(found, tuple) else found for name, found in known.items()}
        known = metadata_after(steps, known, params)
        kept.append(known | slice_times(known, starts, here))
    images = {}
    for name, image in result.images.items():
        affine = np.stack([np.asarray(here[name].grid.affine) for here in places])
        images[name] = image.replace(affine=affine, metadata=tuple(metadata[name] for metadata in kept))
    return Subject({**{n: i for n, i in subject.items() if n not in images}, **result.annotations, **images})


def awaited(result: Subject, record: Any) -> Any:
    """The record of a program, after its result: what failed in between is an exception here, MemoryError if need be.

    Nothing waits for a result without a record.
    """
    try:
        if jax.tree.leaves(record):
            jax.block_until_ready(result)
        return record
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error) or "out of memory" in str(error).lower():
            raise MemoryError(str(error)) from error
        raise


def element_grids(subject: Subject, i: int) -> Subject:
    """Element i of a batch as far as grids go; voxels are not touched."""
    images = {}
    for name, image in subject.images.items():
        extent = None if image.extent is None else np.asarray(image.extent[i])
        outline = np.broadcast_to(np.zeros((), bool), image.data.shape[1:])
        images[name] = type(image).of(outline, np.asarray(image.affine[i]), extent)
    return Subject(images)


def verify(steps: Sequence[Step], record: dict[int, Any]) -> None:
    """Raise the error of whatever was measured and makes no sense."""
    for index, found in record.items():
        t = steps[index].transform
        if t.kind != "spatial" and t.measures:
            found = jax.device_get(found)
            for name, measured in found["measured"].items() if found["on"] else ():
                t.verify(measured[0], name)


def check_subject(t: Any, subject: Subject) -> None:
    """Raise a ValueError for what a subject lacks, or has already, before anything is computed."""
    steps = flatten(t)
    moved = dict.fromkeys(list(subject.images)[:1])
    kinds, taken, made = kinds_of(subject), set(subject), {}
    given: set[str] = set()
    for name, image in subject.images.items():
        buckets.check_count(image.spatial_shape, f"image {name!r}")
    for step in steps:
        inner = step.transform
        for old, new in inner.copies:
            if new in taken:
                raise ValueError(f"{type(inner).__name__} makes an image {new!r}, a name that the subject has already")
            if made.setdefault(new, old) != old:
                raise ValueError(f"the name {new!r} is given to copies of both {made[new]!r} and {old!r}")
        for name in (*(inner.include or ()), *(inner.exclude or ()), *(old for old, _ in inner.copies)):
            if name not in subject.images and name not in made:
                known = ", ".join(subject.images)
                raise ValueError(f"{type(inner).__name__} names image {name!r}; the subject has {known}")
        subject = subject.replace(**{new: copied(subject[old], inner) for old, new in inner.copies})
        inner.check_subject(subject)
        if inner.kind == "spatial":
            here = [n for n, image in subject.images.items() if fuse.included(inner, n, is_label(image))]
            moved |= dict.fromkeys(here)
            given |= set(here) if inner.relabels else set()
    for group in groups_of(steps):
        check_fills(steps, group, kinds)
        kinds = kinds_after(steps, group, kinds)
    images = {name: subject[name] for name in moved}
    if len(images) > 1 and not is_traced([image.affine for image in images.values()]):
        warn_of_assumed(images, given)
        check_overlap({n: Grid(i.affine, i.spatial_shape if i.extent is None else i.extent) for n, i in images.items()})


Kinds = dict[str, tuple[np.dtype, bool]]
"""The dtype of each image, and whether it is a label map: what a pipeline makes of them is known from the types."""


def kinds_of(subject: Subject) -> Kinds:
    """The kinds of a subject's images."""
    return {name: (image.dtype, is_label(image)) for name, image in subject.images.items()}


def kinds_after(steps: Sequence[Step], group: Group, kinds: Kinds) -> Kinds:
    """The kinds of images after a group of steps, whatever is drawn."""
    first = steps[group[0]].transform
    for old, new in first.copies:
        dtype, label = kinds[old]
        if new in kinds and not steps[group[0]].certain:
            dtype = wider(dtype, kinds[new][0])
        kinds = kinds | {new: (dtype, label and not first.synthesises)}
    after = {}
    for name, (dtype, label) in kinds.items():
        mine = [steps[i] for i in group if fuse.included(steps[i].transform, name, label)]
        interpolates = first.kind != "spatial" or fuse.asked_of(mine)[1]
        after[name] = (fuse.dtype_after(dtype, label, interpolates) if mine else dtype, label)
    return after


def check_fills(steps: Sequence[Step], group: Group, kinds: Kinds) -> None:
    """Raise a ValueError for a fill that an image cannot hold in the dtype that it has after a group of steps."""
    if steps[group[0]].transform.kind != "spatial":
        return
    for name, (dtype, label) in kinds_after(steps, group, kinds).items():
        asked = fuse.asked_of([steps[i] for i in group if fuse.included(steps[i].transform, name, label)])[0]
        for fill in (asked.label_fill, asked.label_pad) if label else (asked.fill, asked.pad):
            check_fill(fill, f"{'label map' if label else 'image'} {name!r}", dtype)


def warn_of_assumed(images: dict[str, Image], given: Collection[str]) -> None:
    """Warn of an image whose affine nobody gave, beside one of the same shape that has another: they will part.

    given: names of the images to which the pipeline itself gives an affine.
    """
    for name, image in images.items():
        for other, beside in images.items() if image.assumed and name not in given else ():
            same = image.spatial_shape == beside.spatial_shape and not beside.assumed and other not in given
            if same and not np.allclose(beside.affine, np.eye(4)):
                warnings.warn(
                    f"{name} was given without an affine, so it lies where the identity puts it, but {other}, of the "
                    f"same shape, has an affine: what moves {other} will not take {name} along. If they are on one "
                    f"grid, give {name} the affine of {other}: replace(affine=subject[{other!r}].affine), or "
                    f"CopyAffine({other!r}) first.",
                    stacklevel=5,
                )
                return
