"""A network over a whole volume, window by window."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.arguments import choice, flag, function_of, maybe, sizes
from medjax.arguments import whole as whole_number
from medjax.errors import about, one_of
from medjax.image import Image
from medjax.patches.grid import OVERLAP_MODES, GridAggregator, GridSampler, image_of, whole
from medjax.patches.samplers import as_subject, bare
from medjax.patches.windows import Batches, Output, Reduce, State, batch_of, on_the_device, on_the_host, taken_apart
from medjax.subject import Subject
from medjax.transforms.spatial.pad import Pad
from medjax.typing import Shape3, Voxels


def sliding_window(
    apply_fn: Callable[[Subject], Any],
    subject: Subject | Image | Voxels,
    patch_size: Any,
    patch_overlap: Any = 0,
    batch_size: int = 1,
    overlap_mode: str = "gaussian",
    *,
    reduce: Reduce | Mapping[str, Reduce] | None = None,
    on_host: bool = False,
    progress: bool = False,
) -> Any:
    """What a network makes of a subject, window by window, on the grid of the subject's first image.

    subject: or an image, or an array (C, I, J, K), which apply_fn then gets as `batch.image`.
    apply_fn: a pure function of a batch of patches, a Subject (B, C, *patch_size), to an array (B, K, *out), or a
    dictionary of such. `out` is the patch's size, or that divided by a whole number on each axis. An array that is
    evenly coarse if its channels are last, as flax gives it, and not if they are first, is refused. Arrays of a pytree
    that can be called, as `jax.tree_util.Partial(network, weights)`, may change without compiling again.
    patch_overlap: voxels that neighbours share, at least.  overlap_mode: as in `GridAggregator`.  batch_size: windows
    in one call; several devices share them, if their number divides it and no array is bound to one of them.
    reduce: a pure function of planes of an output, (K, n, J, K'), voxel by voxel, as
    `lambda scores: scores.argmax(0, keepdims=True)`; for a dictionary of outputs one of functions by name. It is
    applied as soon as no window is to come, so that as many planes are kept as a batch of windows touches.
    on_host: outputs are put together, and patches cut, in the host's memory.  progress: show a bar (needs tqdm).

    Compiled once for all windows, and again only for another shape or function. A subject that is smaller than a patch
    is padded with 0 at the high end, and the result cut. Memory is that of the outputs, float32, and of one batch.
    Gives a ScalarImage (K, ...), a LabelMap if it is reduced to whole numbers, or a dictionary of them.
    Raises ValueError for outputs of another shape, and for images on different grids.
    """
    function_of("apply_fn", apply_fn)
    choice(*OVERLAP_MODES)("overlap_mode", overlap_mode)
    batch_size = whole_number(low=1)("batch_size", batch_size)
    for name, each in reduce.items() if isinstance(reduce, Mapping) else [("", reduce)]:
        maybe(function_of)(f"reduce {name}".rstrip(), each)
    on_host, progress = flag("on_host", on_host), flag("progress", progress)
    original = whole(as_subject(subject))
    grid = GridSampler(padded(bare(original), sizes("patch_size", patch_size)), patch_size, patch_overlap)
    batches, depth = batches_of(grid, batch_size)
    function, arrays = taken_apart(apply_fn, bare(original), batches.starts.shape[1])
    shapes = batch_of.eval_shape(function, arrays, bare(grid.subject), batches.starts[0], size=grid.patch_size)
    several = isinstance(shapes, dict)
    found = shapes if several else {"": shapes}
    reducers = reduce if isinstance(reduce, Mapping) else {} if reduce is None else {"": reduce}
    for name in reducers:
        one_of("reduce", name, tuple(found))

    joined = {name: aggregator_of(name, out, grid, overlap_mode) for name, out in found.items()}
    outputs = tuple(Output(n, a.factor, reducers.get(n), overlap_mode == "crop") for n, a in joined.items())
    windows = {name: a.windows for name, a in joined.items()}
    states = {o.name: state_of(o, found[o.name].shape[1], joined[o.name].shape, depth, on_host) for o in outputs}
    run = on_the_host if on_host else on_the_device
    states = run(function, arrays, grid, outputs, states, windows, batches, progress)

    like = next(iter(original.images.values()))
    results = {o.name: image_of(jnp.asarray(states[o.name][-1]), like, o.factor) for o in outputs}
    return results if several else results[""]


def padded(subject: Subject, size: Shape3) -> Subject:
    """The subject, padded with 0 at the high end to at least a patch."""
    shape = next(iter(subject.images.values())).spatial_shape if subject.images else size
    i, j, k = (max(n - m, 0) for n, m in zip(size, shape, strict=True))
    return Pad((0, i, 0, j, 0, k))(subject) if i or j or k else subject


def batches_of(grid: GridSampler, size: int) -> tuple[Batches, int]:
    """All windows in batches, the last filled up with the last window, and the most planes that a batch touches.

    A batch is no larger than all windows are, or the next multiple of the devices.
    """
    devices = jax.local_device_count()
    size = min(size, -(-len(grid) // devices) * devices)
    count = -(-len(grid) // size)
    number = np.arange(count * size).reshape(count, size)
    starts = grid.locations[np.minimum(number, len(grid) - 1), :3]
    origin = starts[:, 0, 0]
    done = np.diff(origin, append=np.int32(grid.shape[0]))
    return Batches(starts, number < len(grid), origin, done), int(np.max(starts[:, -1, 0] - origin)) + grid.patch_size[
        0
    ]


def aggregator_of(name: str, out: Any, grid: GridSampler, overlap_mode: str) -> GridAggregator:
    """How an output is put together; raises a ValueError if it cannot be."""
    what = f"output {name!r} of apply_fn" if name else "the output of apply_fn"
    if len(out.shape) != 5:
        raise ValueError(f"{what} must be (B, K, I, J, K'), got {out.shape}")
    factors = coarser(out.shape[2:], grid.patch_size)
    # (B, 12, 12, 12, 3) of windows of 24 is 3 channels coarser by 2, and not 12 coarser by 2, 2 and 8.
    swapped = coarser(out.shape[1:4], grid.patch_size)
    if is_even(swapped) and not is_even(factors):
        raise ValueError(
            f"{what} must be (B, K, I, J, K'), K its channels, got {out.shape} for patch_size={grid.patch_size}: "
            "if its channels are last, return jnp.moveaxis(out, -1, 1)"
        )
    if factors is None:
        raise ValueError(f"{what} has patches of {out.shape[2:]}, which do not divide patch_size={grid.patch_size}")
    with about(what):
        return GridAggregator(grid, overlap_mode, factors)


def coarser(shape: Shape3, window: Shape3) -> Shape3 | None:
    """By what whole numbers a shape is coarser than a window, or None if it is not."""
    if any(n < 1 or m % n for n, m in zip(shape, window, strict=True)):
        return None
    i, j, k = (m // n for n, m in zip(shape, window, strict=True))
    return i, j, k


def is_even(factors: Shape3 | None) -> bool:
    """Whether an output is as coarse along one axis as along the others."""
    return factors is not None and len(set(factors)) == 1


def state_of(output: Output, channels: int, shape: Shape3, depth: int, on_host: bool) -> State:
    """Zeros: the volume, or if it is reduced the planes that windows are at, and what it is reduced to."""
    zeros = np.zeros if on_host else jnp.zeros
    if output.reduce is None:
        return (zeros((channels, *shape), np.float32),)
    plane = jax.ShapeDtypeStruct((channels, 1, *shape[1:]), np.float32)
    reduced = jax.eval_shape(output.reduce, plane)
    if reduced.shape[1:] != plane.shape[1:]:
        raise ValueError(f"reduce must make {plane.shape} to (K, {str(plane.shape[1:])[1:]}, got {reduced.shape}")
    buffer = zeros((channels, depth // output.factor[0], *shape[1:]), np.float32)
    return buffer, zeros((len(reduced), *shape), reduced.dtype)
