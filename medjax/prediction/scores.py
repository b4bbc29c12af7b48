"""The scores of a network over a volume, plane by plane, each as soon as no window is to come that touches it."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from medjax.errors import shown as text_of
from medjax.patches.grid import GridSampler, Windows, added, divided
from medjax.patches.inference import aggregator_of, batches_of, padded
from medjax.patches.samplers import bare, cut_all
from medjax.patches.windows import add_on_host, compiled_move, compiled_network, move_on_host, shown, taken_apart
from medjax.subject import Subject
from medjax.typing import Shape3

Network: TypeAlias = Callable[[Subject], Array]
"""From a batch of patches to scores (B, C, *out), already compiled."""
Activation: TypeAlias = Callable[[Array], Array]
"""A pure function of scores (..., C, I, J, K)."""


class Windowing(NamedTuple):
    """How a volume is covered: the size of windows, the voxels that they share, how many run at a time.

    memory: of how many bytes scores may be put together on the device, or None.  progress: whether a bar is shown.
    """

    size: Shape3
    overlap: Shape3
    batch_size: int
    memory: int | None
    progress: bool


class Planes(NamedTuple):
    """Planes of scores that are done.

    buffer: (C, P, J, K) float32, in which plane 1 is plane `first` of the volume, and plane 0 the one before it; of
    NumPy where it lies in the host's memory.  done: how many are.  factor: by what the scores are coarser than the
    volume.  shape: of the scores that cover it.
    """

    buffer: Float[Array | np.ndarray, "C P J K"]
    first: int
    done: int
    factor: Shape3
    shape: Shape3


def planes_of(network: Network, subject: Subject, windowing: Windowing, whole: bool) -> Iterator[Planes]:
    """The planes of a volume as windows finish; what is given is written over where the next is asked for.

    whole: all planes at once, at the end.
    Raises ValueError for scores that are not (B, C, I, J, K).
    """
    size, overlap, batch_size, memory, progress = windowing
    shape = next(iter(subject.images.values())).spatial_shape
    grid = GridSampler(padded(bare(subject), size), size, overlap)
    batches, depth = batches_of(grid, batch_size)
    if whole:
        depth = grid.shape[0]
        done = np.where(np.arange(len(batches.starts)) == len(batches.starts) - 1, depth, 0)
        batches = batches._replace(origin=np.zeros_like(batches.origin), done=done)
    buffer: Any = None
    factor, windows = (1, 1, 1), None
    for n in shown(range(len(batches.starts)), progress):
        scores = network(compiled_cut(grid.on_device, batches.starts[n], size))
        if buffer is None:
            aggregator = aggregator_of("", scores, grid, "gaussian")
            factor, windows = aggregator.factor, aggregator.windows
            held = (scores.shape[1], depth // factor[0] + 1, *aggregator.shape[1:])
            buffer = (jnp if memory is None or 4 * math.prod(held) <= memory else np).zeros(held, np.float32)
        first = batches.starts[n] // np.asarray(factor, np.int32)
        begin, done = (int(values[n]) // factor[0] for values in (batches.origin, batches.done))
        buffer = with_windows(buffer, scores, first, windows, batches.real[n], begin - 1)
        if done:
            yield Planes(buffer, begin, done, factor, divided(shape, factor))
            buffer = without_planes(buffer, done)


def with_windows(buffer: Any, scores: Array, first: np.ndarray, windows: Windows, real: np.ndarray, origin: int) -> Any:
    """The planes, of which the first is plane `origin` of the volume, with a batch of windows added."""
    if not isinstance(buffer, np.ndarray):
        return compiled_add(buffer, scores, first, windows, real, np.int32(origin))
    add_on_host(buffer, np.asarray(scores), first[: np.count_nonzero(real)], windows, False, origin)
    return buffer


def without_planes(buffer: Any, done: int) -> Any:
    """The planes after the first `done` moved to the front."""
    if not isinstance(buffer, np.ndarray):
        return compiled_move(buffer, done)
    move_on_host(buffer, done)
    return buffer


@partial(jax.jit, static_argnames="size")
def compiled_cut(subject: Subject, starts: np.ndarray, size: Shape3) -> Subject:
    """A batch of the patches that begin at `starts`."""
    return cut_all(subject, starts, size)


@partial(jax.jit, donate_argnums=0)
def compiled_add(
    buffer: Array, scores: Array, first: np.ndarray, windows: Windows, real: np.ndarray, origin: np.int32
) -> Array:
    """A batch of windows added to the planes, of which the first is plane `origin` of the volume."""
    return added(buffer, scores, first, windows, False, real, origin)


def compiled(function: Any, patches: Subject) -> Array:
    """A network of JAX's over a batch of patches, compiled once for their shape, whatever the volume's is."""
    count = next(iter(patches.images.values())).shape[0]
    taken, arrays = taken_apart(function, patches, count)
    return compiled_network(taken, arrays, patches)


def averaged(
    apply_fn: Any, models: Any, flips: np.ndarray | None, activation: Activation, patches: Subject
) -> Float[Array, "B C I J K"]:
    """The mean, over models and flips, of what `activation` makes of a network's scores; traced.

    models: a tree of arrays that hold all models along their first axis, or None.  flips: (N, 3) which axes to mirror,
    or None.  The network is in the program once, however many they are.
    """

    def of_flip(model: Any, mirrored: Array | None) -> Array:
        given = patches if mirrored is None else flipped(patches, mirrored)
        found = apply_fn(given) if models is None else apply_fn(model, given)
        if isinstance(found, dict):
            raise ValueError(f"apply_fn must give one array of scores, got {', '.join(map(repr, found))}")
        found = activation(found.astype(jnp.float32))
        return found if mirrored is None else mirror(found, mirrored)

    def of_model(model: Any) -> Array:
        return of_flip(model, None) if flips is None else mean(partial(of_flip, model), jnp.asarray(flips))

    return of_model(None) if models is None else mean(of_model, models)


def mean(function: Callable[[Any], Array], many: Any) -> Array:
    """The mean of a function over the first axis of a tree, one after the other."""
    count = len(jax.tree.leaves(many)[0])
    out = jax.eval_shape(function, jax.tree.map(lambda leaf: leaf[0], many))
    total = jax.lax.scan(lambda total, one: (total + function(one), None), jnp.zeros(out.shape, out.dtype), many)[0]
    return total / count


def flipped(patches: Subject, mirrored: Array) -> Subject:
    """Patches whose voxels are mirrored within them, along the axes for which `mirrored` (3,) is true."""
    return patches.replace(**{n: i.replace(data=mirror(i.data, mirrored)) for n, i in patches.images.items()})


def mirror(values: Array, mirrored: Array) -> Array:
    """The last three axes of an array mirrored, where `mirrored` (3,) is true."""
    for axis in (-3, -2, -1):
        values = jnp.where(mirrored[axis], jnp.flip(values, axis), values)
    return values


def flips_of(axes: Sequence[int]) -> np.ndarray | None:
    """All combinations of mirrored axes, (2^n, 3), or None if there are none."""
    return np.array(list(product(*((False, True) if a in axes else (False,) for a in range(3))))) if axes else None


def stacked(models: Sequence[Any] | None) -> Any:
    """Models along a new first axis of their arrays; raises a ValueError for models that are not alike."""
    if models is None:
        return None
    models = list(models)
    trees = [jax.tree.structure(model) for model in models]
    shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(model)] for model in models]
    if not models or any(tree != trees[0] for tree in trees) or any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"models must be one or more trees of arrays of one structure and of the same shapes, got {text_of(trees)}"
        )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
