"""What happens when a transform is called: draw, run, replay, on one subject or on a batch.

A pipeline is flattened into steps (`flatten`), all that is random is drawn first (`draw_tree`), and the steps are run
group by group (`execute`), each group a fused spatial run or one other step. Traced, that is all. Called outside of a
trace, it is compiled, checked, and what a compiled function cannot carry is carried around it: metadata, float64
affines (planned again on the host) and shapes that depend on values (computed in a bucket, then cut).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from medjax import keys
from medjax.errors import about, needs_key
from medjax.geometry import Grid, check_overlap
from medjax.subject import Image, LabelMap, ScalarImage, Subject, batch_size
from medjax.transforms import buckets, fuse
from medjax.transforms.fuse import Place, Step
from medjax.transforms.gate import looped
from medjax.transforms.spatial.sampling import check_label_fill, is_label
from medjax.typing import Key, Params, Shape3, working

Group = tuple[int, ...]
Known = tuple[Shape3, bool]
"""A shape that the host worked out for an array, and whether all of it is real."""
Shapes = Sequence[tuple[tuple[str, Known], ...]]


# -- the public calls


def call(t: Any, x: Any, key: Any, labels: Sequence[str]) -> Any:
    """Transform one subject, image, array or dict of arrays."""
    subject, restore = as_subject(x, labels)
    key = key_for(t, key, keys.as_key)
    check_subject(t, subject)
    if is_traced(t, subject, key):
        return restore(looped(one, t, subject, key))
    return restore(on_host(t, subject, compiled_draw(t, key, outline(subject))))


def batch(t: Any, x: Any, key: Any, labels: Sequence[str]) -> Any:
    """Transform a batch, an element after the other in one program: cost follows p, and memory is that of one."""
    subject, restore = as_subject(x, labels, leading=1)
    size = batch_size(subject)
    key = key_for(t, key, partial(keys.as_keys, size=size))
    check_subject(t, subject)
    if is_traced(t, subject, key):
        return restore(each(t, subject, key)[0])
    result, record = compiled_each(t, subject, key, batch_sharding(subject))
    return restore(after_batch(t, subject, result, record, size))


def sample(t: Any, key: Any, x: Any) -> Params:
    """All that is drawn for a subject."""
    subject, _ = as_subject(x, ())
    key = key_for(t, key, keys.as_key)
    if is_traced(t, subject, key):
        return draw(t, key, subject)
    return compiled_draw(t, key, outline(subject))


def replay(t: Any, x: Any, params: Params) -> Any:
    """What a call with these params does."""
    subject, restore = as_subject(x, ())
    check_subject(t, subject)
    if is_traced(t, subject, params):
        steps = flatten(t)
        return restore(execute(steps, groups_of(steps), flatten_params(t, params), subject)[0])
    return restore(on_host(t, subject, params))


# -- a pipeline as steps


def flatten(t: Any, certain: bool = True) -> list[Step]:
    """The members of a pipeline, nests opened, in order."""
    certain = certain and type(t.p) is float and t.p == 1.0
    if t.kind != "group":
        return [Step(t, certain)]
    return [step for member in t.members for step in flatten(member, certain and not t.chooses)]


def flatten_params(t: Any, params: Params, on: Any = True) -> list[dict[str, Any]]:
    """The params of each step, with the coins of the nests above it joined into its own."""
    if t.kind != "group":
        return [{**params, "on": both(on, params["on"])}]
    if t.p != 1.0:
        on = both(on, params["on"])
    members = enumerate(zip(t.members, params["members"], strict=True))
    parts = [flatten_params(m, inner, both(on, t.taken(params["draw"], i))) for i, (m, inner) in members]
    return [entry for part in parts for entry in part]


def both(one: Any, other: Any) -> Any:
    """Logical and, without an operation where one is known to be true."""
    return other if one is True else one if other is True else one & other


def groups_of(steps: Sequence[Step]) -> tuple[Group, ...]:
    """The fused runs and single steps, as indices."""
    return tuple(tuple(group) for group in fuse.runs(steps))


def is_random(t: Any) -> bool:
    """Whether a key is needed: something is drawn, or a coin is thrown."""
    uncertain = isinstance(t.p, jax.core.Tracer) or float(t.p) != 1.0
    inner = any(is_random(member) for member in t.members) if t.kind == "group" else False
    return uncertain or inner or t.random


def key_for(t: Any, key: Any, check: Callable[[Any], Key]) -> Key | None:
    """The checked key, or None if none is given and none is needed."""
    if key is None:
        return needs_key(type(t).__name__) if is_random(t) else None
    return check(key)


# -- drawing


def draw(t: Any, key: Key | None, subject: Subject) -> Params:
    """All that is random in a pipeline, for a subject, from the grids alone; traced."""
    places = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
    return draw_tree(t, key, places, True)[0]


def draw_tree(t: Any, key: Key | None, places: dict[str, Place], certain: bool):
    """(params, places after it) of a step or of a nest of them."""
    certain = certain and type(t.p) is float and t.p == 1.0
    on = jnp.asarray(True) if certain or key is None else keys.coin(key, t.p)
    if t.kind == "group":
        choice = t.choose(key)
        members = []
        for i, member in enumerate(t.members):
            inner = None if key is None else keys.for_step(key, i)
            params, places = draw_tree(member, inner, places, certain and not t.chooses)
            members.append(params)
        return {"on": on, "draw": choice, "members": tuple(members)}, places
    places = places | {new: places[old] for old, new in t.keep or ()}
    reference = next(iter(places.values())).grid
    if t.kind == "spatial":
        params = {"on": on, "draw": t.draw(key, reference)}
        return params, fuse.advance(places, Step(t, certain), params, {})
    drawn = {}
    for name in places:
        if fuse.included(t, name, places[name].label):
            shared = key is None or getattr(t, "shared", False)
            grid = reference if shared else places[name].grid
            drawn[name] = t.draw(key if shared else keys.for_image(key, name), grid)
    return {"on": on, "draw": drawn}, places


# -- running


def execute(
    steps: Sequence[Step],
    groups: Sequence[Group],
    params: Sequence[Params],
    subject: Subject,
    shapes: Shapes = (),
) -> tuple[Subject, dict[int, Any]]:
    """Run groups of steps, traced; gives what was measured and located as well, by the number of the step.

    shapes: for each group, the shapes that the host knows its images will have (see `read`).
    """
    record: dict[int, Any] = {}
    for group, known in zip(groups, shapes or [()] * len(groups), strict=True):
        first = steps[group[0]].transform
        subject = keep(subject, first)
        if first.kind == "spatial":
            subject, record[group[0]] = run_spatial(steps, group, params, subject, dict(known))
        else:
            subject, record[group[0]] = run_single(first, params[group[0]], subject)
    return subject, record


def run_spatial(steps: Sequence[Step], group: Group, params: Sequence[Params], subject: Subject, shapes: dict[str, Known]):
    """A fused run: plan for every image, read each once."""
    begin = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
    first = steps[group[0]].transform
    located = params[group[0]].get("located")
    if located is None:
        located = first.locate(subject)
    end = begin
    for index in group:
        end = fuse.advance(end, steps[index], params[index], located if index == group[0] else {})
    chosen = [steps[index] for index in group]
    images = {}
    for name, image in subject.images.items():
        mine = [step for step in chosen if fuse.included(step.transform, name, begin[name].label)]
        if mine:
            images[name] = fuse.read(image, mine, begin[name], end[name], shapes.get(name))
    return subject.replace(**images), located


def run_single(t: Any, params: Params, subject: Subject) -> tuple[Subject, dict[str, Any]]:
    """An intensity or label step on the images it is for, each behind the coin."""
    images, record = {}, {}
    for name, drawn in params["draw"].items():
        image = subject[name]

        @jax.checkpoint
        def apply(data: jax.Array, image: Image = image, drawn: Params = drawn) -> tuple[jax.Array, Any]:
            of = image.replace(data=data)
            measured = (t.measure(of, subject),) if t.kind == "intensity" and t.measures else ()
            return t.apply_to(of, drawn, *measured).data, measured

        data = jnp.asarray(image.data)
        if t.kind == "intensity":
            data = data.astype(working(data.dtype))
        nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(apply, data)[1])
        data, record[name] = jax.lax.cond(params["on"], apply, lambda d, zero=nothing: (d, zero), data)
        images[name] = image.replace(data=data)
    return subject.replace(**images), {"on": params["on"], "measured": record}


def keep(subject: Subject, t: Any) -> Subject:
    """The subject with copies of the images that a transform is asked to keep."""
    return subject.replace(**{new: subject[old] for old, new in t.keep}) if t.keep else subject


def one(t: Any, subject: Subject, key: Key | None) -> Subject:
    """Draw and run, traced."""
    steps = flatten(t)
    return execute(steps, groups_of(steps), flatten_params(t, draw(t, key, subject)), subject)[0]


def each(t: Any, subject: Subject, key: Key | None) -> tuple[Subject, Any]:
    """Draw and run for every element of a batch, one after the other; with what is needed to plan again on the host."""
    steps = flatten(t)
    groups = groups_of(steps)

    @jax.checkpoint
    def element(operands: Any) -> Any:
        t, subject, key = operands[0], operands[1], operands[2]
        params = draw(t, key, subject)
        flat = flatten_params(t, params)
        result, record = execute(flatten(t), groups, flat, subject)
        spatial = {i: flat[i] for i, step in enumerate(steps) if step.transform.kind == "spatial"}
        return result, {"record": record, "params": spatial}

    return jax.lax.map(lambda operands: element((t, *operands)), (subject, key))


@partial(jax.jit, static_argnames="sharding")
def compiled_each(t: Any, subject: Subject, key: Key | None, sharding: NamedSharding | None) -> tuple[Subject, Any]:
    """`each`, compiled; a batch that is split over devices stays so, every device running its own elements.

    Left to automatic sharding, the loop over elements would gather the whole batch on every device.
    """
    if sharding is None:
        return each(t, subject, key)
    split = PartitionSpec(sharding.spec[0])
    run = jax.shard_map(each, mesh=sharding.mesh, in_specs=(PartitionSpec(), split, split), out_specs=split, check_vma=False)
    return run(t, subject, key)


def batch_sharding(subject: Subject) -> NamedSharding | None:
    """How the leading axis of a batch is split over devices, if it is."""
    for leaf in jax.tree.leaves(subject):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.num_devices > 1 and sharding.spec and sharding.spec[0]:
            return sharding
    return None


# -- on the host


@jax.jit
def compiled_draw(t: Any, key: Key | None, subject: Subject) -> Params:
    """`draw`, compiled."""
    return draw(t, key, subject)


@partial(jax.jit, static_argnames=("certain", "groups", "shapes"))
def compiled_execute(transforms, params, subject, *, certain, groups, shapes):
    """`execute`, compiled: numbers are arguments, structure is static."""
    steps = [Step(t, c) for t, c in zip(transforms, certain, strict=True)]
    return execute(steps, groups, params, subject, shapes)


@jax.jit
def compiled_locate(t: Any, subject: Subject) -> Params:
    """What a transform must see before it is planned."""
    return t.locate(subject)


def outline(subject: Subject) -> Subject:
    """The grids of a subject, its voxels left out, so that every shape draws by one program."""
    images = {}
    for name, image in subject.images.items():
        shape = image.spatial_shape if image.extent is None else image.extent
        images[name] = type(image).of(np.zeros((image.shape[0], 0, 0, 0)), image.affine, np.asarray(shape, np.int32))
    return Subject(images)


def on_host(t: Any, subject: Subject, params: Params) -> Subject:
    """Run a pipeline outside of a trace."""
    subject = subject.load()
    steps, flat = flatten(t), [dict(p) for p in flatten_params(t, params)]
    host = {i: jax.device_get(flat[i]) for i, step in enumerate(steps) if step.transform.kind == "spatial"}
    metadata = {name: image.metadata for name, image in subject.images.items()}
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
        result, record = compiled_execute(
            tuple(steps[i].transform for i in used), [flat[i] for i in used], bare(subject),
            certain=tuple(steps[i].certain for i in used), groups=renumbered, shapes=shapes,
        )  # fmt: skip
        verify([steps[i] for i in used], record)
        return settled(result, places)

    for group in groups_of(steps):
        first = steps[group[0]].transform
        metadata |= {new: metadata[old] for old, new in first.keep or ()}
        places |= {new: places[old] for old, new in first.keep or ()}
        if first.kind != "spatial":
            pending.append((group, ()))
            continue
        if first.locates:
            subject = flush(subject)
            located = jax.device_get(compiled_locate(first, bare(subject)))
            flat[group[0]]["located"] = host[group[0]]["located"] = located
        ends = planned(steps, group, host, places)
        if all(place.cost == fuse.NOTHING_DONE for place in ends.values()):
            continue
        if group[0] == 0 and ends_fixed(steps, group, host, places):
            subject = bucketed(subject)
        known = {name: known_shape(steps, group, place) for name, place in ends.items()}
        pending.append((group, tuple(known.items())))
        places = {name: concrete(place) for name, place in ends.items()}
        if not all(whole for _, whole in known.values()):
            subject = flush(subject)
    subject = flush(subject)
    return subject.replace(**{n: i.replace(metadata=metadata.get(n, {})) for n, i in subject.images.items()})


def start_all(subject: Subject) -> dict[str, Place]:
    """The places of images on the host, before a run."""
    return {name: fuse.start(image, np) for name, image in subject.images.items()}


def planned(steps: Sequence[Step], group: Group, params: dict[int, Params], places: dict[str, Place]) -> dict[str, Place]:
    """The places after a run, in float64, every step checked."""
    for index in group:
        t, located = steps[index].transform, params[index].get("located", {})
        grids = {name: place.grid for name, place in places.items() if fuse.included(t, name, place.label)}
        if steps[index].certain or params[index]["on"]:
            t.check(grids, located)
        places = fuse.advance(places, steps[index], params[index], located)
    return places


def concrete(place: Place) -> Place:
    """The place at which the next run begins: all of the grid shows, nothing has moved yet."""
    i, j, k = (int(n) for n in place.grid.shape)
    if min(i, j, k) < 1:
        raise ValueError(f"the result has no voxels: shape {(i, j, k)}; the target spacing is larger than the image")
    grid = place.grid._replace(fixed=(i, j, k))
    return Place(grid, np.zeros(3, np.int32), np.asarray(grid.shape, np.int32), place.label)


def known_shape(steps: Sequence[Step], group: Group, place: Place) -> Known:
    """The shape in which a result is computed, and whether all of it is real.

    Exact where the types say it, and after indexing alone; else of a bucket, so that few programs serve many shapes.
    """
    shape = concrete(place).grid.fixed
    return (shape, True) if place.grid.fixed or place.cost <= fuse.INDEXED else (buckets.rounded(shape), False)


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
        data = image.data
        if image.spatial_shape != grid.fixed:
            data = data[(slice(None), *(slice(n) for n in grid.fixed))]
        images[name] = type(image).of(data, np.asarray(grid.affine))
    return subject.replace(**images)


def bucketed(subject: Subject) -> Subject:
    """The subject with its host arrays padded to shapes that few programs serve."""
    images = {}
    for name, image in subject.images.items():
        if isinstance(image.data, np.ndarray) and image.extent is None:
            images[name] = buckets.padded(image, buckets.bucket(image.spatial_shape))
    return subject.replace(**images)


def fixed_images(t: Any, key: Key | None, subject: Subject) -> frozenset[str]:
    """Names of the images that the first run of a pipeline brings to a fixed shape, whatever shape they come in."""
    steps = flatten(t)
    if not steps or steps[0].transform.kind != "spatial":
        return frozenset()
    fixed: set[str] = set()

    def run(key: Key | None, subject: Subject) -> None:
        params = flatten_params(t, draw(t, key, subject))
        places = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
        located = steps[0].transform.locate(subject)
        for index in groups_of(steps)[0]:
            places = fuse.advance(places, steps[index], params[index], located if index == 0 else {})
        fixed.update(name for name, place in places.items() if place.grid.fixed)

    images = {}
    for name, image in subject.images.items():
        voxels = jax.ShapeDtypeStruct(image.shape, image.dtype)
        images[name] = type(image).of(voxels, np.asarray(image.affine), np.asarray(image.spatial_shape, np.int32))
    jax.eval_shape(run, key, Subject(images))
    return frozenset(fixed)


def bare(subject: Subject) -> Subject:
    """The images alone."""
    return Subject(subject.images)


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
    for i in range(size):
        params, found = jax.tree.map(lambda leaf, i=i: leaf[i], (record["params"], record["record"]))
        here = start_all(element_grids(subject, i))
        with about(who[i] if who else f"element {i}"):
            verify(steps, found)
            for group in groups:
                first = steps[group[0]].transform
                here |= {new: here[old] for old, new in first.keep or ()}
                if first.kind == "spatial":
                    located = {group[0]: {**params[group[0]], "located": found[group[0]]}}
                    here = planned(steps, group, {**params, **located}, here)
        places.append(here)
    images = {}
    sources = {name: name for name in result.images}
    for step in steps:
        sources |= {new: sources.get(old, old) for old, new in step.transform.keep or ()}
    for name, image in result.images.items():
        affine = np.stack([np.asarray(here[name].grid.affine) for here in places])
        source = subject[sources[name]]
        images[name] = image.replace(affine=affine, metadata=source.metadata)
    return Subject({**{n: i for n, i in subject.items() if n not in images}, **images})


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
        if t.kind == "intensity" and t.measures:
            found = jax.device_get(found)
            for name, measured in found["measured"].items() if found["on"] else ():
                t.verify(measured[0], name)


# -- what comes in and goes out


def as_subject(x: Any, labels: Sequence[str], leading: int = 0) -> tuple[Subject, Callable[[Subject], Any]]:
    """`x` as a Subject, and the way back to its type."""
    if isinstance(x, Subject):
        if not x.images:
            raise ValueError("the subject has no images")
        return x, lambda s: Subject({**x._items, **s.images})
    if isinstance(x, Image):
        return Subject(image=x), lambda s: s["image"]
    if isinstance(x, dict):
        for name in labels:
            if name not in x:
                raise ValueError(f"labels names {name!r}, which is not among {', '.join(map(repr, x))}")
        images = {n: wrap(a, LabelMap if n in labels else ScalarImage, n, leading) for n, a in x.items()}
        return Subject(images), lambda s: {n: i.data for n, i in s.images.items()}
    if isinstance(x, (np.ndarray, jax.Array)):
        return Subject(image=wrap(x, ScalarImage, "the array", leading)), lambda s: s["image"].data
    raise TypeError(f"a transform takes a Subject, an Image, an array or a dict of arrays, got {type(x).__name__}")


def wrap(array: Any, cls: type[Image], name: str, leading: int) -> Image:
    """A bare array as an image with the identity affine."""
    if not isinstance(array, (np.ndarray, jax.Array)) or array.ndim != 4 + leading:
        axes = "(B, C, I, J, K)" if leading else "(C, I, J, K)"
        raise ValueError(f"{name} must be an array {axes}, got {keys.describe(array)}")
    affine = np.broadcast_to(np.eye(4), (*array.shape[:leading], 4, 4))
    return cls.of(array, affine)


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is known only while tracing."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def check_subject(t: Any, subject: Subject) -> None:
    """Raise a ValueError for what a subject lacks, before anything is computed."""
    moved = dict.fromkeys(list(subject.images)[:1])
    for step in flatten(t):
        inner = step.transform
        for name in (*(inner.include or ()), *(inner.exclude or ()), *(old for old, _ in inner.keep or ())):
            if name not in subject.images:
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
