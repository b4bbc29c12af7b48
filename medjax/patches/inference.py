"""A network over a whole volume, window by window."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from medjax.errors import one_of
from medjax.geometry import Grid
from medjax.image import Image, ScalarImage
from medjax.patches.grid import OVERLAP_MODES, GridSampler, window_along
from medjax.patches.samplers import bare, cut
from medjax.subject import Subject
from medjax.transforms.spatial.crop_or_pad import CropOrPad
from medjax.transforms.spatial.resize import resized
from medjax.typing import Shape3


class Plan(NamedTuple):
    """How windows become one output: its shape, by what each axis is coarser, and the weights along each axis."""

    channels: int
    shape: Shape3
    factor: Shape3
    windows: tuple[np.ndarray, ...]


def sliding_window(
    apply_fn: Callable[[Subject], Any],
    subject: Subject,
    patch_size: Any,
    patch_overlap: Any = 0,
    batch_size: int = 1,
    overlap_mode: str = "gaussian",
    *,
    progress: bool = False,
) -> Any:
    """What a network makes of a subject, window by window, on the grid of the subject's first image.

    apply_fn: a pure function of a batch of patches, a Subject (B, C, *patch_size), to an array (B, K, *out), or a
    dictionary of such. `out` is the patch's size, or that divided by a whole number on each axis.
    patch_overlap: voxels that neighbours share, at least.  overlap_mode: as in `GridAggregator`.  batch_size: windows
    in one call; on several devices they are split, if their number divides it.  progress: show a bar (needs tqdm).

    Compiled once for all windows, and again only for another shape or function. A subject that is smaller than a patch
    is padded with 0, and the result cut. Memory is that of the outputs, float32, and of one batch.
    Gives a ScalarImage (K, ...) or a dictionary of them. Raises ValueError for outputs of another shape.
    """
    one_of("overlap_mode", overlap_mode, OVERLAP_MODES)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    original = subject.load()
    ready = CropOrPad(patch_size, only_pad=True)(bare(original))
    grid = GridSampler(ready, patch_size, patch_overlap)
    count = -(-len(grid) // batch_size)
    filled = np.resize(np.arange(len(grid)), count * batch_size)
    starts = grid.locations[filled, :3].reshape(count, batch_size, 3)
    first = (np.arange(count * batch_size) < len(grid)).reshape(count, batch_size)

    images = bare(grid.subject)
    shapes = jax.eval_shape(partial(batch_of, apply_fn, grid.patch_size), images, jnp.asarray(starts[0]))
    outputs = shapes if isinstance(shapes, dict) else {"": shapes}
    plans = {name: plan(name, out, grid, overlap_mode) for name, out in outputs.items()}
    volumes = {name: jnp.zeros((p.channels, *p.shape), jnp.float32) for name, p in plans.items()}
    factors = tuple((name, p.factor) for name, p in plans.items())
    windows = {name: p.windows for name, p in plans.items()}
    chunk = 1 if progress else count
    for begin in shown(range(0, count, chunk), progress):
        step = slice(begin, begin + chunk)
        volumes = compiled_windows(
            apply_fn, grid.patch_size, factors, volumes, images, windows, starts[step], first[step], grid.starts
        )
    results = {name: on_grid(volumes[name], plans[name], ready, original) for name in plans}
    return results if isinstance(shapes, dict) else results[""]


def shown(steps: range, progress: bool) -> Any:
    """The steps, with a bar if asked."""
    if not progress:
        return steps
    from tqdm.auto import tqdm

    return tqdm(steps, unit="batch")


def batch_of(apply_fn: Callable[[Subject], Any], size: Shape3, subject: Subject, starts: Int[Array, "B 3"]) -> Any:
    """The network's output for the patches that begin at `starts`."""
    patches = jax.lax.map(lambda start: cut(subject, start, size), starts)
    devices = jax.local_devices()
    if len(devices) > 1 and len(starts) % len(devices) == 0:
        split = NamedSharding(Mesh(np.array(devices), ("batch",)), PartitionSpec("batch"))
        patches = jax.lax.with_sharding_constraint(patches, split)
    return apply_fn(patches)


def plan(name: str, out: Any, grid: GridSampler, overlap_mode: str) -> Plan:
    """How an output is put together; raises a ValueError if it cannot be."""
    size, what = grid.patch_size, f"output {name!r}" if name else "the output"
    if len(out.shape) != 5:
        raise ValueError(f"{what} of apply_fn must be (B, K, I, J, K'), got {out.shape}")
    if any(n < 1 or m % n for n, m in zip(out.shape[2:], size, strict=True)):
        raise ValueError(f"{what} has patches of {out.shape[2:]}, which do not divide patch_size={size}")
    i, j, k = (m // n for n, m in zip(out.shape[2:], size, strict=True))
    for axis, f in enumerate((i, j, k)):
        if grid.shape[axis] % f or np.any(grid.starts[axis] % f):
            raise ValueError(
                f"{what} is {f} times coarser along axis {axis}, but windows begin at {grid.starts[axis].tolist()} of "
                f"{grid.shape[axis]} voxels: take multiples of {f} (EnsureShapeMultiple, patch_overlap)"
            )
    windows = tuple(
        window_along(n // f, o // f, s // f, m // f, overlap_mode, False)
        for n, o, s, m, f in zip(size, grid.patch_overlap, grid.starts, grid.shape, (i, j, k), strict=True)
    )
    a, b, c = (m // f for m, f in zip(grid.shape, (i, j, k), strict=True))
    return Plan(out.shape[1], (a, b, c), (i, j, k), windows)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def compiled_windows(apply_fn, size, factors, volumes, subject, windows, starts, first, firsts):
    """Run the network over batches of windows and add what it gives to the volumes."""

    def step(volumes: dict[str, Array], operands: Any) -> tuple[dict[str, Array], None]:
        begin, real = operands
        found = batch_of(apply_fn, size, subject, begin)
        found = found if isinstance(found, dict) else {"": found}
        number = [jnp.searchsorted(jnp.asarray(f), begin[:, axis]) for axis, f in enumerate(firsts)]
        for name, factor in factors:
            scale = jnp.asarray(factor, jnp.int32)
            lines = [jnp.asarray(w)[n] for w, n in zip(windows[name], number, strict=True)]

            def one(b: Array, volume: Array, name: str = name, scale: Array = scale, lines: Any = lines) -> Array:
                at = (jnp.int32(0), *(begin[b] // scale))
                patch = found[name][b].astype(volume.dtype)
                i, j, k = (line[b] for line in lines)
                weight = jnp.where(real[b], i[:, None, None] * j[None, :, None] * k[None, None, :], 0)
                there = jax.lax.dynamic_slice(volume, at, (volume.shape[0], *patch.shape[1:]))
                return jax.lax.dynamic_update_slice(volume, there + weight[None] * patch, at)

            volumes = {**volumes, name: jax.lax.fori_loop(0, len(begin), one, volumes[name])}
        return volumes, None

    return jax.lax.scan(step, volumes, (jnp.asarray(starts), jnp.asarray(first)))[0]


def on_grid(volume: Array, plan: Plan, ready: Subject, original: Subject) -> Image:
    """An output as an image, cut to the subject's own grid where that was padded."""
    padded, own = (next(iter(s.images.values())) for s in (ready, original))
    whole = Grid(np.asarray(padded.affine, np.float64), np.asarray(padded.spatial_shape))
    image = ScalarImage(volume, resized(whole, np.asarray(plan.shape), plan.shape).affine)
    if padded.spatial_shape == own.spatial_shape:
        return image
    return CropOrPad(tuple(-(-n // f) for n, f in zip(own.spatial_shape, plan.factor, strict=True)))(image)
