"""The elements of a batch: all that is drawn and planned comes at once, then one runs after the other; traced."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, PyTree

from medjax import keys
from medjax.subject import Subject, batch_size
from medjax.transforms import buckets
from medjax.transforms.checks import to_verify
from medjax.transforms.devices import by_devices
from medjax.transforms.host import fixed_shapes
from medjax.transforms.place import Turn, is_spatial
from medjax.transforms.program import flatten, flatten_params, runs_of, seen_on_host
from medjax.transforms.rows import in_rows
from medjax.transforms.run import Plan, draw, execute, foreseen, locate
from medjax.transforms.seen import Packed, Seen, packed
from medjax.typing import Key, Params
from medjax.voxels import ElementVoxels

if TYPE_CHECKING:  # transforms are called through what is built on this
    from medjax.transforms.transform import Transform

GAP = object()
"""Where an array was taken out of a tree."""
Grids: TypeAlias = dict[str, tuple[Array, Array | None]]
"""Affines and extents, by image."""
OfElement: TypeAlias = Callable[[list[Array]], list[Plan]]
Located: TypeAlias = dict[int, Params]
"""What steps have seen of voxels, by their number."""
T = TypeVar("T")


def each(t: "Transform", subject: Subject, key: Key | None, index: Array, size: int) -> tuple[Subject, Seen]:
    """Draw and run for every element of a batch, one after the other; with what is needed to plan again on the host.

    index: which elements of a batch of `size` they are.
    """
    steps = flatten(t)
    runs = runs_of(steps)
    voxels = {name: jnp.asarray(image.data) for name, image in subject.images.items()}
    whole = {name: voxels.pop(name) for name in cropped_first(t, key, subject)}
    bare = subject.replace(**{name: image.replace(data=None) for name, image in subject.images.items()})

    params = draws(t, key, subject, index, size)
    located = located_first(t, key, subject, params)
    plans, plan_of = planned(t, key, subject, params, located)
    rows, of_rows = in_rows((bare, params, located, plans, jnp.arange(len(index), dtype=jnp.int32)))

    @jax.checkpoint
    def element(operands: tuple) -> tuple[Subject, Seen]:
        t, whole, voxels, rows = operands
        subject, params, located, plans, number = of_rows(rows)
        own = voxels | {name: ElementVoxels(data, number) for name, data in whole.items()}
        subject = subject.replace(**{name: subject[name].replace(data=data) for name, data in own.items()})
        flat = turns_of(t, params, located)
        result, record = execute(flatten(t), runs, flat, subject, plans=plan_of(plans))
        turns = {i: flat[i] for i, step in enumerate(steps) if seen_on_host(step.transform)}
        asked = {i: found for i, found in record.items() if is_spatial(steps[i].transform)}
        return result, Seen(asked | to_verify(steps, record), turns)

    result, seen = jax.lax.map(lambda operands: element((t, whole, *operands)), (voxels, rows))
    for name, image in result.images.items():  # traced, so nothing is computed yet
        buckets.check_count(image.data.shape[-3:], f"the result {name!r}")
        buckets.check_memory(image.data.shape, image.data.dtype.itemsize, f"the batch of results {name!r}")
    return result, seen


def draws(t: "Transform", key: Key | None, subject: Subject, index: Array, size: int) -> Params:
    """`draw` for every element of a batch at once: on a GPU a few kernels instead of as many for each element."""
    grids, outline = outlined(subject)

    def one(key: Key | None, grids: Grids, index: Array) -> Params:
        return draw(t, key, outline(grids), (index, size))

    return at_once(one, key, key, grids, index)


def located_first(t: "Transform", key: Key | None, subject: Subject, params: Params) -> Located:
    """What the first run of a pipeline must see of voxels, of every element at once: they are those that came in."""
    steps = flatten(t)
    run = next(iter(runs_of(steps)), ())
    if not any(is_spatial(inner) and inner.locates and not inner.copies for inner in (steps[i].transform for i in run)):
        return {}

    def one(subject: Subject, params: Params) -> Located:
        return locate(steps, run, flatten_params(t, params), subject)[1]

    return at_once(one, key, subject, params)


def turns_of(t: "Transform", params: Params, located: Located) -> list[Turn]:
    """The turns of an element's steps, with what those of the first run have seen."""
    flat = flatten_params(t, params)
    return [turn._replace(located=located[i]) if i in located else turn for i, turn in enumerate(flat)]


def at_once(function: Callable[..., T], key: Key | None, *operands: Any) -> T:
    """A function of elements for all of a batch, or, where that drew for all what a key draws, one by one."""
    if keys.alone_under_vmap(key):
        return jax.vmap(function)(*operands)
    return jax.lax.map(lambda operands: function(*operands), operands)


def planned(
    t: "Transform", key: Key | None, subject: Subject, params: Params, located: Located
) -> tuple[list[Array], OfElement]:
    """The plans that hang on grids alone, of every element of a batch at once, and the way to those of one.

    They are given as what is an array of them; the rest is the same for all elements.
    """
    grids, outline = outlined(subject)
    steps = flatten(t)
    fixed: list[PyTree] = []

    def one(grids: Grids, params: Params, located: Located) -> list[Array]:
        plans = foreseen(steps, runs_of(steps), turns_of(t, params, located), outline(grids))
        arrays, rest = parted(plans)
        fixed.append(rest)
        return arrays

    arrays = at_once(one, key, grids, params, located)
    return arrays, lambda own: joined(own, fixed[-1])


def parted(plans: list[Plan]) -> tuple[list[Array], PyTree]:
    """The arrays of plans, and what they are without them."""
    leaves, tree = jax.tree.flatten(plans)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    return arrays, tree.unflatten([GAP if isinstance(leaf, jax.Array) else leaf for leaf in leaves])


def joined(arrays: list[Array], rest: PyTree) -> list[Plan]:
    """`parted` taken back."""
    own = iter(arrays)
    return jax.tree.map(lambda leaf: next(own) if leaf is GAP else leaf, rest)


def outlined(subject: Subject) -> tuple[Grids, Callable[[Grids], Subject]]:
    """Affines and extents of a batch, by image, and the way from those of an element to a subject without voxels."""
    shapes = {n: jax.ShapeDtypeStruct(image.shape[1:], image.dtype) for n, image in subject.images.items()}
    grids = {n: (image.affine, image.extent) for n, image in subject.images.items()}
    # In the order of the subject, whose first image is the reference: JAX sorts what is in a dictionary.
    return grids, lambda own: Subject({n: type(image).of(shapes[n], *own[n]) for n, image in subject.images.items()})


def cropped_first(t: "Transform", key: Key | None, subject: Subject) -> list[str]:
    """The images of a batch of which the first run keeps a part alone, of fixed shape: they are read where they lie.

    A loop copies each element that it takes out of a batch. Other images are taken out: the gradient of what is read
    in place is as large as the batch, for each element.
    """
    one = None if key is None else key[0]
    shapes = fixed_shapes(t, one, subject)
    return [n for n, shape in shapes.items() if math.prod(shape) < math.prod(subject[n].spatial_shape)]


def every(
    t: "Transform",
    subject: Subject,
    key: Key | None,
    sharding: NamedSharding | None = None,
    first: Array | int = 0,
    whole: int | None = None,
) -> tuple[Subject, Seen]:
    """`each` for all of a batch; one that is split over devices stays so, every device running its own elements.

    first, whole: where its elements begin in a larger batch that it is a part of, and the size of that.
    """
    own = batch_size(subject)
    index, size = first + jnp.arange(own, dtype=jnp.int32), whole or own

    def run(t: "Transform", own: tuple[Subject, Key | None, Array]) -> tuple[Subject, Seen]:
        subject, key, index = own
        return each(t, subject, key, index, size)

    return by_devices(run, t, (subject, key, index), sharding)


@partial(jax.jit, static_argnames=("sharding", "whole"))
def compiled_each(
    t: "Transform",
    subject: Subject,
    key: Key | None,
    sharding: NamedSharding | None,
    first: Array | int = 0,
    whole: int | None = None,
) -> tuple[Subject, Packed]:
    """`every`, compiled; one program for all parts of a batch."""
    result, seen = every(t, subject, key, sharding, first if whole else 0, whole)
    return result, packed(seen, batch_size(subject))
