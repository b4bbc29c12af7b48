"""The windows of `sliding_window` run through a network, and put together on the device or on the host."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from medjax.geometry import translation
from medjax.patches.grid import GridSampler, Windows, added
from medjax.patches.samplers import cut_all
from medjax.subject import LOCATION, Subject
from medjax.typing import Shape3, Tracer

Reduce: TypeAlias = Callable[[Array], Array]
State: TypeAlias = tuple[Any, ...]
"""The volume of an output; or if it is reduced the planes that windows are at, and what it is reduced to."""


class Function(NamedTuple):
    """A function taken apart: what is fixed when it is compiled, without the arrays that it holds.

    shared: whether the devices of this process share each batch.
    """

    tree: Any
    leaves: tuple[Any, ...]
    shared: bool


class Output(NamedTuple):
    """What a program knows of an output: by what it is coarser, how it is reduced, how its windows are joined."""

    name: str
    factor: Shape3
    reduce: Reduce | None
    crop: bool


class Batches(NamedTuple):
    """For each batch: where its windows begin (N, B, 3), which are counted (N, B), the first plane that any of the
    windows from it on touches (N,), and how many planes are done after it (N,)."""

    starts: np.ndarray
    real: np.ndarray
    origin: np.ndarray
    done: np.ndarray


def taken_apart(function: Any, subject: Subject, size: int) -> tuple[Function, list[Any]]:
    """What is fixed of a function, and the arrays that it holds.

    Batches are shared where the size divides, and no array is bound to some of the devices.
    """
    count = jax.local_device_count()
    leaves = [leaf for leaf in jax.tree.leaves((function, subject)) if isinstance(leaf, jax.Array)]
    # Where an array is traced lies the program in which it is.
    free = all(
        not isinstance(leaf, Tracer) and (len(leaf.sharding.device_set) == count or not leaf.committed)
        for leaf in leaves
    )
    leaves, tree = jax.tree.flatten(function)
    held = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]
    fixed = tuple(None if array else leaf for leaf, array in zip(leaves, held, strict=True))
    return Function(tree, fixed, free and count > 1 and size % count == 0), [
        leaf if array else None for leaf, array in zip(leaves, held, strict=True)
    ]


def applied(function: Function, arrays: list[Any], patches: Subject) -> Any:
    """The network's output for a batch of patches."""
    if function.shared:
        split = NamedSharding(Mesh(np.array(jax.local_devices()), ("batch",)), PartitionSpec("batch"))
        patches = jax.lax.with_sharding_constraint(patches, split)
    leaves = [leaf if array is None else array for leaf, array in zip(function.leaves, arrays, strict=True)]
    return jax.tree.unflatten(function.tree, leaves)(patches)


@partial(jax.jit, static_argnames=("function", "size"))
def batch_of(function: Function, arrays: list[Any], subject: Subject, starts: Int[Array, "B 3"], size: Shape3) -> Any:
    """The network's output for the patches that begin at `starts`."""
    return applied(function, arrays, cut_all(subject, starts, size))


def on_the_device(
    function: Function, arrays: list[Any], grid: GridSampler, outputs: tuple[Output, ...], states: dict[str, State],
    windows: dict[str, Windows], batches: Batches, progress: bool,
) -> dict[str, State]:  # fmt: skip
    """Run the network over all batches in one program, or in one a batch if progress is shown or planes are reduced."""
    count = len(batches.starts)
    chunk = 1 if progress or any(output.reduce for output in outputs) else count
    for begin in shown(range(0, count, chunk), progress):
        part = Batches(*(values[begin : begin + chunk] for values in batches))
        volumes = {name: state[0] for name, state in states.items()}
        volumes = compiled_batches(function, grid.patch_size, outputs, volumes, arrays, grid.on_device, windows, part)
        states = {o.name: reduced(o, volumes[o.name], states[o.name], part) for o in outputs}
    return states


def shown(steps: range, progress: bool) -> Any:
    """The steps, with a bar if asked."""
    if not progress:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, unit="batch")


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def compiled_batches(function, size, outputs, volumes, arrays, subject, windows, batches):
    """Run the network over batches of windows and add what it gives to the volumes."""

    def step(volumes: dict[str, Array], batch: Batches) -> tuple[dict[str, Array], None]:
        found = named(batch_of(function, arrays, subject, batch.starts, size))
        return {o.name: joined(o, volumes[o.name], found[o.name], windows[o.name], batch) for o in outputs}, None

    return jax.lax.scan(step, volumes, batches)[0]


def named(found: Any) -> dict[str, Array]:
    """Outputs by name."""
    return found if isinstance(found, dict) else {"": found}


def joined(output: Output, volume: Array, found: Array, windows: Windows, batch: Batches) -> Array:
    """The volume of an output, or its planes that windows are at, with a batch of windows added."""
    first = batch.starts // jnp.asarray(output.factor, jnp.int32)[None]
    origin = 0 if output.reduce is None else batch.origin // output.factor[0]
    return added(volume, found, first, windows, output.crop, batch.real, origin)


def reduced(output: Output, volume: Array, state: State, batch: Batches) -> State:
    """The state of an output after one batch, its planes reduced that are done.

    Apart from the batches, in programs of their own: XLA copies a buffer that is read, written and added to in one.
    """
    if output.reduce is None:
        return (volume,)
    origin, done = (int(values[0]) // output.factor[0] for values in (batch.origin, batch.done))
    if not done:
        return volume, state[1]
    result = compiled_reduce(output.reduce, volume, state[1], origin, done)
    return compiled_move(volume, done), result


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def compiled_reduce(reduce: Reduce, buffer: Array, result: Array, origin: Any, done: Any) -> Array:
    """The first `done` planes reduced and written into the result, one after the other."""

    def write(p: Array, result: Array) -> Array:
        plane = reduce(jax.lax.dynamic_slice_in_dim(buffer, p, 1, 1))
        return jax.lax.dynamic_update_slice_in_dim(result, plane, origin + p, 1)

    return jax.lax.fori_loop(0, done, write, result)


@partial(jax.jit, donate_argnums=0)
def compiled_move(buffer: Array, done: Any) -> Array:
    """The planes after the first `done` moved to the front, and zeros behind them; plane by plane, in place."""
    length = buffer.shape[1]

    def move(p: Array, buffer: Array) -> Array:
        plane = jax.lax.dynamic_slice_in_dim(buffer, jnp.minimum(p + done, length - 1), 1, 1)
        return jax.lax.dynamic_update_slice_in_dim(buffer, jnp.where(p + done < length, plane, 0), p, 1)

    return jax.lax.fori_loop(0, length, move, buffer)


def on_the_host(
    function: Function, arrays: list[Any], grid: GridSampler, outputs: tuple[Output, ...], states: dict[str, State],
    windows: dict[str, Windows], batches: Batches, progress: bool,
) -> dict[str, State]:  # fmt: skip
    """Run the network batch by batch; while it is at one, what it gave for the one before is added."""
    subject = jax.device_get(grid.subject)
    before = None
    for number in shown(range(len(batches.starts)), progress):
        batch = Batches(*(values[number] for values in batches))
        found = compiled_network(function, arrays, windows_of(subject, batch.starts, grid.patch_size))
        if before is not None:
            states = joined_on_host(outputs, states, *before, windows)
        before = named(found), batch
    return states if before is None else joined_on_host(outputs, states, *before, windows)


@partial(jax.jit, static_argnums=0)
def compiled_network(function: Function, arrays: list[Any], patches: Subject) -> Any:
    """`applied`, compiled."""
    return applied(function, arrays, patches)


def windows_of(subject: Subject, starts: np.ndarray, size: Shape3) -> Subject:
    """The patches that begin at `starts`, cut on the host, as `cut` does it."""
    items: dict[str, Any] = {}
    for name, image in subject.images.items():
        data = np.stack([image.data[(slice(None), *map(slice, start, start + size))] for start in starts])
        moved = np.stack([np.asarray(image.affine) @ translation(start.astype(np.float64)) for start in starts])
        items[name] = type(image).of(data, moved)
    for name, item in subject.annotations.items():
        items[name] = item.of(np.broadcast_to(item.xyz, (len(starts), *item.xyz.shape)), item.labels)
    return Subject({**items, LOCATION: np.concatenate([starts, starts + np.asarray(size, np.int32)], 1)})


def joined_on_host(
    outputs: tuple[Output, ...], states: dict[str, State], found: dict[str, Array], batch: Batches,
    windows: dict[str, Windows],
) -> dict[str, State]:  # fmt: skip
    """`joined` for every output, in NumPy and in place."""
    for output in outputs:
        volume, factor = states[output.name][0], np.asarray(output.factor, np.int32)
        origin, done = (int(n) // output.factor[0] for n in (batch.origin, batch.done))
        begin = origin if output.reduce is not None else 0
        first = batch.starts[: np.count_nonzero(batch.real)] // factor
        add_on_host(volume, np.asarray(found[output.name]), first, windows[output.name], output.crop, begin)
        if output.reduce is not None and done:
            states[output.name][1][:, origin : origin + done] = output.reduce(jnp.asarray(volume[:, :done]))
            move_on_host(volume, done)
    return states


def add_on_host(
    volume: np.ndarray, found: np.ndarray, first: np.ndarray, windows: Windows, crop: bool, origin: int
) -> None:
    """`medjax.patches.grid.added` in NumPy and in place: of the patches that begin at `first`, (N, 3)."""
    starts, skips, weights = windows
    for start, patch in zip(first, found, strict=False):
        number = [np.searchsorted(s, n) for s, n in zip(starts, start, strict=True)]
        i, j, k = (w[n] for w, n in zip(weights, number, strict=True))
        skip = np.array([s[n] for s, n in zip(skips, number, strict=True)], np.int32)
        weight = (i[:, None, None] * j[None, :, None] * k[None, None, :])[None]
        patch = patch[(slice(None), *map(slice, skip, skip + weight.shape[1:]))]
        start = start + skip - np.array([origin, 0, 0], np.int32)
        there = volume[(slice(None), *map(slice, start, start + weight.shape[1:]))]
        if crop:
            np.copyto(there, patch, where=weight > 0, casting="unsafe")
        else:
            there += weight * patch.astype(volume.dtype)


def move_on_host(buffer: np.ndarray, done: int) -> None:
    """`compiled_move` in place."""
    buffer[:, : buffer.shape[1] - done] = buffer[:, done:].copy()
    buffer[:, buffer.shape[1] - done :] = 0
