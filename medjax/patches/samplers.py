"""Random patches of a subject: where they lie is a pure function of a key, and so are they."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Int

from medjax import keys
from medjax.errors import in_range
from medjax.geometry import Grid, window
from medjax.image import Image, LabelMap
from medjax.ops import draw
from medjax.ops.statistics import extent_mask
from medjax.subject import LOCATION, Subject, is_array, stack_values
from medjax.transforms.host import bare
from medjax.transforms.spatial.crop import sizes
from medjax.typing import Key, Params, Shape3, Tracer

UNROLL = 16
"""Patches that are copied by one step of a compiled loop."""


def common_shape(subject: Subject, size: Shape3) -> Shape3:
    """The shape that all images have; raises a ValueError if they differ, are smaller than a patch, or a batch."""
    for name, image in subject.images.items():
        if len(image.shape) != 4:
            raise ValueError(f"{name} must be (C, I, J, K), got {image.shape}: use jax.vmap for a batch of subjects")
    return check_shapes({name: image.spatial_shape for name, image in subject.images.items()}, size)


def check_shapes(shapes: Mapping[str, Shape3], size: Shape3) -> Shape3:
    """The shape that all images have; raises as `common_shape`."""
    if len(set(shapes.values())) != 1:
        raise ValueError(f"patches need images of one shape, got {shapes or 'no image'}")
    shape = next(iter(shapes.values()))
    if any(n > m for n, m in zip(size, shape, strict=True)):
        raise ValueError(f"patch_size={size} is larger than the images, {shape}: pad them by CropOrPad(only_pad=True)")
    return shape


@dataclass(frozen=True, eq=False)
class Sampler:
    """Abstract. `sampler(subject, key)` is a patch, `sampler.batch(subject, key, n)` a batch of n of one subject.

    A patch is a subject: its images (C, *patch_size) with their affines, and in `patch[mj.LOCATION]`, (6,) int32, the
    first voxel and the one after the last. Both calls are pure, and run under jit and vmap.
    Raises ValueError for images of different shapes, or smaller than the patch; of an image padded by
    `stack(shape=)` that is smaller, under vmap, the patch begins at the first voxel.
    """

    patch_size: Any

    anywhere: ClassVar[bool] = False
    """Whether no voxel has to be seen."""

    def __post_init__(self):
        object.__setattr__(self, "patch_size", sizes("patch_size", self.patch_size))

    def __call__(self, subject: Subject, key: Any) -> Subject:
        """One patch."""
        subject, key = self.checked(subject), keys.as_key(key)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((subject, key))):
            return cut(subject, self.place(key, self.prepare(subject), subject), self.patch_size)
        patch, seen = compiled_patches(self, bare(subject), key[None])
        self.verify(jax.device_get(seen))
        return placed(subject, jax.tree.map(lambda leaf: leaf[0], patch))

    def batch(self, subject: Subject, key: Any, n: int) -> Subject:
        """A batch of n patches, each by its own key: (n,) keys, or one that its number is folded into."""
        subject, many = self.checked(subject), keys.as_keys(key, n)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((subject, many))):
            return patches(self, subject, many)[0]
        result, seen = compiled_patches(self, bare(subject), many)
        self.verify(jax.device_get(seen))
        return placed(subject, result, n)

    def checked(self, subject: Subject) -> Subject:
        """The subject, read, if it can be sampled."""
        subject = subject.load()
        common_shape(subject, self.patch_size)
        return subject

    def prepare(self, subject: Subject) -> Params:
        """What is computed once for a volume, traced; of it "seen" is what `verify` looks at."""
        del subject
        return {"seen": {}}

    def verify(self, seen: Params) -> None:
        """Raise a ValueError for a map that cannot be drawn from; on the host."""
        del seen

    def place(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        """The index of a patch's first voxel."""
        raise NotImplementedError(f"{type(self).__name__} must define place")


@dataclass(frozen=True, eq=False)
class UniformSampler(Sampler):
    """Patches anywhere, each place that fits equally likely, those at the border included."""

    anywhere: ClassVar[bool] = True

    def place(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        image = next(iter(subject.images.values()))
        room = jnp.asarray(image.spatial_shape if image.extent is None else image.extent, jnp.int32)
        room = jnp.maximum(room - jnp.asarray(self.patch_size, jnp.int32), 0)
        return random.randint(keys.for_name(key, "start"), (3,), 0, room + 1, jnp.int32)


@dataclass(frozen=True, eq=False)
class WeightedSampler(Sampler):
    """Patches whose centres are drawn in proportion to a map.

    probability_map: name of an image; its first channel, of any scale, at the voxels that can be a centre: index
    patch_size // 2 of a patch that lies in the image. What is 0 there is never a centre.
    Raises ValueError for a map that is negative, not finite or 0 wherever a centre can be.
    """

    probability_map: str = ""

    def map_of(self, subject: Subject) -> Image:
        """The map that is drawn from."""
        if self.probability_map not in subject.images:
            known = ", ".join(subject.images)
            raise ValueError(f"probability_map={self.probability_map!r} is no image of the subject, which has {known}")
        return subject.images[self.probability_map]

    def checked(self, subject: Subject) -> Subject:
        self.map_of(subject)
        return super().checked(subject)

    def prepare(self, subject: Subject) -> Params:
        image = self.map_of(subject)
        weights = centres(jnp.asarray(image.data)[0].astype(jnp.float32), image, self.patch_size)
        sums = draw.marginals(weights)
        return {"weights": weights, "sums": sums, "seen": {"smallest": weights.min(), "total": sums.planes.sum()}}

    def verify(self, seen: Params) -> None:
        for what, value in seen.items():
            in_range(f"the {what} of the map {self.probability_map!r}", value, low=0.0)
        if seen["total"] == 0:
            raise ValueError(
                f"the map {self.probability_map!r} is 0 wherever a patch of {self.patch_size} can be centred"
            )

    def place(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        return draw.voxel(key, tables["sums"], lambda i, j: tables["weights"][i, j])


@dataclass(frozen=True, eq=False)
class LabelSampler(Sampler):
    """Patches whose centres are voxels of a label map, each class as often as asked.

    label_name: the label map; None for the subject's first.  label_probabilities: {label: weight}, a class drawn first
    and then one of its voxels, each equally likely; classes that no centre can have are left out and the others keep
    their ratio. None draws any voxel that is not 0 (in any channel). In a map of several channels a label is a channel.
    Raises ValueError where nothing can be drawn.
    """

    label_name: str | None = None
    label_probabilities: Any = None

    def __post_init__(self):
        super().__post_init__()
        if self.label_probabilities is not None:
            ratios = {int(label): float(weight) for label, weight in dict(self.label_probabilities).items()}
            in_range("label_probabilities", np.asarray(list(ratios.values())), low=0.0)
            if not any(ratios.values()):
                raise ValueError(f"label_probabilities must give a label a weight above 0, got {ratios}")
            object.__setattr__(self, "label_probabilities", ratios)

    def label_of(self, subject: Subject) -> LabelMap:
        """The label map that is sampled."""
        maps = {n: i for n, i in subject.images.items() if isinstance(i, LabelMap)}
        if not maps or (self.label_name is not None and self.label_name not in maps):
            raise ValueError(f"label_name={self.label_name!r} is no label map of the subject, which has {list(maps)}")
        return maps[self.label_name or next(iter(maps))]

    def checked(self, subject: Subject) -> Subject:
        channels = self.label_of(subject).shape[0]
        if channels > 1 and not all(0 <= label < channels for label in self.label_probabilities or ()):
            raise ValueError(
                f"label_probabilities of a map of {channels} channels names channels 0 to {channels - 1}, "
                f"got {list(self.label_probabilities)}"
            )
        return super().checked(subject)

    def masks(self, data: Array) -> list[Array]:
        """Where each class is."""
        if self.label_probabilities is None:
            return [(data != 0).any(0)]
        if data.shape[0] > 1:
            return [data[label] != 0 for label in self.label_probabilities]
        return [is_label(data[0], label) for label in self.label_probabilities]

    def prepare(self, subject: Subject) -> Params:
        image = self.label_of(subject)
        masks = [centres(mask, image, self.patch_size) for mask in self.masks(jnp.asarray(image.data))]
        sums = [draw.marginals(mask) for mask in masks]
        ratios = jnp.asarray(list((self.label_probabilities or {0: 1.0}).values()), jnp.float32)
        present = jnp.stack([s.planes.any() for s in sums])
        return {"sums": jax.tree.map(lambda *s: jnp.stack(s), *sums), "seen": {"ratios": jnp.where(present, ratios, 0)}}

    def verify(self, seen: Params) -> None:
        if not np.any(seen["ratios"] > 0):
            raise ValueError(
                f"no patch of {self.patch_size} can be centred on a voxel of "
                + ("a label" if self.label_probabilities is None else f"labels {list(self.label_probabilities)}")
            )

    def place(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        image = self.label_of(subject)
        which = draw.choose(keys.for_name(key, "class"), tables["seen"]["ratios"])

        def line(i: Array, j: Array) -> Array:
            """Looked at again, so that no mask is kept."""
            data, (a, b, c) = jnp.asarray(image.data), (n // 2 for n in self.patch_size)
            size = (len(data), 1, 1, data.shape[3] - self.patch_size[2] + 1)
            voxels = jax.lax.dynamic_slice(data, (jnp.int32(0), i + a, j + b, jnp.int32(c)), size)
            found = jnp.stack([mask[0, 0] for mask in self.masks(voxels)])[which]
            if image.extent is None:
                return found
            return found & (jnp.arange(size[3], dtype=jnp.int32) <= image.extent[2] - self.patch_size[2])

        return draw.voxel(key, jax.tree.map(lambda s: s[which], tables["sums"]), line)


def is_label(data: Array, label: int) -> Array:
    """Where a label is; nowhere if the dtype does not hold it."""
    if jnp.issubdtype(data.dtype, jnp.integer) and not jnp.iinfo(data.dtype).min <= label <= jnp.iinfo(data.dtype).max:
        return jnp.zeros(data.shape, bool)
    return data == jnp.asarray(label).astype(data.dtype)


def centres(values: Array, image: Image, size: Shape3) -> Array:
    """The part of a volume that can be a patch's centre, 0 where the patch would leave what is real.

    Its index is that of the patch's first voxel.
    """
    box = tuple(slice(n // 2, m - (n - n // 2) + 1) for n, m in zip(size, values.shape, strict=True))
    inner = values[box]
    if image.extent is None:
        return inner
    fits = extent_mask(inner.shape, jnp.asarray(image.extent) - jnp.asarray(size, jnp.int32) + 1)
    return jnp.where(fits, inner, jnp.zeros((), inner.dtype))


def cut(subject: Subject, start: Int[Array, "3"], size: Shape3) -> Subject:
    """The patch that begins at a voxel, traced."""
    images = {name: cut_image(image, start, size) for name, image in subject.images.items()}
    return subject.replace(**images, **{LOCATION: jnp.concatenate([start, start + jnp.asarray(size, jnp.int32)])})


def cut_all(subject: Subject, starts: Int[Array, "N 3"], size: Shape3) -> Subject:
    """A batch of the patches that begin at some voxels, traced; unrolled, which copies many times quicker on a CPU."""
    return jax.lax.scan(lambda _, start: (None, cut(subject, start, size)), None, starts, unroll=UNROLL)[1]


def cut_image(image: Image, start: Int[Array, "3"], size: Shape3) -> Image:
    """The patch of one image."""
    data = jnp.asarray(image.data)
    data = jax.lax.dynamic_slice(data, (jnp.int32(0), *start), (data.shape[0], *size))
    affine = jnp.asarray(image.affine)
    grid = window(Grid(affine, jnp.asarray(size, jnp.int32)), start, jnp.asarray(size, jnp.int32), size)
    return type(image).of(data, grid.affine)


def patches(sampler: Sampler, subject: Subject, many: Key) -> tuple[Subject, Params]:
    """A patch for each key, and what `verify` looks at; traced."""
    tables = sampler.prepare(subject)
    starts = jax.vmap(lambda key: sampler.place(key, tables, subject))(many)
    return cut_all(subject, starts, sampler.patch_size), tables["seen"]


@partial(jax.jit, static_argnums=0)
def compiled_patches(sampler: Sampler, subject: Subject, many: Key) -> tuple[Subject, Params]:
    """`patches`, compiled once for a sampler and a shape."""
    return patches(sampler, subject, many)


@partial(jax.jit, static_argnums=2)
def compiled_cut(subject: Subject, start: Int[Array, "3"], size: Shape3) -> Subject:
    """`cut`, compiled."""
    return cut(subject, start, size)


def placed(subject: Subject, result: Subject, n: int | None = None) -> Subject:
    """Patches with float64 affines, and the arrays and metadata of the subject; n of them for a batch."""
    starts = np.asarray(result[LOCATION], np.float64).reshape(-1, 6)[:, :3]

    def repeated(value: Any) -> Any:
        return value if n is None else (value,) * n

    def moved(affine: np.ndarray) -> np.ndarray:
        """The affines of the patches."""
        affines = np.repeat(affine[None], len(starts), 0)
        affines[:, :3, 3] += starts @ affine[:3, :3].T
        return affines[0] if n is None else affines

    items: dict[str, Any] = {}
    for name, item in subject.items():
        if isinstance(item, Image):
            affine = moved(np.asarray(item.affine, np.float64))
            items[name] = result[name].replace(affine=affine, metadata=repeated(item.metadata))
        else:
            items[name] = result[name] if name in result else None if item is None else repeated(item)
    if n is not None:
        items |= {name: stack_values([item] * n, name) for name, item in subject.items() if is_array(item)}
    return Subject({**items, LOCATION: result[LOCATION]})
