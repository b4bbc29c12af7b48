"""The compiled programs of a patch queue: what is drawn for a volume's patches, and the patches themselves."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Int

from medjax import geometry, keys
from medjax.patches.samplers import Sampler
from medjax.subject import KEY, LOCATION, Subject
from medjax.transforms import box, buckets, host
from medjax.transforms.moves import follow
from medjax.transforms.place import Place, Turn, is_spatial, place_of
from medjax.transforms.program import Parts, carries, flatten, flatten_params
from medjax.transforms.run import draw
from medjax.transforms.transform import Transform
from medjax.typing import Index, Key, Params, Shape3


@partial(jax.jit, static_argnames="parts")
def compiled_ends(
    t: Transform, outline: Subject, ready: Subject, many: Key, *, parts: Parts
) -> tuple[box.Ends, dict[int, Turn]]:
    """Where the box part begins and ends, and what the spatial steps before its end draw, for each key."""

    def one(key: Key) -> tuple[box.Ends, dict[int, Turn]]:
        steps, params = flatten(t), flatten_params(t, draw(t, key, outline))
        places = {name: place_of(image, jnp) for name, image in ready.images.items()}
        told = [
            i
            for run in (*parts.whole, *parts.box)
            for i in run
            if is_spatial(steps[i].transform) or (steps[i].transform.copies and not steps[i].certain)
        ]
        return box.ends(steps, parts, params, places), {i: params[i] for i in told}

    return jax.vmap(one)(many)


def patch_of(
    t: Transform, outline: Subject, ready: Subject, around: Any, key: Key, tables: Any = None, *, sampler: Sampler,
    parts: Parts, margin: Shape3,
) -> dict[str, Any]:  # fmt: skip
    """The patch of one key, traced: its volume has gone through the head."""
    steps, params = flatten(t), flatten_params(t, draw(t, key, outline))

    def place(subject: Subject, places: dict[str, Place]) -> Int[Array, "3"]:
        found = tables_of(sampler, subject, around) if tables is None else tables
        return located(sampler, keys.for_name(key, "patch"), found, subject, places)

    patch = box.boxed(steps, parts, params, ready, place, sampler.patch_size, margin)
    times = {i: params[i] for i, step in enumerate(steps) if carries(step.transform)}
    return {"patch": host.bare(patch), LOCATION: patch[LOCATION], KEY: keys.words_of(key), "times": times}


def tables_of(sampler: Sampler, subject: Subject, around: tuple[Index, Index]) -> Params:
    """The sampler's tables of some voxels, or of all where none of these can be drawn."""
    if sampler.anywhere:
        return {"seen": {}}
    near = sampler.prepare(subject, *around)
    return jax.lax.cond(near["some"], lambda: near, lambda: tables_of_all(sampler, subject))


def tables_of_all(sampler: Sampler, subject: Subject) -> Params:
    """The sampler's tables of all real voxels."""
    image = subject[sampler.looked_up(subject)]
    extent = jnp.asarray(image.size, jnp.int32)
    return sampler.prepare(subject, jnp.zeros_like(extent), extent)


def located(sampler: Sampler, key: Key, tables: Any, subject: Subject, places: dict[str, Place]) -> Int[Array, "3"]:
    """Where a patch begins in the transformed volume: a centre of the volume before it, followed through the run."""
    name = sampler.looked_up(subject)
    place = places[name]
    size = jnp.asarray(sampler.patch_size, jnp.int32)
    room = jnp.maximum(place.grid.shape - size, 0)
    anywhere = random.randint(keys.for_name(key, "start"), (3,), 0, room + 1, jnp.int32)
    if sampler.anywhere:
        return anywhere
    found = sampler.centre(key, tables, subject)
    affine = jnp.asarray(subject[name].affine).astype(place.grid.affine.dtype)
    point = follow(place.moves, geometry.transform_point(affine, found.astype(affine.dtype))[None])[0]
    index = geometry.transform_point(geometry.inverse(place.grid.affine), point)
    return jnp.where(tables["some"], jnp.clip(jnp.round(index).astype(jnp.int32) - size // 2, 0, room), anywhere)


@partial(jax.jit, static_argnames=("count", "sampler", "parts", "margin"))
def empty_pool(t, outline, ready, around, key, *, count, sampler, parts, margin):
    """Room for patches; compiled, so that the next queue need not trace how one is made."""
    shape = jax.eval_shape(
        partial(patch_of, sampler=sampler, parts=parts, margin=margin), t, outline, ready, around, key
    )
    for name, image in shape["patch"].images.items():  # traced, so nothing is there yet
        what = f"what max_length lets wait of {name!r}"
        buckets.check_memory((count, *image.shape), image.dtype.itemsize, what)
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), shape)


@partial(jax.jit, static_argnames=("sampler", "parts", "margin"), donate_argnames="pool")
def compiled_patches(t, outline, ready, around, many, wanted, slots, pool, *, sampler, parts, margin):
    """The pool with the wanted patches of a volume in their slots, and what the sampler has to verify."""
    # What runs on the volume for each patch may change its labels: then only whether there are any is known before.
    shared = None if parts.whole else tables_of(sampler, ready, around)
    seen = (tables_of_all(sampler, ready) if shared is None else shared)["seen"]
    make = partial(patch_of, sampler=sampler, parts=parts, margin=margin)

    def one(i: Array, pool: Any) -> Any:
        def put(pool: Any) -> Any:
            patch = make(t, outline, ready, around, many[i], shared)
            check_same(patch["patch"], pool["patch"])
            return jax.tree.map(
                lambda all_, leaf: jax.lax.dynamic_update_index_in_dim(all_, leaf.astype(all_.dtype), slots[i], 0),
                pool, patch,
            )  # fmt: skip

        return jax.lax.cond(wanted[i], put, lambda pool: pool, pool)

    return jax.lax.fori_loop(0, len(many), one, pool), seen


def check_same(patch: Subject, pool: Subject) -> None:
    """Raise a ValueError for a patch unlike those that wait."""
    if list(patch) != list(pool):
        raise ValueError(f"its patches have {', '.join(patch)}, those of a volume before {', '.join(pool)}")
    for name, image in patch.images.items():
        ours, theirs = (image.dtype, image.shape), (pool[name].dtype, pool[name].shape[1:])
        if ours != theirs:
            raise ValueError(
                f"patches of {name} are {ours[0]} {ours[1]}, those of a volume before {theirs[0]} {theirs[1]}: bring "
                "all subjects to one type and number of channels"
            )
