"""Patches on a regular grid, and the volume put together of what a network makes of them."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from medjax.errors import one_of
from medjax.image import Image, LabelMap, ScalarImage
from medjax.patches.samplers import bare, common_shape, compiled_cut, patch_shape, placed
from medjax.subject import Subject
from medjax.transforms.spatial.pad import Pad
from medjax.typing import Shape3

OVERLAP_MODES = ("crop", "average", "hann", "gaussian")
SIGMA = 0.125
"""Standard deviation of the Gaussian window, of the patch's size (MONAI's and nnU-Net's)."""


def overlap_of(value: Any, size: Shape3) -> Shape3:
    """Three whole numbers of at least 0, each less than the patch."""
    values = np.broadcast_to(np.asarray(value), 3)
    if not np.all(values == np.round(values)) or np.any(values < 0) or np.any(values >= size):
        raise ValueError(f"patch_overlap must be whole numbers of at least 0 and less than {size}, got {value!r}")
    i, j, k = (int(n) for n in values)
    return i, j, k


def starts_along(length: int, size: int, overlap: int) -> np.ndarray:
    """First voxels of the patches along an axis: a step apart, the last one pulled back into the volume."""
    starts = list(range(0, length - size + 1, size - overlap))
    return np.asarray(starts if starts[-1] == length - size else [*starts, length - size], np.int32)


class GridSampler:
    """All patches of a subject on a regular grid: a sequence of subjects.

    patch_size: one size or three.  patch_overlap: voxels that neighbours share, at least.  padding_mode: pads the
    subject by half the overlap on each side first (see `Pad`); locations are then those of the padded volume.
    The last patch along an axis is pulled back into the volume, and so overlaps more (TorchIO 1.2.1).

    `.locations` (N, 6) int32 holds the first voxel of each patch and the one after its last, the last axis fastest.
    Raises ValueError for images of different shapes, a patch larger than they are, and an overlap that is not smaller.
    """

    def __init__(self, subject: Subject, patch_size: Any, patch_overlap: Any = 0, padding_mode: Any = None):
        self.patch_size = patch_shape(patch_size)
        self.patch_overlap = overlap_of(patch_overlap, self.patch_size)
        self.padding = tuple(n // 2 for n in self.patch_overlap) if padding_mode is not None else (0, 0, 0)
        self.original = subject.load()
        self.subject = Pad(self.padding, padding_mode)(self.original) if any(self.padding) else self.original
        self.shape = common_shape(self.subject, self.patch_size)
        self.starts = tuple(map(starts_along, self.shape, self.patch_size, self.patch_overlap))
        corners = np.stack(np.meshgrid(*self.starts, indexing="ij"), -1).reshape(-1, 3)
        self.locations = np.concatenate([corners, corners + np.asarray(self.patch_size, np.int32)], 1)

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, index: int) -> Subject:
        start = jnp.asarray(self.locations[index][:3])
        return placed(self.subject, compiled_cut(bare(self.subject), start, self.patch_size))

    def __iter__(self) -> Iterator[Subject]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"GridSampler({len(self)} patches of {self.patch_size}, overlap {self.patch_overlap}, in {self.shape})"


def window_along(size: int, overlap: int, starts: np.ndarray, length: int, mode: str, padded: bool) -> np.ndarray:
    """The weights of every patch along an axis, (number of starts, size), of sum 1 at each voxel of the volume.

    Since patches lie on a grid and windows are products, so are the sums that they are divided by.
    """
    place = np.arange(size)
    if mode == "crop":
        return owned(size, overlap, starts, length, padded)
    if mode == "average":
        window = np.ones(size)
    elif mode == "hann":
        window = (1 - np.cos(2 * np.pi * (place + 1) / (size + 1))) / 2
    else:
        window = np.exp(-0.5 * ((place - (size - 1) / 2) / (SIGMA * size)) ** 2)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += window
    return np.stack([window / total[start : start + size] for start in starts]).astype(np.float32)


def owned(size: int, overlap: int, starts: np.ndarray, length: int, padded: bool) -> np.ndarray:
    """1 where a patch is the last that shows a voxel with half the overlap cut off, but at the volume's ends."""
    half = overlap // 2
    owner = np.full(length, -1)
    for number, start in enumerate(starts):
        low = start + (half if padded or start > 0 else 0)
        high = start + size - (half if padded or start + size < length else 0)
        owner[low:high] = number
    return np.stack([owner[start : start + size] == n for n, start in enumerate(starts)]).astype(np.float32)


class GridAggregator:
    """Puts a volume together of patches: `state = init(channels)`, `state = add(state, batch, locations)`, `finish`.

    sampler: the `GridSampler` the patches come from.  overlap_mode: what counts where patches overlap: 'crop', the
    middle of each (half the overlap cut off, but at the volume's ends); 'average'; 'hann', windows of Hann; 'gaussian',
    of a standard deviation of an eighth of the patch. Weights are of sum 1 everywhere, so the order does not matter.

    `init` and `add` are pure, and run under jit and in a scan; the state lies on the device. Sums are float32 (or
    int32 for whole numbers, which 'crop' keeps).
    """

    def __init__(self, sampler: GridSampler, overlap_mode: str = "crop"):
        self.sampler = sampler
        self.overlap_mode = one_of("overlap_mode", overlap_mode, OVERLAP_MODES)
        padded = any(sampler.padding)
        self.windows = tuple(
            window_along(size, overlap, starts, length, overlap_mode, padded)
            for size, overlap, starts, length in zip(
                sampler.patch_size, sampler.patch_overlap, sampler.starts, sampler.shape, strict=True
            )
        )

    def init(self, channels: int, dtype: Any = jnp.float32) -> dict[str, Array]:
        """An empty state for patches (B, channels, *patch_size). Raises ValueError for whole numbers to be averaged."""
        whole = jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_
        if whole and self.overlap_mode != "crop":
            raise ValueError(f"overlap_mode={self.overlap_mode!r} averages: give dtype=jnp.float32, or take 'crop'")
        kept = jnp.dtype(dtype) if whole else jnp.dtype(jnp.float32)
        return {
            "volume": jnp.zeros((channels, *self.sampler.shape), kept),
            "seen": jnp.zeros([len(starts) for starts in self.sampler.starts], jnp.int32),
        }

    def add(self, state: dict[str, Array], batch: Any, locations: Any) -> dict[str, Array]:
        """The state with a batch of patches (B, C, *patch_size) at locations (B, 6) added.

        Raises ValueError for patches of another shape, and outside of jit for locations that are not the sampler's.
        """
        batch = jnp.asarray(batch)
        channels = state["volume"].shape[0]
        if batch.ndim != 5 or batch.shape[1:] != (channels, *self.sampler.patch_size) or len(locations) != len(batch):
            raise ValueError(
                f"the aggregator takes a batch (B, {channels}, {', '.join(map(str, self.sampler.patch_size))}) and "
                f"locations (B, 6), got {batch.shape} and {np.shape(locations)}"
            )
        if isinstance(locations, np.ndarray) or not isinstance(locations, jax.core.Tracer):
            self.check(np.asarray(locations))
        return added(state, batch, jnp.asarray(locations, jnp.int32), self.windows, self.sampler.starts)

    def check(self, locations: np.ndarray) -> None:
        """Raise a ValueError for a location that is not of the sampler."""
        known = set(map(tuple, self.sampler.locations.tolist()))
        for location in locations.tolist():
            if tuple(location) not in known:
                raise ValueError(f"location {location} is none of {self.sampler}: the batch comes from elsewhere")

    def finish(self, state: dict[str, Array]) -> Image:
        """The volume with its affine, on the grid of the subject; a LabelMap if it is of whole numbers.

        Raises ValueError for patches that are missing, or were added twice.
        """
        seen = np.asarray(state["seen"])
        if (seen == 0).any():
            raise ValueError(f"{(seen == 0).sum()} of {seen.size} patches are missing")
        if (seen > 1).any():
            raise ValueError(f"{(seen > 1).sum()} of {seen.size} patches were added more than once")
        inner = tuple(slice(n, m - n) for n, m in zip(self.sampler.padding, self.sampler.shape, strict=True))
        data = state["volume"][(slice(None), *inner)]
        kind = ScalarImage if jnp.issubdtype(data.dtype, jnp.inexact) else LabelMap
        affine = np.asarray(next(iter(self.sampler.original.images.values())).affine, np.float64)
        return kind(data, affine)


def added(state: Any, batch: Array, locations: Int[Array, "B 6"], windows: Any, starts: Any) -> dict[str, Array]:
    """Patches added to the state one after the other, weighted by their windows."""
    volume = state["volume"]
    size = batch.shape[2:]
    number = jnp.stack(
        [jnp.searchsorted(jnp.asarray(s), locations[:, a]).astype(jnp.int32) for a, s in enumerate(starts)], 1
    )

    def one(b: Array, volume: Array) -> Array:
        start = (jnp.int32(0), *locations[b, :3])
        there = jax.lax.dynamic_slice(volume, start, (volume.shape[0], *size))
        i, j, k = (jnp.asarray(w)[number[b, a]] for a, w in enumerate(windows))
        weight: Float[Array, "1 I J K"] = (i[:, None, None] * j[None, :, None] * k[None, None, :])[None]
        if jnp.issubdtype(volume.dtype, jnp.inexact):
            there = there + weight * batch[b].astype(volume.dtype)
        else:
            there = jnp.where(weight > 0, batch[b].astype(volume.dtype), there)
        return jax.lax.dynamic_update_slice(volume, there, start)

    seen = state["seen"].at[tuple(number.T)].add(1)
    return {"volume": jax.lax.fori_loop(0, len(batch), one, volume), "seen": seen}
