"""Images, subjects and batches whose voxels are tensors, and the way to medjax's and back.

Voxels have one owner: an image holds a tensor, or a path that is still to be read. A subject or a batch may be pending:
read, and not transformed yet. It is transformed by whoever first looks at what it holds, which in a data loader is the
parent process (see `dataset.py`). So nothing here may look inside without need, and neither is a Mapping: a collate
function would.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import torch
from torch.utils.data import default_collate

import medjax as mj
from medjax import geometry
from medjax.annotations import Annotation
from medjax.io import native
from medjax.subject import stack_annotations, stack_arrays, unstack_item
from torch_bridge.dlpack import Owners, lent, restored, to_torch

DATA, AFFINE, LOCATION, PATH, TYPE = mj.DATA, "affine", mj.LOCATION, "path", "type"
WHERE_COMPUTED = "where JAX computed it"
"""Instead of a device: results stay where they are."""
NOTHING = np.zeros((), np.uint8)


class Image:
    """Voxels (C, I, J, K), a tensor, and an affine (4, 4) from voxel index to world mm, RAS+; abstract.

    path: a path, or a list of paths that become the channels; read when the voxels are asked for, and by each transform
    that gets the image before.  tensor: the voxels instead, a tensor or NumPy array, which is shared, or a JAX array,
    which is copied.
    affine: default the file's, or the identity.  reader: `reader(path)` gives an array, or an array and an affine.
    Everything else is metadata.

    `.data` is a tensor that may be written to: no other image lies in its memory.  uint16, uint32 and uint64 become
    int32 and int64, with which torch can compute. JAX computes in 32 bits: int64 and float64 come back from a transform
    as they were, and labels that 32 bits would change are refused by it, while intensities come back as float32.
    Raises ValueError for voxels that are not 4D, none or complex, for a bad affine, and for files that cannot be read,
    with their path.
    """

    kind: type[mj.Image]
    path: Path | list[Path] | None = None
    """The file, or files, that the voxels came from or are to be read from."""
    _source: mj.Image
    _tensor: torch.Tensor | None

    def __init__(
        self, path: Any = None, *, tensor: Any = None, affine: Any = None, reader: Any = None, **metadata: Any
    ):
        if not hasattr(self, "kind"):
            raise TypeError("Image is abstract: use ScalarImage for intensities or LabelMap for labels")
        if (path is None) == (tensor is None):
            raise ValueError(f"{type(self).__name__} takes a path or a tensor, and not both")
        affine = np.asarray(affine, np.float64) if affine is not None else None
        if path is not None:
            self._source, self._tensor = self.kind(path, affine, reader=reader, **metadata), None
            self.path = self._source.path
            return
        if not isinstance(tensor, torch.Tensor):
            of_jax = isinstance(tensor, jax.Array)  # never shared: nobody may write to it
            tensor = to_torch(tensor if of_jax else native(np.asarray(tensor), "tensor"), copy=of_jax)
        self._source = self.kind(outline(checked(tensor).shape), affine, **metadata)
        self._tensor = tensor

    @classmethod
    def of(cls, tensor: torch.Tensor, affine: Any, metadata: Any = None, assumed: bool = False) -> Self:
        """An image of this tensor, unchecked; of a batch with (B, 4, 4) affines and a tuple of metadata.

        assumed: whether nobody gave the affine.
        """
        image, metadata = object.__new__(cls), {} if metadata is None else metadata
        image._source = cls.kind.of(outline(tensor.shape), affine, metadata=metadata, assumed=assumed)
        image._tensor = tensor
        return image

    # -- what it holds

    @property
    def data(self) -> torch.Tensor:
        """Voxels; read from the file the first time, and then kept."""
        if self._tensor is None:
            source = self._source.stored()
            self._tensor = to_torch(source.data, copy=source._reader is not None)  # a reader may keep its array
            self._source = source.replace(data=outline(source.shape))
        return self._tensor

    def set_data(self, tensor: torch.Tensor) -> None:
        """Take another tensor (C, I, J, K) for voxels."""
        if tensor.ndim != 4:
            raise ValueError(f"tensor must be (C, I, J, K), got shape {tuple(tensor.shape)}")
        _ = self.affine  # of the file, if the voxels were still there
        self._source = self._source.replace(data=outline(checked(tensor).shape))
        self._tensor = tensor

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world mm, (4, 4) float64."""
        return np.asarray(self._source.affine, np.float64)

    @property
    def metadata(self) -> Any:
        """What the file and the user said of the image."""
        return self._source.metadata

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K), without reading voxels."""
        return self._source.shape

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """(I, J, K), without reading voxels."""
        return self._source.spatial_shape

    @property
    def num_channels(self) -> int:
        """C."""
        return self.shape[-4]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the voxels."""
        return self.data.dtype

    @property
    def device(self) -> torch.device:
        """Where the voxels are; the CPU while they are in a file."""
        return torch.device("cpu") if self._tensor is None else self._tensor.device

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm."""
        return self._source.spacing

    @property
    def origin(self) -> tuple[float, float, float]:
        """World position of the centre of the first voxel, mm."""
        return self._source.origin

    @property
    def direction(self) -> tuple[float, ...]:
        """Unit vectors of the voxel axes as the columns of a matrix, nine numbers row by row."""
        return tuple(float(v) for v in np.ravel(self._source.direction))

    @property
    def orientation(self) -> tuple[str, str, str]:
        """Directions in which the voxel axes run, as ('R', 'A', 'S')."""
        return geometry.orientation(self.affine)

    @property
    def bounds(self) -> np.ndarray:
        """World positions of the centres of the first and of the last voxel, (2, 3), mm."""
        return self._source.bounds

    def get_center(self) -> tuple[float, float, float]:
        """World position of the middle of the grid, mm."""
        return self._source.center

    def numpy(self) -> np.ndarray:
        """Voxels as an array on the host, which shares the memory of a tensor on a CPU."""
        return self.data.detach().cpu().numpy()

    def __getitem__(self, name: str) -> Any:
        """`image[tio.DATA]`, `image[tio.AFFINE]`, 'path', 'type' or a metadatum."""
        if name == DATA:
            return self.data
        if name == AFFINE:
            return torch.from_numpy(self.affine)
        if name == PATH:
            return self.path
        if name == TYPE:
            return "label" if self.kind is mj.LabelMap else "intensity"
        return self.metadata[name]

    def load(self) -> None:
        """Read the voxels now."""
        _ = self.data

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """A copy elsewhere, or of another type; as `torch.Tensor.to`."""
        return self.of(self.data.to(*args, **kwargs), self._source.affine, self.metadata, self._source.assumed)

    def pin_memory(self) -> Self:
        """A copy in pinned memory, where there is a GPU to copy it to."""
        if not torch.cuda.is_available() or self.data.is_cuda:
            return self
        return self.of(self.data.pin_memory(), self._source.affine, self.metadata, self._source.assumed)

    # -- other forms

    def read(self) -> Self:
        """A copy whose voxels are a tensor: read if they are in a file, else shared. This image keeps nothing."""
        copied = copy(self)
        copied.load()
        return copied

    def as_medjax(self) -> mj.Image:
        """medjax's image of the same voxels, in NumPy's hands, or still in their file; touches no JAX."""
        if self._tensor is None:
            return self._source
        tensor = self._tensor.detach().cpu()
        data = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        return self.kind.of(data, self.affine, metadata=self.metadata, assumed=self._source.assumed)

    def save(self, path: str | Path) -> None:
        """Write a file, whole or not at all; what its header said is written back where it still holds."""
        self.read().as_medjax().save(path)

    def to_nibabel(self) -> Any:
        """A nibabel image."""
        return self.read().as_medjax().to_nibabel()

    def as_sitk(self) -> Any:
        """A SimpleITK image, in LPS."""
        return self.read().as_medjax().to_sitk()

    def __repr__(self) -> str:
        if len(self.shape) == 5:
            return f"{type(self).__name__}(shape: {self.shape}, dtype: {self.dtype})"
        dtype = self._source.dtype if self._tensor is None else self._tensor.dtype
        spacing = ", ".join(f"{s:.2f}" for s in self.spacing)
        where = "" if self.path is None else f", path: {self.path}"
        text = f"shape: {self.shape}, spacing: ({spacing}), {''.join(self.orientation)}, dtype: {dtype}"
        return f"{type(self).__name__}({text}{where})"

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the tensor, or the path; not the outline beside a tensor, which would be written out."""
        if self._tensor is None:
            return self.__dict__
        source = self._source
        return {**self.__dict__, "_source": (source.affine, source.metadata, source.assumed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._tensor is not None:
            affine, metadata, assumed = state["_source"]
            self._source = self.kind.of(outline(self._tensor.shape), affine, metadata=metadata, assumed=assumed)

    def __copy__(self) -> Self:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied


class ScalarImage(Image):
    """An image of intensities: interpolated, and changed by intensity transforms. See `Image`."""

    kind = mj.ScalarImage


class LabelMap(Image):
    """An image of labels: never interpolated into values that are not there. See `Image`."""

    kind = mj.LabelMap


KINDS: dict[type[mj.Image], type[Image]] = {mj.ScalarImage: ScalarImage, mj.LabelMap: LabelMap}


def outline(shape: Sequence[int]) -> np.ndarray:
    """An array of this shape that takes no memory: it stands where a tensor holds the voxels."""
    return np.broadcast_to(NOTHING, tuple(shape))


def checked(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; raises ValueError for one that holds no voxels."""
    if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
        raise ValueError(f"tensor must hold real numbers, densely, got {tensor.dtype} ({tensor.layout})")
    return tensor


class Items:
    """Abstract. Named items, by attribute and by item, that may be pending: the first look at them transforms."""

    _items: dict[str, Any]
    _pending: Any

    def _ready(self) -> dict[str, Any]:
        """The items, transformed if that is due."""
        if self._pending is not None:
            items = self._pending.resolve(self)
            self._items, self._pending = items, None
        return self._items

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        items = self._ready()
        if name not in items:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(items)}")
        return items[name]

    def __getitem__(self, name: str) -> Any:
        items = self._ready()
        if name not in items:
            raise KeyError(f"{type(self).__name__} has no {name!r}; it has {', '.join(items)}")
        return items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._ready()

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

    def get(self, name: str, default: Any = None) -> Any:
        """The item of this name, or a default."""
        return self._ready().get(name, default)

    def get_images_dict(self) -> dict[str, Any]:
        """The images by name, in order."""
        return {name: item for name, item in self._ready().items() if isinstance(item, Image)}

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
        made = object.__new__(type(self))
        made.__setstate__((items, None))
        return made

    def __getstate__(self) -> Any:
        return self._items, self._pending

    def __setstate__(self, state: Any) -> None:
        object.__setattr__(self, "_items", state[0])
        object.__setattr__(self, "_pending", state[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(" + ", ".join(f"{name}={item!r}" for name, item in self.items()) + ")"


class Subject(Items):
    """Named images and free metadata of one person: `Subject(t1=ScalarImage("t1.nii.gz"), age=45)`.

    Items are reached and set as attributes and as items, which are one store. None stands for a missing image.
    """

    def __init__(self, mapping: Mapping[str, Any] | None = None, /, **items: Any):
        items = {**(mapping or {}), **items}
        for name in items:
            if not isinstance(name, str):
                raise TypeError(f"names of a subject's items are strings, got {name!r}")
        self.__setstate__((items, None))

    def __setitem__(self, name: str, item: Any) -> None:
        self._ready()[name] = item

    def __setattr__(self, name: str, item: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, item)
        else:
            self[name] = item

    def add_image(self, image: Image, image_name: str) -> None:
        """Put an image under a name."""
        self[image_name] = image

    def remove_image(self, image_name: str) -> None:
        """Drop an image."""
        del self._ready()[image_name]

    def get_first_image(self) -> Image:
        """The reference of spatial transforms."""
        return next(iter(self.get_images_dict().values()))

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K) of the first image."""
        return self.get_first_image().shape

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """(I, J, K) of the first image."""
        return self.get_first_image().spatial_shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of the first image, mm."""
        return self.get_first_image().spacing

    def load(self) -> None:
        """Read every image now."""
        for image in self.get_images_dict().values():
            image.load()

    def read(self) -> "Subject":
        """A copy with every image read; this subject keeps nothing."""
        return self._with({n: i.read() if isinstance(i, Image) else i for n, i in self.items()})

    def as_medjax(self) -> mj.Subject:
        """medjax's subject of the same voxels; see `Image.as_medjax`."""
        return mj.Subject({n: i.as_medjax() if isinstance(i, Image) else i for n, i in self.items()})

    def plot(self, **options: Any) -> Any:
        """Draw the middle slices of every image; see `medjax.plot_subject`."""
        return self.read().as_medjax().plot(**options)


class Batch(Items):
    """Several subjects: images (B, C, I, J, K), affines (B, 4, 4), metadata collated as torch does.

    `batch["t1"][tio.DATA]` is a tensor, `batch["t1"][tio.AFFINE]` one of float64; what does not collate is a list of B.
    """

    def __init__(self, items: dict[str, Any]):
        self.__setstate__((items, None))

    @property
    def batch_size(self) -> int:
        """B."""
        return len(next(iter(self.get_images_dict().values())).data)

    def unstacked(self) -> list[Subject]:
        """The subjects; their images share the memory of the batch."""
        return [Subject({n: element(item, i) for n, item in self.items()}) for i in range(self.batch_size)]


def element(item: Any, i: int) -> Any:
    """Item i of what a batch holds under a name."""
    if isinstance(item, Annotation):
        return unstack_item("", item, i)
    if not isinstance(item, Image):
        return item[i].item() if isinstance(item, torch.Tensor) and item.ndim == 1 else item[i]
    metadata = item.metadata
    metadata = metadata[i] if isinstance(metadata, tuple) else metadata
    return item.of(item.data[i], item.affine[i], metadata, item._source.assumed)


def stacked(subjects: Sequence[Subject], who: Sequence[str]) -> Batch:
    """A batch of subjects that agree in the names, kinds, types and shapes of their images.

    Raises ValueError, saying which two, where they do not.
    """
    check_names(subjects, who)
    items: dict[str, Any] = {}
    for name, first in subjects[0].items():
        if isinstance(first, Image):
            for other, subject in zip(who, subjects, strict=True):
                mine = subject[name]
                if mine.shape != first.shape or mine.dtype != first.dtype:
                    raise ValueError(
                        f"{name} is {first.dtype} {first.shape} in {who[0]} and {mine.dtype} {mine.shape} in {other}: "
                        "they do not stack; bring them to one shape, by CropOrPad for example"
                    )
            items[name] = stacked_images([subject[name] for subject in subjects], name)
        elif isinstance(first, Annotation):
            items[name] = stack_annotations([subject[name] for subject in subjects], name)
        else:
            items[name] = collated([subject.get(name) for subject in subjects])
    return Batch(items)


def check_names(subjects: Sequence[Subject], who: Sequence[str]) -> None:
    """Raise a ValueError, saying which two, if subjects differ in their images."""

    def kinds(subject: Subject) -> dict[str, str]:
        return {n: "missing" if i is None else type(i).__name__ for n, i in subject.items() if i is None or is_image(i)}

    first = kinds(subjects[0])
    for other, subject in zip(who, subjects, strict=True):
        if kinds(subject) != first:
            raise ValueError(f"{who[0]} has images {first} and {other} has {kinds(subject)}: they do not stack")


def is_image(item: Any) -> bool:
    """Whether an item of a subject is an image."""
    return isinstance(item, Image)


def same_shapes(subjects: Sequence[Subject]) -> bool:
    """Whether the images of subjects that are read agree in shape, type and device."""

    def outlines(subject: Subject) -> list[Any]:
        return [(n, i.shape, i.data.dtype, i.device) for n, i in subject.get_images_dict().items()]

    return all(outlines(subject) == outlines(subjects[0]) for subject in subjects)


def stacked_images(images: Sequence[Image], name: str) -> Image:
    """One image of several of one shape; on a CPU with the axes in memory as the first has them."""
    tensors = [image.data for image in images]
    if tensors[0].device.type == "cpu" and tensors[0].dtype != torch.bfloat16:
        data = torch.from_numpy(stack_arrays([tensor.detach().numpy() for tensor in tensors], name))
    else:
        data = torch.stack(tensors)
    affine = np.stack([image.affine for image in images])
    assumed = any(image._source.assumed for image in images)
    return images[0].of(data, affine, tuple(image.metadata for image in images), assumed)


def collated(values: list[Any]) -> Any:
    """Metadata of a batch: as torch collates them, or the list where it does not."""
    try:
        return default_collate(values)
    except (TypeError, RuntimeError, KeyError, ValueError):
        return values


# -- to medjax and back


def to_medjax(x: Any, labels: Collection[str] = ()) -> tuple[Any, Callable[..., Any]]:
    """`x` as medjax takes it, and the way back: `back(result, device)`.

    Images, subjects and batches of the bridge, subjects of an installed torchio, tensors (C, I, J, K), NumPy arrays and
    dictionaries of them become medjax's; medjax's own and JAX arrays pass. Voxels are lent, not copied, and come back
    in memory of their own, on the device and in the type that they had; `device` is another one, or `WHERE_COMPUTED`.
    labels: which entries of a dictionary are labels.
    """
    if isinstance(x, Items):
        return subject_to_medjax(x)
    if isinstance(x, Image):
        inner, back = subject_to_medjax(Subject(image=x))
        return inner["image"], lambda result, device=None: back(mj.Subject(image=result), device)["image"]
    if isinstance(x, torch.Tensor):
        return lent_tensor(x, False)
    if isinstance(x, np.ndarray):
        return x, lambda result, device=None: np.array(result)
    if isinstance(x, dict) and any(isinstance(v, (torch.Tensor, np.ndarray)) for v in x.values()):
        parts = {
            name: lent_tensor(value, name in labels) if isinstance(value, torch.Tensor) else to_medjax(value)
            for name, value in x.items()
        }
        inner = {name: part[0] for name, part in parts.items()}
        return inner, lambda result, device=None: {
            n: parts[n][1](v, device) if n in parts else to_torch(v, copy=True) for n, v in result.items()
        }
    if type(x).__module__.partition(".")[0] == "torchio":
        return to_medjax(from_torchio(x))
    return x, lambda result, device=None: result


def lent_tensor(x: torch.Tensor, labels: bool) -> tuple[Any, Callable[..., Any]]:
    """`to_medjax` of a tensor, of labels or of intensities."""
    owners = Owners([x])
    return lent(x, labels), lambda result, device=None: placed(result, x.dtype, device or x.device, owners)


def subject_to_medjax(x: Items) -> tuple[mj.Subject, Callable[..., Any]]:
    """`to_medjax` of a subject or batch."""
    given = dict(x.items())
    images = {n: i.read() for n, i in given.items() if isinstance(i, Image)}
    lend = {n: lent_image(i) for n, i in images.items()}
    # What was read for this call belongs to nobody else.
    held = [item.data for item in given.values() if isinstance(item, Image) and item._tensor is not None]

    def back(result: mj.Subject, device: Any = None) -> Any:
        owners = Owners(held)
        items: dict[str, Any] = dict.fromkeys(given)  # in the order in which they came
        for name, item in result.items():
            if isinstance(item, mj.Image):
                was = images.get(name)
                where = device or (images.get(name) or next(iter(images.values()))).device
                data = placed(item.data, None if was is None else was.data.dtype, where, owners)
                items[name] = KINDS[type(item)].of(data, item.affine, item.metadata)
            else:
                items[name] = item
        return x._with(items)

    return mj.Subject({n: lend.get(n, item) for n, item in given.items()}), back


def lent_image(image: Image) -> mj.Image:
    """medjax's image of voxels that are read, for a call that waits for its result."""
    data = lent(image.data, image.kind is mj.LabelMap)
    return image.kind.of(data, image.affine, metadata=image.metadata, assumed=image._source.assumed)


def placed(array: Any, dtype: torch.dtype | None, device: Any, owners: Owners) -> torch.Tensor:
    """A result as a tensor on a device, in the type of what it was made of, in memory of its own."""
    tensor = restored(to_torch(array), dtype)
    if device != WHERE_COMPUTED:
        tensor = tensor.to(device)
    return owners.own(tensor)


def from_torchio(subject: Any) -> Any:
    """A subject or image of torchio as one of the bridge; its tensors are shared, its files read when asked for."""
    if hasattr(subject, "get_images_dict"):
        images = subject.get_images_dict(intensity_only=False)
        return Subject({n: from_torchio(item) if n in images else item for n, item in subject.items()})
    cls = ScalarImage if subject["type"] == "intensity" else LabelMap
    if subject.path is not None and not getattr(subject, "_loaded", True):
        return cls(subject.path)
    return cls(tensor=subject.data, affine=subject.affine)
