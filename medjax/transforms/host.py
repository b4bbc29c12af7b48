"""Around a compiled program: checks before it, and after it what no program can carry.

Metadata goes around, affines are planned again in float64, and a shape that depends on values is computed in a bucket
and then cut.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.errors import about
from medjax.geometry import Grid, check_overlap, check_same_grid
from medjax.subject import Subject
from medjax.transforms import buckets, fuse
from medjax.transforms.fuse import Known, Place, Step
from medjax.transforms.spatial.sampling import check_label_fill, is_label
from medjax.transforms.steps import (
    Group,
    draw,
    execute,
    flatten,
    flatten_params,
    groups_of,
    is_traced,
    keep,
    locate,
    seen_on_host,
)
from medjax.typing import Key, Params, Shape3


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
    pending: list[tuple[Group, tuple[tuple[str, Known], ...]]] = []
    places = start_all(subject)

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
        verify([steps[i] for i in used], seen)
        record.update((used[i], found) for i, found in seen.items())
        return settled(result, places)

    for group in groups_of(steps):
        first = steps[group[0]].transform
        places = fuse.copied(places, first)
        if first.kind != "spatial":
            check_beside(first, places)
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
        if all(place.cost == fuse.NOTHING_DONE for place in ends.values()):
            continue
        if group[0] == 0 and ends_fixed(steps, group, host, places):
            subject = bucketed(subject)
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
        metadata = metadata | {new: metadata[old] for old, new in t.copies}
        if t.retimes and params[index]["on"]:
            drawn = params[index]["draw"]
            metadata |= {name: t.retime(metadata[name], drawn[name]) for name in drawn}
    return metadata


def start_all(subject: Subject) -> dict[str, Place]:
    """The places of images on the host, before a run."""
    return {name: fuse.start(image, np) for name, image in subject.images.items()}


def planned(
    steps: Sequence[Step], group: Group, params: dict[int, Params], places: dict[str, Place]
) -> dict[str, Place]:
    """The places after a run, in float64, every step checked."""
    for index in group:
        t, located = steps[index].transform, params[index].get("located", {})
        grids = {n: p.grid for n, p in places.items() if fuse.included(t, n, p.label) or n == t.beside}
        if steps[index].certain or params[index]["on"]:
            t.check(grids, located)
        places = fuse.advance(places, steps[index], params[index], located)
    return places


def check_beside(t: Any, places: dict[str, Place]) -> None:
    """Raise a ValueError for an image that is not on the grid of the one that is read beside it."""
    for name, place in places.items() if t.beside in places else ():
        if fuse.included(t, name, place.label):
            check_same_grid({name: place.grid, t.beside: places[t.beside].grid}, f"{type(t).__name__}({t.beside!r})")


def places_after(
    steps: Sequence[Step], groups: Sequence[Group], params: dict[int, Params], subject: Subject
) -> dict[str, Place]:
    """The places of images after some groups, every step checked, without reading a voxel."""
    places = start_all(subject)
    for group in groups:
        first = steps[group[0]].transform
        places = fuse.copied(places, first)
        if first.kind == "spatial":
            places = {name: concrete(place) for name, place in planned(steps, group, params, places).items()}
        else:
            check_beside(first, places)
    return places


def concrete(place: Place) -> Place:
    """The place at which the next run begins: all of the grid shows, nothing has moved yet."""
    i, j, k = (int(n) for n in place.grid.shape)
    if min(i, j, k) < 1:
        raise ValueError(f"the result has no voxels: shape {(i, j, k)}; the target spacing is larger than the image")
    grid = place.grid._replace(fixed=(i, j, k))
    return Place(grid, np.zeros(3, np.int32), np.asarray(grid.shape, np.int32), place.label)


def known_shape(place: Place) -> Known:
    """The shape in which a result is computed, and whether all of it is real.

    Exact where the types say it, and after indexing alone; else of a bucket, so that few programs serve many shapes.
    """
    i, j, k = (int(n) for n in concrete(place).grid.shape)
    exact = place.grid.fixed is not None or place.cost <= fuse.INDEXED
    return ((i, j, k), True) if exact else (buckets.rounded((i, j, k)), False)


def ends_fixed(steps: Sequence[Step], group: Group, params: dict[int, Params], places: dict[str, Place]) -> bool:
    """Whether the shapes after a run are the same for images of any shape."""
    places = {name: place._replace(grid=place.grid._replace(fixed=None)) for name, place in places.items()}
    for index in group:
        places = fuse.advance(places, steps[index], params[index], params[index].get("located", {}))
    return all(place.grid.fixed for place in places.values())


def settled(subject: Subject, places: dict[str, Place]) -> Subject:
    """The images with their float64 affines, cut to their true shapes."""
    images = {}
    for name, image in subject.images.items():
        grid = places[name].grid
        data, shape = image.data, tuple(int(n) for n in grid.shape)
        if image.spatial_shape != shape:
            data = data[(slice(None), *map(slice, shape))]
        images[name] = type(image).of(data, np.asarray(grid.affine))
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
    record = jax.device_get(record)
    places: list[dict[str, Place]] = []
    kept: list[dict[str, Any]] = []
    for i in range(size):
        params, found = jax.tree.map(lambda leaf, i=i: leaf[i], (record["params"], record["record"]))
        here = start_all(element_grids(subject, i))
        with about(who[i] if who else f"element {i}"):
            verify(steps, found)
            for group in groups:
                first = steps[group[0]].transform
                here = fuse.copied(here, first)
                if first.kind != "spatial":
                    check_beside(first, here)
                else:
                    located = {i: {**params[i], "located": found[i]} for i in group if i in found}
                    here = planned(steps, group, {**params, **located}, here)
        places.append(here)
        known = {name: image.metadata for name, image in subject.images.items()}
        known = {name: found[i] if isinstance(found, tuple) else found for name, found in known.items()}
        kept.append(metadata_after(steps, known, params))
    images = {}
    for name, image in result.images.items():
        affine = np.stack([np.asarray(here[name].grid.affine) for here in places])
        images[name] = image.replace(affine=affine, metadata=tuple(metadata[name] for metadata in kept))
    return Subject({**{n: i for n, i in subject.items() if n not in images}, **result.annotations, **images})


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
                t.for_image(name).verify(measured[0], name)


def check_subject(t: Any, subject: Subject) -> None:
    """Raise a ValueError for what a subject lacks, before anything is computed."""
    moved = dict.fromkeys(list(subject.images)[:1])
    for step in flatten(t):
        inner = step.transform
        made = {new for _, new in inner.copies}
        for name in (*(inner.include or ()), *(inner.exclude or ()), *(old for old, _ in inner.copies)):
            if name not in subject.images and name not in made:
                known = ", ".join(subject.images)
                raise ValueError(f"{type(inner).__name__} names image {name!r}; the subject has {known}")
        subject = keep(subject, inner)
        inner.check_subject(subject)
        if inner.kind == "spatial":
            asked = inner.sampling()
            for name, image in subject.images.items():
                if fuse.included(inner, name, is_label(image)):
                    moved[name] = None
                    check_label_fill(asked.label_fill, name, image)
                    check_label_fill(asked.label_pad, name, image)
    images = {name: subject[name] for name in moved}
    if len(images) > 1 and not is_traced([image.affine for image in images.values()]):
        check_overlap({n: Grid(i.affine, i.spatial_shape if i.extent is None else i.extent) for n, i in images.items()})
