"""A pipeline as steps: flattened, all that is random drawn first, then run group by group; pure and traced.

A group is a fused spatial run (see `fuse.py`) or one other step.
"""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from medjax import keys
from medjax.image import Image, ScalarImage
from medjax.subject import Subject
from medjax.transforms import fuse
from medjax.transforms.fuse import Known, Place, Step
from medjax.transforms.spatial.sampling import is_label
from medjax.typing import Key, Params, Tracer, wider, working

Group = tuple[int, ...]
Element = tuple[jax.Array, int]
Shapes = Sequence[tuple[tuple[str, Known], ...]]


def is_certain(p: Any) -> bool:
    """Whether a p is 1 by structure, so that it is known while tracing too; what a leaf holds is never asked.

    A p that was given as the number 1 is kept as a Python float and is no leaf (see `transform.chance`).
    """
    return type(p) is float and p == 1.0


def is_group(t: Any) -> bool:
    """Whether a transform stands for its members."""
    return t.kind == "group"


def flatten(t: Any, certain: bool = True) -> list[Step]:
    """The members of a pipeline, nests opened, in order."""
    certain = certain and is_certain(t.p)
    if not is_group(t):
        return [Step(t, certain)]
    return [step for member in t.members for step in flatten(member, certain and not t.chooses)]


def flatten_params(t: Any, params: Params, on: Any = True) -> list[dict[str, Any]]:
    """The params of each step, with the coins of the nests above it joined into its own."""
    if not is_group(t):
        return [{**params, "on": both(on, params["on"])}]
    if not is_certain(t.p):
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


def seen_on_host(t: Any) -> bool:
    """Whether the host must see what was drawn for a step: to plan its grids again, or to carry metadata along."""
    return t.kind == "spatial" or carries(t)


def carries(t: Any) -> bool:
    """Whether the metadata of images hang on what is drawn for a step."""
    return t.retimes or bool(t.copies)


def is_random(t: Any) -> bool:
    """Whether a key is needed: something is drawn, or a coin is thrown; the same inside of a trace as outside."""
    inner = any(is_random(member) for member in t.members) if is_group(t) else False
    return not is_certain(t.p) or inner or t.random


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is known only while tracing; reads no file."""
    found = jax.tree.leaves(trees, is_leaf=lambda x: isinstance(x, Image))
    return any(isinstance(leaf, Tracer) for x in found for leaf in (x.held() if isinstance(x, Image) else (x,)))


def draw(t: Any, key: Key | None, subject: Subject, element: Element | None = None) -> Params:
    """All that is random in a pipeline, for a subject, from the grids alone; traced.

    element: which element of a batch the subject is, and of how many.
    """
    # Their affines in float32, as they are without x64: what hangs on a grid must not hang on that.
    images = {n: image.replace(affine=jnp.asarray(image.affine, jnp.float32)) for n, image in subject.images.items()}
    places = {name: fuse.start(image, jnp) for name, image in images.items()}
    return draw_tree(t, key, places, True, element)[0]


def draw_tree(t: Any, key: Key | None, places: dict[str, Place], above: Any, element: Element | None):
    """(params, places after it) of a step or of a nest of them; above: whether what it stands in is on."""
    certain = above is True and is_certain(t.p)
    coin = jnp.asarray(True) if certain or key is None else keys.coin(key, t.p)
    on = above if certain else both(above, coin)
    if is_group(t):
        choice = t.choose(key, element)
        members = []
        for i, member in enumerate(t.members):
            inner = None if key is None else keys.for_step(key, i)
            params, places = draw_tree(member, inner, places, both(on, t.taken(choice, i)), element)
            members.append(params)
        return {"on": coin, "draw": choice, "members": tuple(members)}, places
    step = Step(t, certain)
    places = fuse.copied(places, step, {"on": on})
    reference = next(iter(places.values())).grid
    if t.kind == "spatial":
        params = {"on": coin, "draw": t.draw(key, reference)}
        return params, fuse.advance(places, step, {**params, "on": on}, {})
    drawn = {}
    for name in places:
        if fuse.included(t, name, places[name].label):
            shared = key is None or getattr(t, "shared", False)
            grid = reference if shared else places[name].grid
            drawn[name] = t.draw(key if shared else keys.for_image(key, name), grid)
            grid = places[name].grid
            places = {**places, name: places[name]._replace(grid=grid._replace(channels=t.channels(grid.channels)))}
    return {"on": coin, "draw": drawn}, places


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
    images, given = subject.images, set(subject.images)
    for group, known in zip(groups, shapes or [()] * len(groups), strict=True):
        first = steps[group[0]].transform
        subject = keep(subject, steps[group[0]], params[group[0]]["on"])
        if first.kind == "spatial":
            subject, found = run_spatial(steps, group, params, subject, dict(known))
            record |= found
        else:
            subject, record[group[0]] = run_single(steps[group[0]], params[group[0]], subject, given)
        given = {name for name in given if subject[name] is images[name]}
    return subject, record


def run_spatial(
    steps: Sequence[Step], group: Group, params: Sequence[Params], subject: Subject, shapes: dict[str, Known]
):
    """A fused run: plan for every image, read each once."""
    begin = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
    end, located = locate(steps, group, params, subject)
    chosen = [steps[index] for index in group]
    images = {}
    for name, image in subject.images.items():
        mine = [step for step in chosen if fuse.included(step.transform, name, begin[name].label)]
        if mine:
            images[name] = fuse.read(image, mine, begin[name], end[name], shapes.get(name))
    moves = next(iter(end.values())).moves
    return subject.replace(**images, **fuse.annotated(subject, moves)), located


def locate(steps: Sequence[Step], group: Group, params: Sequence[Params], subject: Subject):
    """The places after a run, and what its steps had to see of the subject to come there."""
    places = {name: fuse.start(image, jnp) for name, image in subject.images.items()}
    located: dict[int, Any] = {}
    for index in group:
        t = steps[index].transform
        found = params[index].get("located")
        if t.locates and found is None:
            found = t.locate(subject, params[index]["draw"], places)
        if found is not None:
            located[index] = found
        places = fuse.advance(places, steps[index], params[index], found or {})
    return places, located


def run_single(
    step: Step, params: Params, subject: Subject, given: Collection[str] = ()
) -> tuple[Subject, dict[str, Any]]:
    """An intensity or label step on the images it is for, each behind the coin.

    given: the images that are still arguments of the program, which is not to write into them.
    """
    t = step.transform
    if t.rechannels and not step.certain:
        name = type(t).__name__
        raise ValueError(f"{name} changes the number of channels, so it cannot hang on a coin or a choice")
    images, record = {}, {}
    for name, drawn in params["draw"].items():
        image, own = subject[name], t.for_image(name)

        @jax.checkpoint
        def apply(data: jax.Array, image: Image = image, drawn: Params = drawn, own: Any = own) -> tuple[Any, Any]:
            of = image.replace(data=data)
            measured = (own.measure(of, subject),) if own.measures else ()
            return own.apply_to(of, drawn, *measured).data, measured

        data = jnp.asarray(image.data)
        if not is_label(image):
            data = data.astype(working(data.dtype))
        if step.certain:
            data, record[name] = apply(data)
        else:
            nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(apply, data)[1])
            in_place = name not in given

            def change(data: jax.Array, apply: Any = apply, in_place: bool = in_place) -> tuple[jax.Array, Any]:
                new, measured = apply(data)
                # Ended by a pointwise step, a branch writes into what it is given, and the other need not copy it.
                return jnp.where(params["on"], new, data) if in_place and not t.pointwise else new, measured

            def leave(data: jax.Array, nothing: Any = nothing, in_place: bool = in_place) -> tuple[jax.Array, Any]:
                return data if in_place else fuse.copy_of(data, params["on"]), nothing

            data, record[name] = jax.lax.cond(params["on"], change, leave, data)
        images[name] = image.replace(data=data)
    return subject.replace(**images), {"on": params["on"], "measured": record}


def keep(subject: Subject, step: Step, on: Any) -> Subject:
    """The subject with copies of the images that a step is asked to keep, or to make others of.

    A name that a member before it has given is given anew only if the step is on.
    """
    t, images = step.transform, {}
    for old, new in t.copies:
        image = copied(subject[old], t)
        images[new] = either(on, image, subject[new], new) if new in subject.images and not step.certain else image
    return subject.replace(**images) if images else subject


def copied(image: Image, t: Any) -> Image:
    """The copy of an image that a transform keeps, or makes another of."""
    return ScalarImage.of(*image.held(), metadata=image.metadata) if t.synthesises else image


def either(on: Any, image: Image, other: Image, name: str) -> Image:
    """One image or the other, in the dtype that holds both; raises ValueError unless their shapes are one."""
    if image.shape != other.shape:
        raise ValueError(
            f"keep gives the name {name!r} to images of shape {other.shape} and {image.shape}, of which a coin "
            "chooses: give them names of their own"
        )
    dtype = wider(image.dtype, other.dtype)
    data = jnp.where(on, jnp.asarray(image.data).astype(dtype), jnp.asarray(other.data).astype(dtype))
    affine = jnp.where(on, image.affine, other.affine)
    extent = None if image.extent is None else jnp.where(on, image.extent, other.extent)
    return type(image).of(data, affine, extent)
