"""Patches on a regular grid, and the volume put together of what a network makes of them."""

from collections.abc import Iterator
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from medjax.arguments import choice, maybe, sizes, wholes
from medjax.arguments import whole as whole_number
from medjax.errors import shown
from medjax.geometry import homogeneous
from medjax.image import Image, LabelMap, ScalarImage
from medjax.patches.samplers import UNROLL, as_subject, bare, common_shape, compiled_cut, placed
from medjax.subject import Subject
from medjax.transforms.sampling import pad_fill
from medjax.transforms.spatial.pad import Pad
from medjax.typing import Shape3, Tracer, Voxels

OVERLAP_MODES = ("crop", "average", "hann", "gaussian")
SIGMA = 0.125
"""Standard deviation of the Gaussian window, of the patch's size (MONAI's and nnU-Net's)."""


def overlap_of(value: Any, size: Shape3) -> Shape3:
    """One or three whole numbers of at least 0, each less than the patch."""
    i, j, k = wholes(3, low=0)("patch_overlap", value)
    if any(n >= m for n, m in zip((i, j, k), size, strict=True)):
        raise ValueError(f"patch_overlap must be whole numbers of at least 0 and less than {size}, got {value!r}")
    return i, j, k


def starts_along(length: int, size: int, overlap: int) -> np.ndarray:
    """First voxels of the patches along an axis: a step apart, the last one pulled back into the volume."""
    starts = list(range(0, length - size + 1, size - overlap))
    return np.asarray(starts if starts[-1] == length - size else [*starts, length - size], np.int32)


class GridSampler:
    """All patches of a subject on a regular grid: a sequence of subjects.

    subject: or an image, or an array (C, I, J, K), which patches then hold as "image".
    patch_size: one size or three.  patch_overlap: voxels that neighbours share, at least.  padding_mode: pads the
    subject by half the overlap on each side first (see `Pad`); locations are then those of the padded volume.
    The last patch along an axis is pulled back into the volume, and so overlaps more (TorchIO 1.2.1).

    `.locations` (N, 6) int32 holds the first voxel of each patch and the one after its last, the last axis fastest.
    Odd overlaps are allowed. Raises ValueError for images on different grids, as samplers do, or padded by
    `stack(shape=)`, a patch larger than they are, and an overlap that is not smaller than it.
    """

    def __init__(
        self, subject: Subject | Image | Voxels, patch_size: Any, patch_overlap: Any = 0, padding_mode: Any = None
    ):
        self.patch_size = sizes("patch_size", patch_size)
        self.patch_overlap = overlap_of(patch_overlap, self.patch_size)
        padding_mode = maybe(pad_fill)("padding_mode", padding_mode)
        self.padding = tuple(n // 2 for n in self.patch_overlap) if padding_mode is not None else (0, 0, 0)
        self.original = whole(as_subject(subject))
        self.subject = Pad(self.padding, padding_mode)(self.original) if any(self.padding) else self.original
        self.shape = common_shape(self.subject, self.patch_size, type(self).__name__)
        self.starts = tuple(map(starts_along, self.shape, self.patch_size, self.patch_overlap))
        corners = np.stack(np.meshgrid(*self.starts, indexing="ij"), -1).reshape(-1, 3)
        self.locations = np.concatenate([corners, corners + np.asarray(self.patch_size, np.int32)], 1)

    def __len__(self) -> int:
        return len(self.locations)

    def __getitem__(self, index: int) -> Subject:
        start = self.locations[index][:3]
        return placed(self.subject, compiled_cut(self.on_device, start, self.patch_size))

    @cached_property
    def on_device(self) -> Subject:
        """The subject that patches are cut from, put on the device once."""
        return jax.device_put(bare(self.subject))

    def __iter__(self) -> Iterator[Subject]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"GridSampler({len(self)} patches of {self.patch_size}, overlap {self.patch_overlap}, in {self.shape})"


def whole(subject: Subject) -> Subject:
    """The subject; raises a ValueError if an image of it is padded."""
    for name, image in subject.images.items():
        if image.extent is not None:
            raise ValueError(f"{name} is padded to {image.spatial_shape}: medjax.unstack cuts it to its extent")
    return subject


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


def trimmed(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (n, size) without what is 0 at the ends: how many each leaves out at the low end, and (n, M) of them."""
    size = weights.shape[1]
    low = np.argmax(weights > 0, 1)
    high = size - np.argmax(weights[:, ::-1] > 0, 1)
    width = int(np.max(high - low, where=weights.any(1), initial=1))
    skips = np.minimum(low, size - width).astype(np.int32)
    return skips, np.stack([line[skip : skip + width] for line, skip in zip(weights, skips, strict=True)])


class Windows(NamedTuple):
    """Along each axis, for each patch, where it begins, how many of its first voxels do not count, and the weights of
    those that follow: (n,), (n,) and (n, M), three of each."""

    starts: tuple[np.ndarray, ...]
    skips: tuple[np.ndarray, ...]
    weights: tuple[np.ndarray, ...]


class GridAggregator:
    """Puts a volume together of patches: `state = init(channels)`, `state = add(state, batch, locations)`, `finish`.

    sampler: the `GridSampler` the patches come from.  overlap_mode: what counts where patches overlap: 'crop', the
    middle of each (half the overlap cut off, but at the volume's ends); 'average'; 'hann', windows of Hann; 'gaussian',
    of a standard deviation of an eighth of the patch. Weights are of sum 1 everywhere, so the order does not matter.
    downsampling_factor: by what the network's patches are coarser than the sampler's, one number or three.

    The three are pure, and run under jit and in a scan; the state lies on the device. Outside of jit `add` writes into
    the state that it is given, which must not be used again. Sums are float32; 'crop' keeps whole numbers.
    Raises ValueError for a factor that does not divide the patch, the volume and the locations.
    TorchIO 1.2.1 takes the factor in 'crop' mode without overlap alone, and sums in the dtype of the first batch.
    """

    def __init__(self, sampler: GridSampler, overlap_mode: str = "crop", downsampling_factor: Any = 1):
        if not isinstance(sampler, GridSampler):
            raise TypeError(f"sampler must be a GridSampler, got {shown(sampler)}")
        self.sampler = sampler
        self.overlap_mode = choice(*OVERLAP_MODES)("overlap_mode", overlap_mode)
        self.factor = sizes("downsampling_factor", downsampling_factor)
        for axis, f in enumerate(self.factor):
            begin, n, size = sampler.starts[axis], sampler.shape[axis], sampler.patch_size[axis]
            if size % f or n % f or sampler.padding[axis] % f or np.any(begin % f):
                raise ValueError(
                    f"downsampling_factor={self.factor}: patches of {size} voxels at {begin.tolist()} of {n} "
                    f"do not divide by {f} along axis {axis}: take multiples of it (EnsureShapeMultiple, patch_overlap)"
                )
        self.patch_size = divided(sampler.patch_size, self.factor)
        self.shape = divided(sampler.shape, self.factor)
        starts = tuple(begin // f for begin, f in zip(sampler.starts, self.factor, strict=True))
        overlaps = tuple(overlap // f for overlap, f in zip(sampler.patch_overlap, self.factor, strict=True))
        lines = [
            trimmed(window_along(*axis, overlap_mode, any(sampler.padding)))
            for axis in zip(self.patch_size, overlaps, starts, self.shape, strict=True)
        ]
        self.windows = Windows(starts, tuple(skip for skip, _ in lines), tuple(weights for _, weights in lines))
        self.known = set(map(tuple, sampler.locations.tolist()))

    def init(self, channels: int, dtype: Any = None) -> dict[str, Array]:
        """An empty state for patches (B, channels, *patch_size) of float32, or of the whole numbers of `dtype`.

        Raises ValueError for whole numbers that are to be averaged.
        """
        channels = whole_number(low=1)("channels", channels)
        dtype = jnp.dtype(jnp.float32 if dtype is None or jnp.issubdtype(dtype, jnp.inexact) else dtype)
        if dtype != jnp.float32 and self.overlap_mode != "crop":
            raise ValueError(f"overlap_mode={self.overlap_mode!r} averages, not {dtype}: give float32, or take 'crop'")
        return {
            "volume": jnp.zeros((channels, *self.shape), dtype),
            "seen": jnp.zeros([len(starts) for starts in self.windows.starts], jnp.int32),
        }

    def add(self, state: dict[str, Array], batch: Any, locations: Any) -> dict[str, Array]:
        """The state with a batch of patches (B, C, *patch_size) at locations (B, 6) added.

        Raises ValueError for patches of another shape, for floats where `init` was told whole numbers, and outside of
        jit for locations that are not the sampler's.
        """
        batch = jnp.asarray(batch)
        kept, shape = state["volume"].dtype, (state["volume"].shape[0], *self.patch_size)
        if batch.ndim != 5 or batch.shape[1:] != shape or np.shape(locations) != (len(batch), 6):
            raise ValueError(
                f"the aggregator takes a batch (B, {', '.join(map(str, shape))}) and locations (B, 6), "
                f"got {batch.shape} and {np.shape(locations)}"
            )
        if jnp.issubdtype(batch.dtype, jnp.inexact) and not jnp.issubdtype(kept, jnp.inexact):
            raise ValueError(f"the state is of {kept}, and the batch of {batch.dtype}: give init that dtype")
        if not isinstance(locations, Tracer):
            locations = np.asarray(locations)
            self.check(locations)
        first = locations[:, :3].astype(np.int32) // np.asarray(self.factor, np.int32)[None]
        return compiled_add(state, batch, first, self.windows, self.overlap_mode == "crop")

    def check(self, locations: np.ndarray) -> None:
        """Raise a ValueError for a location that is not of the sampler."""
        for location in locations.tolist():
            if tuple(location) not in self.known:
                raise ValueError(f"location {location} is none of {self.sampler}: the batch comes from elsewhere")

    def finish(self, state: dict[str, Array]) -> Image:
        """The volume with its affine, on the grid of the subject; a LabelMap if it is of whole numbers.

        Raises ValueError, outside of jit, for patches that are missing or were added twice.
        """
        if not isinstance(state["seen"], Tracer):
            seen = np.asarray(state["seen"])
            for wrong, what in ((seen == 0, "are missing"), (seen > 1, "were added more than once")):
                if wrong.any():
                    raise ValueError(f"{wrong.sum()} of {seen.size} patches {what}")
        like = next(iter(self.sampler.original.images.values()))
        return image_of(state["volume"], like, self.factor, divided(self.sampler.padding, self.factor))


def divided(sizes: Shape3, factor: Shape3) -> Shape3:
    """Sizes in coarser voxels, the last one whole."""
    i, j, k = (-(-n // f) for n, f in zip(sizes, factor, strict=True))
    return i, j, k


def image_of(volume: Array, like: Image, factor: Shape3, padding: Shape3 = (0, 0, 0)) -> Image:
    """The part of a volume that covers an image, whose first voxel is at `padding`, as an image on its grid.

    The grid is coarser by `factor`, and then so is the volume. Whole numbers become a LabelMap.
    """
    shape = divided(like.spatial_shape, factor)
    if volume.shape[1:] != shape:
        volume = volume[(slice(None), *(slice(n, n + m) for n, m in zip(padding, shape, strict=True)))]
    kind = ScalarImage if jnp.issubdtype(volume.dtype, jnp.inexact) else LabelMap
    step = np.asarray(factor, np.float64)
    return kind.of(volume, np.asarray(like.affine, np.float64) @ homogeneous(np.diag(step), (step - 1) / 2))


def added(
    volume: Num[Array, "C I J K"],
    batch: Num[Array, "B C ..."],
    first: Int[Array, "B 3"],
    windows: Windows,
    crop: bool,
    real: Bool[Array, "B"] | None = None,
    origin: Any = 0,
) -> Num[Array, "C I J K"]:
    """The volume with patches added one after the other, each times its weights.

    `real` says which of them count; `origin` is the plane at which the volume begins.
    """
    number = numbers(windows, first)

    def one(b: Array, volume: Array) -> Array:
        i, j, k = (jnp.asarray(w)[n[b]] for w, n in zip(windows.weights, number, strict=True))
        skip = jnp.stack([jnp.asarray(s)[n[b]] for s, n in zip(windows.skips, number, strict=True)])
        if real is not None:
            i = jnp.where(real[b], i, 0)
        weight = (i[:, None, None] * j[None, :, None] * k[None, None, :])[None]
        zero = jnp.zeros_like(skip[0])  # of the type of the others: on x64 a bare 0 is of another
        patch = jax.lax.dynamic_slice(batch[b], (zero, *skip), (len(volume), *weight.shape[1:])).astype(volume.dtype)
        begin = first[b] + skip
        at = (zero, begin[0] - origin, begin[1], begin[2])
        there = jax.lax.dynamic_slice(volume, at, patch.shape)
        there = jnp.where(weight > 0, patch, there) if crop else there + weight * patch
        return jax.lax.dynamic_update_slice(volume, there, at)

    return jax.lax.fori_loop(0, len(batch), one, volume, unroll=UNROLL)


def numbers(windows: Windows, first: Int[Array, "B 3"]) -> list[Int[Array, "B"]]:
    """Along each axis, the number of each patch."""
    found = (jnp.searchsorted(jnp.asarray(starts), first[:, a]) for a, starts in enumerate(windows.starts))
    return [n.astype(jnp.int32) for n in found]


@partial(jax.jit, static_argnums=4, donate_argnums=0)
def compiled_add(
    state: dict[str, Array], batch: Array, first: Int[Array, "B 3"], windows: Windows, crop: bool
) -> dict[str, Array]:
    """A state with a batch added, and counted."""
    return {
        "volume": added(state["volume"], batch, first, windows, crop),
        "seen": state["seen"].at[tuple(numbers(windows, first))].add(1),
    }
