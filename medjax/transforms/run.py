"""What a compiled program does: everything random is drawn, then run after run is executed; pure and traced.

The order and the runs come from `program.py`, where images come to from `place.py`.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, TypeAlias

import jax
import jax.numpy as jnp

from medjax import keys
from medjax.image import Image, ScalarImage
from medjax.ops import passes
from medjax.subject import Subject
from medjax.transforms.moves import annotated, directions_left
from medjax.transforms.place import (
    Known,
    Measured,
    Place,
    Record,
    Step,
    Turn,
    advance,
    included,
    is_spatial,
    place_of,
    with_copies,
)
from medjax.transforms.program import Places, Run, both, is_certain, is_group, reads, walk
from medjax.transforms.read import copy_of, read
from medjax.typing import Coin, Key, Params, wider, working

if TYPE_CHECKING:  # transforms are called through what is built on this
    from medjax.transforms.transform import Transform, VoxelTransform

Element = tuple[jax.Array, int]
Shapes = Sequence[tuple[tuple[str, Known], ...]]
Plan: TypeAlias = tuple[Places, Places]
"""The places of images before and after a run."""
Applied: TypeAlias = tuple[jax.Array, tuple[Params, ...]]
"""The voxels after a step, and what it measured."""
Apply: TypeAlias = Callable[[jax.Array], Applied]


def draw(t: "Transform", key: Key | None, subject: Subject, element: Element | None = None) -> Params:
    """All that is random in a pipeline, for a subject, from the grids alone; traced.

    element: which element of a batch the subject is, and of how many.
    """
    # Their affines in float32, as they are without x64: what hangs on a grid must not hang on that.
    images = {n: image.replace(affine=jnp.asarray(image.affine, jnp.float32)) for n, image in subject.images.items()}
    places = {name: place_of(image, jnp) for name, image in images.items()}
    return draw_tree(t, key, places, True, element)[0]


def draw_tree(
    t: "Transform", key: Key | None, places: dict[str, Place], above: Coin, element: Element | None
) -> tuple[Params, dict[str, Place]]:
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
    places = with_copies(places, step, on)
    reference = next(iter(places.values())).grid
    if is_spatial(t):
        drawn = t.draw(key, reference)
        return {"on": coin, "draw": drawn}, advance(places, step, Turn(on, drawn))
    drawn = {}
    for name in places:
        if included(t, name, places[name].label):
            shared = key is None or getattr(t, "shared", False)
            grid = reference if shared else places[name].grid
            drawn[name] = t.draw(key if shared else keys.for_image(key, name), grid)
            grid = places[name].grid
            grid = grid._replace(channels=step.voxels.channels(grid.channels))
            places = {**places, name: places[name]._replace(grid=grid)}
    return {"on": coin, "draw": drawn}, places


def execute(
    steps: Sequence[Step],
    runs: Sequence[Run],
    params: Sequence[Turn],
    subject: Subject,
    shapes: Shapes = (),
    plans: Sequence[Plan] = (),
) -> tuple[Subject, Record]:
    """Run runs of steps, traced; gives what was measured and located as well, by the number of the step.

    shapes: for each run, the shapes that the host knows its images will have (see `read`).  plans: of the first runs.
    """
    record: Record = {}
    images, given = subject.images, set(subject.images)
    shapes, later = shapes or [()] * len(runs), [None] * (len(runs) - len(plans))
    for run, known, plan in zip(runs, shapes, [*plans, *later], strict=True):
        subject = keep(subject, steps[run[0]], params[run[0]].on)
        if reads(steps, run):
            plan, found = (plan, seen_by(run, params)) if plan else locate(steps, run, params, subject)
            subject = run_spatial(steps, run, plan, subject, dict(known))
            record |= found
        else:
            subject, measured = run_single(steps[run[0]], params[run[0]], subject, given)
            record |= {run[0]: measured} if steps[run[0]].voxels.measures else {}
        given = {name for name in given if subject[name] is images[name]}
    return subject, record


def run_spatial(steps: Sequence[Step], run: Run, plan: Plan, subject: Subject, shapes: dict[str, Known]) -> Subject:
    """A fused run: each image is read once."""
    begin, end = plan
    chosen = [steps[index] for index in run]
    images = {}
    for name, image in subject.images.items():
        mine = [step for step in chosen if included(step.transform, name, begin[name].label)]
        if mine:
            images[name] = read(image, mine, begin[name], end[name], shapes.get(name))
    moves = end[next(iter(subject.images))].moves
    return subject.replace(**images, **annotated(subject, moves))


def locate(steps: Sequence[Step], run: Run, params: Sequence[Turn], subject: Subject) -> tuple[Plan, dict[int, Params]]:
    """The places before and after a run, and what its steps had to see of the subject to come there."""
    begin = places = {name: place_of(image, jnp) for name, image in subject.images.items()}
    located = seen_by(run, params)
    for index in run:
        t, turn = steps[index].spatial, params[index]
        if t.locates and turn.located is None:
            located[index] = t.locate(subject, turn.draw, places)
            turn = turn._replace(located=located[index])
        places = advance(places, steps[index], turn)
    return (begin, places), located


def seen_by(run: Run, params: Sequence[Turn]) -> dict[int, Params]:
    """What steps of a run are known to have seen of voxels."""
    found = {index: params[index].located for index in run}
    return {index: located for index, located in found.items() if located is not None}


def foreseen(steps: Sequence[Step], runs: Sequence[Run], params: Sequence[Turn], subject: Subject) -> list[Plan]:
    """The plans of the first runs, up to one that hangs on more than grids; traced."""

    def by_grids(run: Run) -> bool:
        return not any(
            t.copies or (is_spatial(t) and t.locates and params[i].located is None)
            for i, t in ((i, steps[i].transform) for i in run)
        )

    places = {name: place_of(image, jnp) for name, image in subject.images.items()}
    return [(begin, end) for _, begin, end in walk(steps, list(takewhile(by_grids, runs)), params, places)]


def run_single(step: Step, turn: Turn, subject: Subject, given: Collection[str] = ()) -> tuple[Subject, Measured]:
    """An intensity or label step on the images it is for, each behind the coin.

    given: the images that are still arguments of the program, which is not to write into them.
    """
    t = step.voxels
    if t.rechannels and not step.certain:
        name = type(t).__name__
        raise ValueError(f"{name} changes the number of channels, so it cannot hang on a coin or a choice")
    images, record = {}, {}
    for name, drawn in turn.draw.items():
        image, own = subject[name], t.for_image(name)

        @jax.checkpoint
        def apply(data: jax.Array, image: Image = image, drawn: Params = drawn, own: "VoxelTransform" = own) -> Applied:
            of = image.replace(data=data)
            measured = (own.measure(of, subject),) if own.measures else ()
            return own.apply_to(of, drawn, *measured).data, measured

        data = jnp.asarray(image.data)
        if not image.is_label:
            data = data.astype(working(data.dtype))
        if step.certain:
            data, record[name] = apply(data)
        else:
            nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(apply, data)[1])
            in_place = name not in given

            def change(data: jax.Array, apply: Apply = apply, in_place: bool = in_place) -> Applied:
                new, measured = apply(data)
                # Ended by a pointwise step, a branch writes into what it is given, and the other need not copy it.
                return jnp.where(turn.on, new, data) if in_place and not t.pointwise else new, measured

            def leave(data: jax.Array, nothing: tuple = nothing, in_place: bool = in_place) -> Applied:
                return data if in_place else copy_of(data, turn.on), nothing

            choose = passes.either if t.pointwise or t.light else jax.lax.cond
            data, record[name] = choose(turn.on, change, leave, data)
        images[name] = image.replace(data=data)
    return subject.replace(**images, **directions_left(subject, t, turn.draw)), Measured(turn.on, record)


def keep(subject: Subject, step: Step, on: Coin) -> Subject:
    """The subject with copies of the images that a step is asked to keep, or to make others of.

    A name that a member before it has given is given anew only if the step is on.
    """
    t, images = step.transform, {}
    for old, new in t.copies:
        image = copied(subject[old], t)
        images[new] = either(on, image, subject[new], new) if new in subject.images and not step.certain else image
    return subject.replace(**images) if images else subject


def copied(image: Image, t: "Transform") -> Image:
    """The copy of an image that a transform keeps, or makes another of."""
    return ScalarImage.of(*image.held(), metadata=image.metadata) if t.synthesises else image


def either(on: Coin, image: Image, other: Image, name: str) -> Image:
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
