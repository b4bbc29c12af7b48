"""Subjects and batches: dictionaries of images and metadata, which may be pending.

One that is pending is read, and not transformed yet. It is transformed by whoever first looks at what it holds, which
in a data loader is the parent process (see `pending.py`), so nothing here may look inside without need.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

import medjax as mj
from medjax.annotations import Annotation
from medjax.subject import stack_annotations, stack_arrays, unstack_item
from torch_bridge.agreement import Agreement
from torch_bridge.constants import HISTORY
from torch_bridge.history import WithHistory
from torch_bridge.image import Image, LabelMap, ScalarImage, collated
from torch_bridge.looks import as_html, plot_subject
from torch_bridge.store import Store, blank

HISTORIES = (HISTORY, "applied_transforms")
"""Names under which a batch may have what was done to its subjects."""


class Items(Store):
    """Abstract. Named items, by attribute and by item, that may be pending: the first look at them transforms."""

    _items: dict[str, Any]
    _pending: Any

    def _ready(self) -> dict[str, Any]:
        """The items, transformed if that is due."""
        if self._pending is not None:
            self._pending.resolve(self)
        return self._items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        items = self._ready()
        if name not in items:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(items)}")
        return items[name]

    def __setattr__(self, name: str, item: Any) -> None:
        if name.startswith("_") or isinstance(getattr(type(self), name, None), property):
            object.__setattr__(self, name, item)
        else:
            self[name] = item

    def __getitem__(self, name: Any) -> Any:
        items = self._ready()
        if name not in items:
            raise KeyError(f"{type(self).__name__} has no {name!r}; it has {', '.join(items)}")
        return items[name]

    def __setitem__(self, name: str, item: Any) -> None:
        self._ready()[name] = item

    def __delitem__(self, name: str) -> None:
        del self._ready()[name]

    def __delattr__(self, name: str) -> None:
        if name.startswith("_"):
            object.__delattr__(self, name)
        else:
            self._ready().pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ready())

    def __len__(self) -> int:
        return len(self._ready())

    def keys(self):
        """Names of all items."""
        return self._ready().keys()

    def values(self):
        """All items."""
        return self._ready().values()

    def items(self):
        """Names and items."""
        return self._ready().items()

    def get_images_dict(
        self, intensity_only: bool = True, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The images by name, in order: scalar images, or all of them; those of `include`, but not of `exclude`."""
        kind = ScalarImage if intensity_only else Image
        return {
            name: item
            for name, item in self._ready().items()
            if isinstance(item, kind) and name in (include or (name,)) and name not in (exclude or ())
        }

    def get_images(
        self, intensity_only: bool = True, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
    ) -> list[Any]:
        """The images in order, as in `get_images_dict`."""
        return list(self.get_images_dict(intensity_only, include, exclude).values())

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """A copy with images and tensors elsewhere; as `torch.Tensor.to`."""
        movable = (Image, torch.Tensor)
        return self._with({n: i.to(*args, **kwargs) if isinstance(i, movable) else i for n, i in self.items()})

    def pin_memory(self) -> Self:
        """For data loaders: in pinned memory where there is a GPU; what is pending stays as it is."""
        if self._pending is not None:
            return self
        return self._with({n: i.pin_memory() if isinstance(i, Image) else i for n, i in self._items.items()})

    def _with(self, items: dict[str, Any]) -> Self:
        """One that holds other items, and is in all else as this."""
        made = blank(type(self))
        made.__dict__.update({**self.__dict__, "_items": items, "_pending": None})
        if "_history" in made.__dict__:
            made._history = list(made._history)
        return made

    def __copy__(self) -> Self:
        made = self._with(dict(self._items))
        made._pending = self._pending
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}(" + ", ".join(f"{name}={item!r}" for name, item in self.items()) + ")"


class Subject(Agreement, WithHistory, Items):
    """Named images and free metadata of one person: `Subject(t1=ScalarImage("t1.nii.gz"), age=45)`; a dictionary.

    Items are reached and set as attributes and as items, which are one store. `len` is the number of images, as in
    TorchIO. Numbers and slices of voxel axes give the box of each image. None stands for a missing image.
    Raises TypeError without any image, ValueError for more than one mapping.
    """

    def __init__(self, *mapping: Mapping[str, Any], **items: Any):
        if len(mapping) > 1 or not all(isinstance(each, Mapping) for each in mapping):
            raise ValueError(f"a subject takes one dictionary, and items by name, got {mapping!r}")
        items = {**(mapping[0] if mapping else {}), **items}
        for name in items:
            if not isinstance(name, str):
                raise TypeError(f"names of a subject's items are strings, got {name!r}")
        if not any(item is None or isinstance(item, Image) for item in items.values()):
            raise TypeError("a subject has at least one image, or None for a missing one")
        self._items, self._pending = items, None

    def __len__(self) -> int:
        return len(self.get_images_dict(intensity_only=False))

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, name: Any) -> Any:
        if isinstance(name, slice | int | tuple):
            try:
                self.check_consistent_spatial_shape()
            except RuntimeError as error:
                raise RuntimeError("a box is cut of a subject whose images are of one shape") from error
            return self._with({n: i[name] if isinstance(i, Image) else i for n, i in self.items()})
        return super().__getitem__(name)

    def add_image(self, image: Image, image_name: str) -> None:
        """Put an image under a name."""
        if not isinstance(image, Image):
            raise ValueError(f"image must be an Image, got {type(image).__name__}")
        self[checked_name(image_name)] = image

    def remove_image(self, image_name: str) -> None:
        """Drop an image."""
        del self[checked_name(image_name)]

    def get_image(self, image_name: str) -> Image:
        """The image of this name."""
        return self.get_images_dict(intensity_only=False)[image_name]

    def get_scalar_image(self, image_name: str) -> Image:
        """The scalar image of this name; raises TypeError for a label map."""
        return of_kind(self.get_image(image_name), ScalarImage, image_name)

    def get_label_map(self, image_name: str) -> Image:
        """The label map of this name; raises TypeError for a scalar image."""
        return of_kind(self.get_image(image_name), LabelMap, image_name)

    def get_first_image(self) -> Image:
        """The reference of spatial transforms."""
        return next(iter(self.get_images_dict(intensity_only=False).values()))

    def get_images_names(self) -> list[str]:
        """Names of the images."""
        return list(self.get_images_dict(intensity_only=False))

    def update_attributes(self) -> None:
        """Nothing: attributes and items are one store."""

    def load(self) -> None:
        """Read every image now."""
        for image in self.get_images(intensity_only=False):
            image.load()

    def unload(self) -> None:
        """Forget the voxels of every image, which are read again when they are asked for."""
        for image in self.get_images(intensity_only=False):
            image.unload()

    def read(self) -> "Subject":
        """A copy with every image read; this subject keeps nothing."""
        return self._with({n: i.read() if isinstance(i, Image) else i for n, i in self.items()})

    def owned(self, read: bool = True) -> "Subject":
        """A copy of which nothing lies in this subject's memory: what leaves to a user's code."""
        return self._with({name: own(item, read) for name, item in self.items()})

    def as_medjax(self) -> mj.Subject:
        """medjax's subject of the same voxels; see `Image.as_medjax`."""
        return mj.Subject({n: i.as_medjax() if isinstance(i, Image) else i for n, i in self.items()})

    def plot(self, return_fig: bool = False, **options: Any) -> Any:
        """Draw the middle slices of every image; see `looks.plot_subject`."""
        figure = plot_subject(self, **options)
        return figure if return_fig else None

    def _repr_html_(self) -> str:
        """A picture for notebooks; text without matplotlib."""
        return as_html(self)


class Batch(Items):
    """Several subjects: images (B, C, I, J, K), affines (B, 4, 4), metadata collated as torch does; a dictionary.

    `batch["t1"][tio.DATA]` is a tensor, `batch["t1"][tio.AFFINE]` one of float64; what does not collate is a list of B.
    """

    _histories: list[list[Any]] | None = None
    _shows: str | None = None
    """'history' or 'applied_transforms', where the batch has that of its subjects among its items, once it is ready."""

    def __init__(self, items: Any):
        self._items, self._pending = dict(items), None

    def _ready(self) -> dict[str, Any]:
        items, name = super()._ready(), self._shows
        if name is not None:
            self._shows = None  # before it is looked at again
            items[name] = [getattr(subject, name) for subject in self.unstacked()]
        return items

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.get_images(intensity_only=False)[0].data)

    def unstacked(self) -> list[Subject]:
        """The subjects; their images share the memory of the batch."""
        given = {n: item for n, item in self.items() if n not in HISTORIES}
        made = [Subject({n: element(item, i) for n, item in given.items()}) for i in range(self.batch_size)]
        for subject, records in zip(made, self._histories or (), strict=False):
            subject.applied_transforms = records
        return made


def own(item: Any, read: bool = True) -> Any:
    """An item of a subject in memory that no other has."""
    if not isinstance(item, Image):
        return item if isinstance(item, Annotation) else copy.deepcopy(item)
    if item._tensor is not None:
        return item.like(item.data.clone())
    copied = item.read() if read else item.__copy__()
    copied._named = copy.deepcopy(copied._named)
    return copied


def of_kind(image: Image, kind: type[Image], name: str) -> Image:
    """The image; raises TypeError if it is of another kind."""
    if not isinstance(image, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got a {type(image).__name__}")
    return image


def checked_name(name: Any) -> str:
    """The name of an image; raises ValueError for what is no string."""
    if not isinstance(name, str):
        raise ValueError(f"image_name must be a string, got {name!r}")
    return name


def element(item: Any, i: int) -> Any:
    """Item i of what a batch holds under a name."""
    if isinstance(item, Annotation):
        return unstack_item("", item, i)
    if isinstance(item, Image):
        header = item._source.metadata
        named = {name: values[i] for name, values in item._named.items()}
        header = header[i] if isinstance(header, tuple) else header
        return item.of(item.data[i], np.array(item.affine[i]), header, item._source.assumed, named)
    if isinstance(item, dict):
        return {name: element(value, i) for name, value in item.items()}
    return item[i].item() if isinstance(item, torch.Tensor) and item.ndim == 1 else item[i]


def stacked(subjects: Sequence[Subject], who: Sequence[str]) -> Batch:
    """A batch of subjects that agree in the names, kinds and shapes of their images.

    Raises ValueError, saying which two, where they do not.
    """
    check_names(subjects, who)
    items: dict[str, Any] = {}
    for name, first in subjects[0].items():
        values = [subject.get(name) for subject in subjects]
        if isinstance(first, Image):
            items[name] = stacked_images(values, name, who)
        elif isinstance(first, Annotation):
            items[name] = stack_annotations(values, name)
        else:
            items[name] = collated(values)
    batch = Batch(items)
    batch._histories = [subject.__dict__.get("_history", []) for subject in subjects]
    return batch


def check_names(subjects: Sequence[Subject], who: Sequence[str]) -> None:
    """Raise a ValueError, saying which two, if subjects differ in their images."""

    def kinds(subject: Subject) -> dict[str, str]:
        known = {n: i for n, i in subject.items() if i is None or isinstance(i, Image)}
        return {n: "missing" if i is None else type(i).__name__ for n, i in known.items()}

    first = kinds(subjects[0])
    for other, subject in zip(who, subjects, strict=True):
        if kinds(subject) != first:
            raise ValueError(f"{who[0]} has images {first} and {other} has {kinds(subject)}: they do not stack")


def same_shapes(subjects: Sequence[Subject]) -> bool:
    """Whether the images of subjects that are read agree in shape and device."""

    def outlines(subject: Subject) -> list[Any]:
        return [(n, i.shape, i.device) for n, i in subject.get_images_dict(intensity_only=False).items()]

    return all(outlines(subject) == outlines(subjects[0]) for subject in subjects)


def stacked_images(images: Sequence[Image], name: str, who: Sequence[str]) -> Image:
    """One image of several of one shape; on a CPU with the axes in memory as the first has them.

    Of several types the one that holds them all.
    """
    first = images[0]
    for other, image in zip(who, images, strict=True):
        if image.shape != first.shape:
            raise ValueError(
                f"{name} is {first.shape} in {who[0]} and {image.shape} in {other}: they do not stack; bring them to "
                "one shape, by CropOrPad for example"
            )
    dtype = first.dtype
    for image in images:
        dtype = torch.promote_types(dtype, image.dtype)
    tensors = [image.data.to(dtype) for image in images]
    if tensors[0].device.type == "cpu" and dtype != torch.bfloat16:
        data = torch.from_numpy(stack_arrays([tensor.detach().numpy() for tensor in tensors], name))
    else:
        data = torch.stack(tensors)
    assumed = any(image._source.assumed for image in images)
    return first.of(
        data,
        np.stack([image.affine for image in images]),
        tuple(image._source.metadata for image in images),
        assumed,
        {n: [image._named.get(n) for image in images] for n in first._named},
    )
