"""Random patches of a subject: where they lie is a pure function of a key, and so are they."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Int

from medjax import keys
from medjax.arguments import finite, label_value, maybe, pairs, sizes, text, whole
from medjax.errors import about, in_range
from medjax.geometry import Grid, check_same_grid, window
from medjax.image import Image
from medjax.ops import draw, warp
from medjax.subject import LOCATION, Subject, is_array, stack_values
from medjax.transforms import call
from medjax.transforms.host import bare
from medjax.typing import Index, Key, Params, Shape3, Tracer, Voxels

UNROLL = 16
"""Patches that are copied by one step of a compiled loop."""


def as_subject(x: Any) -> Subject:
    """A subject, read; an image, or an array (C, I, J, K), becomes the only one of a subject, called "image".

    Raises TypeError for anything else, ValueError for a subject without an image and for a batch.
    """
    if not isinstance(x, (Subject, Image, np.ndarray, jax.Array)):
        raise TypeError(f"subject must be a Subject, an Image or an array (C, I, J, K), got {type(x).__name__}")
    with about("subject"):
        # What a transform is called on has no metadata: of a Subject it is only checked.
        subject = call.as_subject(x, ())[0]
    subject = (x if isinstance(x, Subject) else subject).load()
    for name, image in subject.images.items():
        if len(image.shape) != 4:
            raise ValueError(f"{name} must be (C, I, J, K), got {image.shape}: use jax.vmap for a batch of subjects")
    return subject


def common_shape(subject: Subject, size: Shape3, who: str) -> Shape3:
    """The shape of images on one grid; raises a ValueError if they are not, or smaller than a patch."""
    check_same_grid({name: Grid(image.affine, image.spatial_shape) for name, image in subject.images.items()}, who)
    shape = next(iter(subject.images.values())).spatial_shape
    check_fits(size, shape)
    return shape


def check_fits(size: Shape3, shape: Shape3) -> None:
    """Raise a ValueError for a patch that is larger than the images."""
    if any(n > m for n, m in zip(size, shape, strict=True)):
        raise ValueError(f"patch_size={size} is larger than the images, {shape}: pad them by CropOrPad(only_pad=True)")


@dataclass(frozen=True, eq=False)
class Sampler:
    """Abstract. `sampler(subject, key)` is a patch, `sampler.batch(subject, key, n)` a batch of n of one subject.

    A patch is a subject: its images (C, *patch_size) with their affines, and in `patch[mj.LOCATION]`, (6,) int32, the
    first voxel and the one after the last. Both calls are pure, and run under jit and vmap. Instead of a subject they
    take an image, or an array (C, I, J, K), whose patch is then called "image".
    Raises ValueError for images smaller than the patch, and for images on different grids: those whose corners lie more
    than half a voxel apart; under a trace, where affines are not known, those of different shapes. Of an image padded
    by `stack(shape=)` that is smaller, under vmap, the patch begins at the first voxel.
    Samplers of one class are equal where all that they hold is, and then share compiled programs; so what a sampler of
    one's own holds must be hashable.
    """

    patch_size: Any

    anywhere: ClassVar[bool] = False
    """Whether no voxel has to be seen."""

    def __post_init__(self):
        object.__setattr__(self, "patch_size", sizes("patch_size", self.patch_size))

    # Not those of the dataclass: a class derived without the decorator would be equal whatever it adds.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __call__(self, subject: Subject | Image | Voxels, key: Any) -> Subject:
        """One patch."""
        subject, key = self.checked(subject), keys.as_key(key)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((subject, key))):
            tables = self.prepare(subject, *fitting_in(subject, self.patch_size))
            return cut(subject, self.start(key, tables, subject), self.patch_size)
        patch, seen = compiled_patches(self, bare(subject), key[None])
        self.verify(jax.device_get(seen))
        return placed(subject, jax.tree.map(lambda leaf: leaf[0], patch))

    def batch(self, subject: Subject | Image | Voxels, key: Any, n: int) -> Subject:
        """A batch of n patches, each by its own key: (n,) keys, or one that its number is folded into."""
        n = whole(low=1)("n", n)
        subject, many = self.checked(subject), keys.as_keys(key, n)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((subject, many))):
            return patches(self, subject, many)[0]
        result, seen = compiled_patches(self, bare(subject), many)
        self.verify(jax.device_get(seen))
        return placed(subject, result, n)

    def checked(self, x: Subject | Image | Voxels) -> Subject:
        """The subject, read, if it can be sampled."""
        subject = as_subject(x)
        self.looked_up(subject)
        common_shape(subject, self.patch_size, type(self).__name__)
        return subject

    def looked_up(self, subject: Subject) -> str:
        """Name of the image that says where patches lie: by its voxels, or by its shape alone.

        Raises ValueError for a subject that does not have it.
        """
        return next(iter(subject.images))

    def prepare(self, subject: Subject, low: Index, high: Index) -> Params:
        """What is computed once for a volume whose voxels in [low, high) may be a centre, traced.

        "seen" is what `verify` looks at, "some" whether any voxel can be drawn.
        """
        del subject, low, high
        return {"seen": {}, "some": jnp.asarray(True)}

    def verify(self, seen: Params) -> None:
        """Raise a ValueError for a map that cannot be drawn from; on the host."""
        del seen

    def centre(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        """The index of a patch's centre, voxel patch_size // 2 of it; 0 if no voxel can be drawn."""
        raise NotImplementedError(f"{type(self).__name__} must define centre")

    def start(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        """The index of a patch's first voxel."""
        return jnp.maximum(self.centre(key, tables, subject) - jnp.asarray(self.patch_size, jnp.int32) // 2, 0)


def fitting(shape: Any, size: Shape3) -> tuple[Any, Any]:
    """The first voxel, and the one after the last, around which a patch lies in a grid of `shape` (..., 3)."""
    half = np.asarray(size, np.int32) // 2
    return half, shape - np.asarray(size, np.int32) + half + 1


def fitting_in(subject: Subject, size: Shape3) -> tuple[Index, Index]:
    """The voxels around which a patch lies in what is real of a subject's images."""
    image = next(iter(subject.images.values()))
    return fitting(jnp.asarray(image.size, jnp.int32), size)


@dataclass(frozen=True, eq=False)
class UniformSampler(Sampler):
    """Patches anywhere, each place that fits equally likely, those at the border included."""

    anywhere: ClassVar[bool] = True

    def start(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        low, high = fitting_in(subject, self.patch_size)
        return random.randint(keys.for_name(key, "start"), (3,), 0, jnp.maximum(high - low, 1), jnp.int32)


@dataclass(frozen=True, eq=False)
class WeightedSampler(Sampler):
    """Patches whose centres are drawn in proportion to a map.

    probability_map: name of an image; its first channel, of any scale, at the voxels that can be a centre: index
    patch_size // 2 of a patch that lies in the image. What is 0 there is never a centre.
    Raises ValueError for a map that is negative, not finite or 0 wherever a centre can be.
    """

    probability_map: str = ""

    def __post_init__(self):
        super().__post_init__()
        text("probability_map", self.probability_map)

    def looked_up(self, subject: Subject) -> str:
        if self.probability_map not in subject.images:
            known = ", ".join(subject.images)
            raise ValueError(f"probability_map={self.probability_map!r} is no image of the subject, which has {known}")
        return self.probability_map

    def prepare(self, subject: Subject, low: Index, high: Index) -> Params:
        image = subject[self.probability_map]
        values = jnp.asarray(image.data)[0].astype(jnp.float32)
        weights = jnp.where(warp.within(image.spatial_shape, low, high), values, 0)
        sums = draw.marginals(weights)
        seen = {"smallest": weights.min(), "total": sums.planes.sum()}
        return {"weights": weights, "sums": sums, "seen": seen, "some": seen["total"] > 0}

    def verify(self, seen: Params) -> None:
        for what, value in seen.items():
            in_range(f"the {what} of the map {self.probability_map!r}", value, low=0.0)
        if seen["total"] == 0:
            raise ValueError(
                f"the map {self.probability_map!r} is 0 wherever a patch of {self.patch_size} can be centred"
            )

    def centre(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        return draw.voxel(key, tables["sums"], lambda i, j: tables["weights"][i, j])


@dataclass(frozen=True, eq=False)
class LabelSampler(Sampler):
    """Patches whose centres are voxels of a label map, each class as often as asked.

    label_name: the label map; None for the subject's first.  label_probabilities: {label: weight}, or pairs, as which
    it is kept; a class drawn first and then one of its voxels, each equally likely; classes that no centre can have are
    left out and the others keep their ratio. None draws any voxel that is not 0 (in any channel). In a map of several
    channels a label is a channel.
    Raises ValueError where nothing can be drawn.
    """

    label_name: str | None = None
    label_probabilities: Any = None

    def __post_init__(self):
        super().__post_init__()
        maybe(text)("label_name", self.label_name)
        if self.label_probabilities is not None:
            ratios = pairs(label_value, finite(0.0))("label_probabilities", self.label_probabilities)
            if not any(ratio for _, ratio in ratios):
                raise ValueError(f"label_probabilities must give a label a weight above 0, got {dict(ratios)}")
            object.__setattr__(self, "label_probabilities", ratios)

    def looked_up(self, subject: Subject) -> str:
        maps = {n: i for n, i in subject.images.items() if i.is_label}
        if not maps or (self.label_name is not None and self.label_name not in maps):
            raise ValueError(f"label_name={self.label_name!r} is no label map of the subject, which has {list(maps)}")
        name = self.label_name or next(iter(maps))
        channels = maps[name].shape[0]
        if channels > 1 and not all(0 <= label < channels for label in self.classes()):
            raise ValueError(
                f"label_probabilities of a map of {channels} channels names channels 0 to {channels - 1}, "
                f"got {self.classes()}"
            )
        return name

    def classes(self) -> list[int]:
        """The labels that are drawn; none if any voxel is."""
        return [label for label, _ in self.label_probabilities or ()]

    def masks(self, data: Array) -> list[Array]:
        """Where each class is."""
        if self.label_probabilities is None:
            return [(data != 0).any(0)]
        if data.shape[0] > 1:
            return [data[label] != 0 for label in self.classes()]
        return [is_label(data[0], label) for label in self.classes()]

    def prepare(self, subject: Subject, low: Index, high: Index) -> Params:
        image = subject[self.looked_up(subject)]
        inside = warp.within(image.spatial_shape, low, high)
        sums = [draw.marginals(mask & inside) for mask in self.masks(jnp.asarray(image.data))]
        ratios = jnp.asarray([ratio for _, ratio in self.label_probabilities or ((0, 1.0),)], jnp.float32)
        ratios = jnp.where(jnp.stack([s.planes.any() for s in sums]), ratios, 0)
        ends = jnp.stack([low[2], high[2]]).astype(jnp.int32)
        return {
            "sums": jax.tree.map(lambda *s: jnp.stack(s), *sums), "ends": ends, "seen": {"ratios": ratios},
            "some": (ratios > 0).any(),
        }  # fmt: skip

    def verify(self, seen: Params) -> None:
        if not np.any(seen["ratios"] > 0):
            raise ValueError(
                f"no patch of {self.patch_size} can be centred on a voxel of "
                + ("a label" if self.label_probabilities is None else f"labels {self.classes()}")
            )

    def centre(self, key: Key, tables: Params, subject: Subject) -> Int[Array, "3"]:
        data = jnp.asarray(subject[self.looked_up(subject)].data)
        which = draw.choose(keys.for_name(key, "class"), tables["seen"]["ratios"])

        def line(i: Array, j: Array) -> Array:
            """Looked at again, so that no mask is kept."""
            zero = jnp.zeros((), jnp.int32)
            voxels = jax.lax.dynamic_slice(data, (zero, i, j, zero), (len(data), 1, 1, data.shape[3]))
            found = jnp.stack([mask[0, 0] for mask in self.masks(voxels)])[which]
            index = jnp.arange(data.shape[3], dtype=jnp.int32)
            return found & (index >= tables["ends"][0]) & (index < tables["ends"][1])

        return draw.voxel(key, jax.tree.map(lambda s: s[which], tables["sums"]), line)


def is_label(data: Array, label: int) -> Array:
    """Where a label is; nowhere if the dtype does not hold it."""
    if jnp.issubdtype(data.dtype, jnp.integer) and not jnp.iinfo(data.dtype).min <= label <= jnp.iinfo(data.dtype).max:
        return jnp.zeros(data.shape, bool)
    return data == jnp.asarray(label).astype(data.dtype)


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
    tables = sampler.prepare(subject, *fitting_in(subject, sampler.patch_size))
    starts = jax.vmap(lambda key: sampler.start(key, tables, subject))(many)
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
