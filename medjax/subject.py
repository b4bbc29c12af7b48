"""Subjects: named images and free metadata; several stacked are a batch."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import geometry
from medjax.annotations import Annotation
from medjax.arguments import choice, entries, maybe, pairs, sizes, text
from medjax.errors import needs_concrete, shown
from medjax.image import Image
from medjax.io import memory
from medjax.metadata import Box, carried
from medjax.pictures import plot_images
from medjax.present import PRESENT, Present, filled
from medjax.typing import Shape3

DATA = "data"
LOCATION = "location"
KEY = "key"


class Subject:
    """Named images, points, and free metadata, of one person: `Subject(t1=ScalarImage(...), ac=Points(...), age=45)`.

    Items are reached as attributes and as items. An item that is None is a missing image. Images keep the order in
    which they were given; the first is the reference of spatial transforms. Immutable: `replace` gives a copy.

    Arrays of numbers, NumPy's scalars among them, are leaves of the pytree: `y=np.int32(3)` goes into compiled
    functions, and is (B,) in a batch. All else is metadata (see `medjax.metadata`): `y=3` compiles nothing again, is a
    tuple of B in a batch, and stays outside of compiled functions.
    """

    __slots__ = ("_items", "_known")
    _items: dict[str, Any]
    _known: frozenset[str]

    def __init__(self, mapping: Mapping[str, Any] | None = None, /, **items: Any):
        items = {**(mapping or {}), **items}
        for name in items:
            if not isinstance(name, str):
                raise TypeError(f"names of a subject's items are strings, got {name!r}")
        self._fill(items, [name for name, item in items.items() if not is_leaf_item(item)])

    def _fill(self, items: dict[str, Any], metadata: Iterable[str]) -> None:
        object.__setattr__(self, "_items", items)
        # Asked once, when it is built: a leaf that JAX has replaced by something of its own stays in its place.
        object.__setattr__(self, "_known", frozenset(metadata))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"subjects are immutable: use subject.replace({name}=...)")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._items:
            raise AttributeError(missing(self, name) if not name.startswith("_") else name)
        return self._items[name]

    def __getitem__(self, name: str) -> Any:
        if name not in self._items:
            raise KeyError(missing(self, name))
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def keys(self):
        """Names of all items."""
        return self._items.keys()

    def items(self):
        """Names and items."""
        return self._items.items()

    @property
    def images(self) -> dict[str, Image]:
        """The images by name, in order."""
        return {name: item for name, item in self._items.items() if isinstance(item, Image)}

    @property
    def annotations(self) -> dict[str, Annotation]:
        """The points and directions by name."""
        return {name: item for name, item in self._items.items() if isinstance(item, Annotation)}

    @property
    def metadata(self) -> dict[str, Any]:
        """All that is neither an image, nor missing, nor points or directions, nor an array of numbers."""
        return {name: item for name, item in self._items.items() if name in self._known}

    def get_images_dict(self) -> dict[str, Image]:
        """The images by name, in order."""
        return self.images

    def replace(self, **items: Any) -> "Subject":
        """A copy with other items; new names go to the end."""
        given, copied = Subject(items), object.__new__(Subject)
        copied._fill({**self._items, **items}, (self._known - items.keys()) | given._known)
        return copied

    def load(self) -> "Subject":
        """A copy with every image read; this subject keeps nothing."""
        return Subject({name: i.load() if isinstance(i, Image) else i for name, i in self._items.items()})

    def plot(self, **options: Any) -> Any:
        """Draw the middle slices of every image; see `medjax.plot_subject`."""
        return plot_images(self.images, **options)

    def __repr__(self) -> str:
        return "Subject(" + ", ".join(f"{name}={item!r}" for name, item in self._items.items()) + ")"

    def __getstate__(self) -> dict[str, Any]:
        return self._items

    def __setstate__(self, items: dict[str, Any]) -> None:
        self.__init__(items)


def is_leaf_item(item: Any) -> bool:
    """Whether an item lives in the leaves: images, missing ones, what says so, annotations, arrays of numbers."""
    return item is None or isinstance(item, (Image, Annotation, Present)) or is_array(item)


def is_array(item: Any) -> bool:
    """Whether an item is an array of numbers: NumPy's, a scalar of NumPy's, or JAX's, keys among them."""
    if isinstance(item, (np.ndarray, np.generic)):
        return jnp.issubdtype(item.dtype, np.number) or item.dtype == np.bool_
    return isinstance(item, jax.Array)


def missing(subject: Subject, name: str) -> str:
    """What to say of an item that a subject does not have; reads no file."""
    text = f"subject has no {name!r}; it has {', '.join(subject)}"
    instead = f"give what has to be there as an array, as {name}=np.int32(3)"
    held = [item.held() if isinstance(item, Image) else item for item in subject._items.values()]
    if geometry.is_traced(held):
        return f"{text}. Metadata does not enter compiled functions: {instead}"
    if any(image.leading for image in subject.images.values()):
        return f"{text}. Only medjax.stack makes batches that keep metadata: {instead}"
    return text


def leading_of(items: Iterable[Any]) -> tuple[int, ...] | None:
    """The axes of the batch that images or annotations are of, () for one subject; None if none of them tells it."""
    found = (item.leading for item in items if isinstance(item, (Image, Annotation)))
    return next((leading for leading in found if leading is not None), None)


def flatten_subject(subject: Subject) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], Box]]:
    """Children and structure: metadata ride in a box."""
    names = tuple(name for name in subject if name not in subject._known)
    children = tuple(subject[name] for name in names)
    return children, (names, Box(subject.metadata, leading_of(children)))


def flatten_subject_with_keys(subject: Subject) -> tuple[tuple[Any, ...], tuple[tuple[str, ...], Box]]:
    """The same, every child with its name."""
    children, aux = flatten_subject(subject)
    return tuple((jax.tree_util.DictKey(n), c) for n, c in zip(aux[0], children, strict=True)), aux


def unflatten_subject(aux: tuple[tuple[str, ...], Box], children: tuple[Any, ...]) -> Subject:
    """A subject from its parts; metadata are dropped where they would be stale."""
    names, box = aux
    metadata = carried(box, jax.tree.leaves(children), leading_of(children)) or {}
    subject = object.__new__(Subject)
    subject._fill({**dict(zip(names, children, strict=True)), **metadata}, metadata)
    return subject


jax.tree_util.register_pytree_with_keys(Subject, flatten_subject_with_keys, unflatten_subject, flatten_subject)


def stack(
    subjects: list[Subject], *, shape: Shape3 | Mapping[str, Shape3] | None = None, missing: str | None = None
) -> Subject:
    """A batch: every leaf gets a leading axis B, every metadatum becomes a tuple of B.

    `shape` pads the spatial axes at the high end, and then each image carries its `extent`; {name: shape} pads the
    images that it names. Without it the shapes must agree. Voxels on the host stay there, in their order in memory;
    they may be traced.
    missing: 'zeros' makes of an image that a subject lacks, or that is None, zeros of the type and channels that the
    first subject has which has it, on the grid of its own first image where the shapes agree. `batch.present` then
    says by name which elements have the image, (B,) bool, leaves of the pytree. To transforms such an image is one of
    zeros; that they cannot be normalised is no error. None: all must have the same images.
    Raises ValueError, naming both subjects, where they differ in names, kinds, channels, dtype or shape.

    >>> batch = mj.stack(subjects, missing="zeros")
    >>> flair = jnp.where(batch.present["flair"][:, None, None, None, None], batch.flair.data, 0)
    """
    given = entries(subjects)
    if given is None or not all(isinstance(subject, Subject) for subject in given):
        raise TypeError(f"subjects must be a sequence of Subjects, got {shown(subjects)}")
    if not given:
        raise ValueError("stack needs at least one of subjects")
    subjects = [subject.load() for subject in given]
    names = dict.fromkeys(name for subject in subjects for name in subject.images)
    if isinstance(shape, Mapping):
        shapes = dict(pairs(text, sizes)("shape", shape))
    else:
        shapes = {} if shape is None else dict.fromkeys(names, sizes("shape", shape))
    if maybe(choice("zeros"))("missing", missing) is not None:
        subjects = completed(subjects, shapes)
    first = subjects[0]
    for number, subject in enumerate(subjects[1:], 1):
        compare(first, subject, f"subjects 0 and {number}", shapes)
    items: dict[str, Any] = {}
    for name, item in first.items():
        if isinstance(item, Image):
            items[name] = stack_images([subject[name] for subject in subjects], name, shapes.get(name))
        elif isinstance(item, Annotation):
            items[name] = stack_annotations([subject[name] for subject in subjects], name)
        elif isinstance(item, Present):
            flags = {n: [subject[name][n] for subject in subjects] for n in item}
            items[name] = Present({n: together(flag, bool) for n, flag in flags.items()})
        elif item is None:
            items[name] = None
    return Subject(items | stack_others(subjects))


def completed(
    subjects: Sequence[Subject], padded: Collection[str], known: Mapping[str, Image] | None = None
) -> list[Subject]:
    """Subjects with zeros for the images that they lack and others have, which `present` says; see `filled`."""
    result = []
    images = filled([subject.images for subject in subjects], padded, known or {})
    for number, (subject, own) in enumerate(zip(subjects, images, strict=True)):
        before = present_in(subject)
        if PRESENT in subject and not before:
            raise ValueError(f"{PRESENT!r} is to say which images are there, but subject {number} has it already")
        flags = {n: before.get(n, np.True_) if n in subject.images else np.False_ for n in own}
        rest = {n: item for n, item in subject.items() if n not in own}
        result.append(Subject({**own, **rest, PRESENT: Present(flags)}))
    return result


def present_in(subject: Subject) -> Present:
    """What says which images of a subject or a batch are there; empty where nothing does, for all are."""
    found = subject._items.get(PRESENT)
    return found if isinstance(found, Present) else Present({})


def stack_others(subjects: Sequence[Subject]) -> dict[str, Any]:
    """What subjects have beside images and annotations: arrays with a leading axis B, metadata as tuples of B.

    A metadatum that a subject lacks is None in its place. Raises ValueError for arrays that differ in dtype or shape.
    """
    names = dict.fromkeys(n for s in subjects for n, i in s.items() if not is_leaf_item(i) or is_array(i))
    columns = {name: tuple(s._items.get(name) for s in subjects) for name in names}
    return {n: stack_values(c, n) if any(map(is_array, c)) else c for n, c in columns.items()}


def stack_values(values: Sequence[Any], name: str) -> Any:
    """Arrays of several subjects as one; NumPy's stay on the host."""
    for value in values:
        check_values(values[0], value, "two subjects", name)
    return geometry.namespace(*values).stack(values)


def check_values(one: Any, other: Any, which: str, name: str) -> None:
    """Raise a ValueError for an array that does not stack with what another subject has under its name."""
    texts = [f"{item.dtype} {item.shape}" if is_array(item) else repr(item) for item in (one, other)]
    if (is_array(one) or is_array(other)) and texts[0] != texts[1]:
        raise ValueError(
            f"{which} do not stack: {name} is {texts[0]} in one and {texts[1]} in the other; an array is of one type "
            "and shape in all subjects, and anything else is metadata in a list"
        )


def compare(first: Subject, other: Subject, which: str, padded: Collection[str]) -> None:
    """Raise a ValueError unless two subjects can be stacked, the images named in `padded` brought to one shape."""

    def kinds(subject: Subject) -> dict[str, str]:
        return {n: type(i).__name__ for n, i in subject.items() if is_leaf_item(i) and not is_array(i)}

    def texts(subject: Subject) -> str:
        return ", ".join(f"{n} ({k})" if k != "NoneType" else f"{n} (missing)" for n, k in kinds(subject).items())

    if kinds(first) != kinds(other):
        hint = "; missing='zeros' fills in what is missing" if set(first.images) ^ set(other.images) else ""
        raise ValueError(
            f"{which} differ in their images and do not stack: {texts(first)} against {texts(other)}{hint}"
        )
    for name in dict.fromkeys((*first, *other)):
        check_values(first._items.get(name), other._items.get(name), which, name)
    for name, image in first.images.items():
        a, b = image.data, other[name].data
        if a.dtype != b.dtype or a.shape[0] != b.shape[0] or (name not in padded and a.shape != b.shape):
            raise ValueError(
                f"{which} do not stack: {name} is {a.dtype} {a.shape} in one and {b.dtype} {b.shape} in the other"
                + ("; give stack(..., shape=) to pad them" if a.shape[1:] != b.shape[1:] else "")
            )


def stack_images(images: list[Image], name: str, shape: Shape3 | None) -> Image:
    """One batched image of several."""
    arrays, extent = [image.data for image in images], None
    affines, shapes = [image.affine for image in images], [image.spatial_shape for image in images]
    on_device = any(isinstance(a, jax.Array) for a in arrays) and (shape is None or geometry.is_traced(arrays))
    if shape is not None:
        extent = np.array(shapes, np.int32)
        arrays = [padded(a, name, shape) if on_device else np.asarray(a) for a in arrays]
    elif images[0].extent is not None:
        extent = together([image.extent for image in images], np.int32)
    data = jnp.stack([jnp.asarray(a) for a in arrays]) if on_device else stack_arrays(arrays, name, shape)
    metadata = tuple(image.metadata for image in images)
    assumed = any(image.assumed for image in images)
    return type(images[0]).of(data, together(affines, np.float64), extent, metadata=metadata, assumed=assumed)


def together(arrays: Sequence[Any], dtype: Any) -> Any:
    """Small arrays with a leading axis: on the host in `dtype`, as JAX's if any is traced."""
    if geometry.is_traced(arrays):
        return jnp.stack([jnp.asarray(array) for array in arrays])
    return np.stack([np.asarray(array, dtype) for array in arrays])


def padded(array: Any, name: str, shape: Shape3) -> jax.Array:
    """Voxels (C, I, J, K) with zeros at the high end, traced."""
    more = [n - m for n, m in zip(shape, array.shape[1:], strict=True)]
    check_room(array.shape[1:], name, shape)
    return jnp.pad(jnp.asarray(array), [(0, 0), *((0, n) for n in more)])


def check_room(own: Sequence[int], name: str, shape: Sequence[int]) -> None:
    """Raise a ValueError if an image is larger than what it is padded to."""
    if any(n > m for n, m in zip(own, shape, strict=True)):
        raise ValueError(f"shape={shape} is smaller than {name} of shape {own}")


def stack_annotations(items: list[Annotation], name: str) -> Annotation:
    """Points or directions of several subjects as (B, N, 3)."""
    counts = sorted({len(item) for item in items})
    if len(counts) > 1:
        raise ValueError(f"{name} holds {counts[0]} rows in one subject and {counts[-1]} in another: they do not stack")
    xp = geometry.namespace(*(item.xyz for item in items))
    return items[0].of(xp.stack([xp.asarray(item.xyz) for item in items]), tuple(item.labels for item in items))


def stack_arrays(arrays: list[np.ndarray], name: str, shape: Shape3 | None = None) -> np.ndarray:
    """Host arrays (C, I, J, K) as one (B, C, I, J, K), aligned, each with its axes in memory as the first has them."""
    first = arrays[0]
    size = first.shape if shape is None else (first.shape[0], *(int(n) for n in shape))
    outer_to_inner = sorted(range(4), key=lambda axis: -abs(first.strides[axis]))
    make = memory.empty if shape is None else memory.zeros
    data = make((len(arrays), *(size[axis] for axis in outer_to_inner)), first.dtype)
    data = data.transpose(0, *(1 + outer_to_inner.index(axis) for axis in range(4)))
    for row, array in zip(data, arrays, strict=True):
        check_room(array.shape[1:], name, size[1:])
        row[tuple(map(slice, array.shape))] = array
    return data


def unstack(batch: Subject) -> list[Subject]:
    """The subjects of a batch, each cut to its extent.

    A metadatum that is no tuple or list of B is that of every subject. Raises TypeError for extents that are traced.
    """
    size = batch_size(batch)
    each = {n: i for n, i in batch.metadata.items() if not isinstance(i, (tuple, list)) or len(i) != size}
    rest = {n: i for n, i in batch.items() if n not in each}
    return [Subject({n: each[n] if n in each else unstack_item(n, rest[n], i) for n in batch}) for i in range(size)]


def unstack_item(name: str, item: Any, i: int) -> Any:
    """Element i of one item of a batch."""
    if isinstance(item, Annotation):
        return item.of(item.xyz[i], item.labels[i] if isinstance(item.labels, tuple) else item.labels)
    if not isinstance(item, Image):
        return item.element(i) if isinstance(item, Present) else None if item is None else item[i]
    data = item.data[i]
    if item.extent is not None:
        if geometry.is_traced(item.extent):
            needs_concrete(f"the shape of {name}, which is padded,", "unstack before, or take element i as it is")
        data = data[(slice(None), *(slice(int(n)) for n in item.extent[i]))]
    kept = item.metadata
    metadata = kept[i] if isinstance(kept, tuple) else kept
    box = (None if v is None else v[i] for v in (item.offset, item.full))
    return type(item).of(data, item.affine[i], None, *box, metadata=metadata, assumed=item.assumed)


def batch_size(batch: Any) -> int:
    """The length of the leading axis that every leaf of a batch shares; raises ValueError if they differ."""
    sizes = {leaf.shape[0] if getattr(leaf, "ndim", 0) else None for leaf in jax.tree.leaves(batch)}
    if len(sizes) != 1 or None in sizes:
        shapes = [f"{jax.tree_util.keystr(k)} {np.shape(v)}" for k, v in jax.tree_util.tree_leaves_with_path(batch)]
        raise ValueError(
            "not a batch: its arrays do not share a leading axis; make one by medjax.stack(subjects). "
            f"Here are {', '.join(shapes)}"
        )
    return sizes.pop()
