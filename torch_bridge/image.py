"""Images whose voxels are tensors: dictionaries, as in TorchIO, that are read when they are asked for.

Voxels have one owner: an image holds a tensor, or a path that is still to be read.
"""

import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import default_collate

import medjax as mj
from torch_bridge import files
from torch_bridge.arguments import argument_errors
from torch_bridge.constants import AFFINE, DATA, INTENSITY, LABEL, PATH, SAMPLING_MAP, STEM, TYPE
from torch_bridge.described import Described
from torch_bridge.dlpack import to_torch
from torch_bridge.looks import Looks
from torch_bridge.store import Store, blank
from torch_bridge.voxels import are_items, as_tensor, checked_affine, cut, of_items, outline

PROTECTED = (DATA, AFFINE, TYPE, PATH, STEM)


class Image(Described, Looks, Store):
    """Voxels (C, I, J, K), a tensor, and an affine (4, 4) from voxel index to world mm, RAS+; a dictionary of them.

    path: a path, or a list of paths that become the channels; read when the voxels are asked for, and by each transform
    that gets the image before.
    type: `tio.INTENSITY` makes `Image(...)` a ScalarImage, `tio.LABEL` a LabelMap, and `tio.SAMPLING_MAP` too.
    tensor: the voxels instead, a tensor or NumPy array, which is shared, or a JAX array, which is copied; a path beside
    it is kept as a name.
    affine: default the file's, or the identity.  check_nans: warn of NaN when voxels come.
    reader: `reader(path)` gives an array, or an array and an affine (None: the identity).
    verify_path: raise a FileNotFoundError at once for a path that is not there.
    Everything else is metadata: `image["protocol"]`, and a list of B in a batch.

    `.data` is a tensor that may be written to: no other image lies in its memory.  uint16, uint32 and uint64 become
    int32 and int64, with which torch can compute. JAX computes in 32 bits: int64 and float64 come back from a transform
    as they were, and labels that 32 bits would change are refused by it, while intensities come back as float32.
    Raises ValueError for voxels that are not 4D, none or complex, for a bad affine, and for files that cannot be read,
    with their path.
    """

    kind: type[mj.Image]
    check_nans = False
    _source: mj.Image
    """Affine, header and shape; the voxels while they are in a file."""
    _tensor: torch.Tensor | None
    _named: dict[str, Any]
    """The path and the user's metadata; in a batch a list of B of each."""

    def __new__(cls, path: Any = None, type: Any = None, *args: Any, **kwargs: Any) -> Any:
        return blank(by_type(type) if cls is Image else cls)

    def __init__(
        self, path: Any = None, type: Any = None, tensor: Any = None, affine: Any = None, check_nans: bool = False,
        reader: Any = None, verify_path: bool = True, **named: Any,
    ):  # fmt: skip
        if are_items(path):
            self.__dict__.update(of_items(self.__class__, path).__dict__)
            return
        if type is not None and by_type(type).kind is not self.kind:
            raise ValueError(f"type of {self.__class__.__name__} is always {self.type!r}, got {type!r}")
        if path is None and tensor is None:
            raise ValueError(f"{self.__class__.__name__} takes a path or a tensor, got neither")
        for name in PROTECTED:
            if name in named:
                raise ValueError(f"{name!r} is what an image has of its own: give the metadatum another name")
        if named.pop("channels_last", None) is not None:
            warnings.warn("channels_last is not there any more: give channels first", FutureWarning, stacklevel=2)
        paths = None if path is None else files.checked_paths(path, verify_path)
        self._named, self._tensor = {**named, PATH: paths}, None
        if check_nans:
            self.check_nans = True
        affine = None if affine is None else checked_affine(affine)
        if tensor is None:
            self._source = self.kind(
                paths, affine, reader=files.reader_of(paths) if reader is None else files.Reader(reader)
            )
        else:
            data = as_tensor(tensor)
            self._source = self.kind(outline(data.shape), affine)
            self._tensor = self._told(data)

    @classmethod
    def of(
        cls, tensor: torch.Tensor, affine: Any, header: Any = None, assumed: bool = False, named: Any = None
    ) -> Self:
        """An image of this tensor, unchecked; of a batch with (B, 4, 4) affines, B headers and lists of B named.

        assumed: whether nobody gave the affine.
        """
        image, header = blank(cls), {} if header is None else header
        image._source = cls.kind.of(outline(tensor.shape), affine, metadata=header, assumed=assumed)
        image._tensor, image._named = tensor, {PATH: None} if named is None else named
        return image

    def like(self, tensor: torch.Tensor, affine: Any = None) -> Self:
        """An image of another tensor that is in all else this one, or on another grid."""
        assumed, named = self._source.assumed and affine is None, deepcopy(self._named)
        affine = np.array(self._source.affine) if affine is None else affine
        return self.of(tensor, affine, self._source.metadata, assumed, named)

    # -- what it holds

    @property
    def data(self) -> torch.Tensor:
        """Voxels; read from the file the first time, and then kept."""
        if self._tensor is None:
            with argument_errors():
                source = self._source.stored()
            self._tensor = self._told(to_torch(source.data, copy=source._reader is not None))  # a reader may keep it
            self._source = source.replace(data=outline(source.shape), affine=np.array(source.affine))
        return self._tensor

    @data.setter
    def data(self, tensor: Any) -> None:
        self.set_data(tensor)

    @property
    def tensor(self) -> torch.Tensor:
        """Voxels, as `data`."""
        return self.data

    def set_data(self, tensor: Any) -> None:
        """Take another tensor or array (C, I, J, K) for voxels, or (B, C, I, J, K) in a batch."""
        tensor, rank = as_tensor(tensor), len(self.shape)
        if tensor.ndim != rank:
            raise ValueError(f"tensor must be {'(C, I, J, K)' if rank == 4 else '(B, C, I, J, K)'}, "
                             f"got shape {tuple(tensor.shape)}")  # fmt: skip
        _ = self.affine  # of the file, if the voxels were still there
        self._source = self._source.replace(data=outline(tensor.shape))
        self._tensor = self._told(tensor)

    def _told(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor; warns of NaN if that was asked for."""
        if self.check_nans and tensor.is_floating_point() and tensor.isnan().any():
            warnings.warn(f"NaNs found in {self.path or 'tensor'}", RuntimeWarning, stacklevel=4)
        return tensor

    @property
    def affine(self) -> np.ndarray:
        """Voxel index to world mm, (4, 4) float64."""
        return np.asarray(self._source.affine, np.float64)

    @affine.setter
    def affine(self, affine: Any) -> None:
        batched = len(self.shape) == 5
        self._source = self._source.replace(affine=np.asarray(affine) if batched else checked_affine(affine))

    @property
    def path(self) -> Any:
        """The file, or files, that the voxels came from or are to be read from; None if there is none."""
        return self._named[PATH]

    @path.setter
    def path(self, path: Any) -> None:
        self._named[PATH] = path

    @property
    def _loaded(self) -> bool:
        """Whether the voxels are in memory, as TorchIO calls it."""
        return self._tensor is not None

    @property
    def type(self) -> str:
        """`tio.INTENSITY` or `tio.LABEL`."""
        return LABEL if self.kind is mj.LabelMap else INTENSITY

    @property
    def metadata(self) -> Any:
        """What the file and the user said of the image, in a dictionary; in a batch a tuple of B of them."""
        named = {n: v for n, v in self._named.items() if n != PATH}
        header: Any = self._source.metadata
        if isinstance(header, tuple):
            return tuple({**one, **{n: values[i] for n, values in named.items()}} for i, one in enumerate(header))
        return {**header, **named}

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K), without reading voxels."""
        return self._source.shape

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

    def numpy(self) -> np.ndarray:
        """Voxels as an array on the host, which shares the memory of a tensor on a CPU."""
        return self.data.detach().cpu().numpy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    # -- as a dictionary

    def keys(self) -> Any:
        """'data', 'affine', names of the user's metadata, 'path', 'stem' and 'type'."""
        return dict.fromkeys((DATA, AFFINE, *(n for n in self._named if n != PATH), PATH, STEM, TYPE)).keys()

    def __getitem__(self, name: Any) -> Any:
        """`image[tio.DATA]`, `image[tio.AFFINE]`, 'path', 'stem', 'type', a metadatum; numbers and slices: a box."""
        if not isinstance(name, str):
            return cut(self, name)
        if name == DATA:
            return self.data
        if name == AFFINE:
            return torch.from_numpy(self.affine)
        if name in (PATH, STEM, TYPE):
            each = {PATH: files.path_text, STEM: files.stem, TYPE: lambda _: self.type}[name]
            return [each(path) for path in self.path] if len(self.shape) == 5 else each(self.path)
        if name in self._named:
            return collated(self._named[name]) if len(self.shape) == 5 else self._named[name]
        if len(self.shape) == 4 and name in self._source.metadata:
            return self._source.metadata[name]
        raise KeyError(f"{self.__class__.__name__} has no {name!r}; it has {', '.join(self.keys())}")

    def __setitem__(self, name: str, value: Any) -> None:
        if name == DATA:
            self.set_data(value)
        elif name == AFFINE:
            self.affine = value
        elif name == PATH:
            self.path = value
        elif name not in (STEM, TYPE):
            several = len(self.shape) == 5
            fits = several and hasattr(value, "__len__") and len(value) == self.shape[0]
            self._named[name] = list(value) if fits else [value] * self.shape[0] if several else value

    def __delitem__(self, name: str) -> None:
        if name in PROTECTED:
            raise KeyError(f"{name!r} is what an image is made of: it can be set, and not taken away")
        del self._named[name]

    def __len__(self) -> int:
        return len(self.keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    # -- copies, elsewhere and in other forms

    def load(self) -> None:
        """Read the voxels now."""
        _ = self.data

    def unload(self) -> None:
        """Forget the voxels, which are read again when they are asked for.

        Raises RuntimeError for an image that is not loaded, or came from no file.
        """
        if self._tensor is None:
            raise RuntimeError("the image is not loaded, so that it cannot be unloaded")
        if self.path is None:
            raise RuntimeError("the image came from no file that it could be read from again, so it stays loaded")
        reader = self._source._reader or files.reader_of(self.path)
        self._source, self._tensor = self.kind(self.path, reader=reader), None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """A copy elsewhere, or of another type; as `torch.Tensor.to`."""
        return self.like(self.data.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """A copy in pinned memory, where there is a GPU to copy it to."""
        if not torch.cuda.is_available() or self.data.is_cuda:
            return self
        return self.like(self.data.pin_memory())

    def read(self) -> Self:
        """A copy whose voxels are a tensor: read if they are in a file, else shared. This image keeps nothing."""
        copied = self.__copy__()
        copied.load()
        return copied

    def as_medjax(self) -> mj.Image:
        """medjax's image of the same voxels, in NumPy's hands, or still in their file; touches no JAX."""
        if self._tensor is None:
            return self._source.replace(metadata=self.metadata)
        tensor = self._tensor.detach().cpu()
        data = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
        return self.kind.of(data, self.affine, metadata=self.metadata, assumed=self._source.assumed)

    def save(self, path: str | Path, squeeze: bool | None = None) -> None:
        """Write a file, whole or not at all; what its header said is written back where it still holds.

        squeeze: whether axes of length 1 are left out; None for pictures alone (PNG, JPEG, BMP, TIFF).
        """
        files.write(self.read().as_medjax(), Path(path), squeeze)

    def to_nibabel(self) -> Any:
        """A nibabel image."""
        return self.read().as_medjax().to_nibabel()

    def as_sitk(self, force_3d: bool = False) -> Any:
        """A SimpleITK image, in LPS; of two dimensions if there is one slice, unless `force_3d`."""
        return files.nib_to_sitk(self.data, self.affine, force_3d)

    @classmethod
    def from_sitk(cls, sitk_image: Any) -> Self:
        """The image of one of SimpleITK; its components, or its fourth axis, become channels."""
        tensor, affine = files.sitk_to_nib(sitk_image)
        return cls(tensor=tensor, affine=affine)

    def __repr__(self) -> str:
        if len(self.shape) == 5:
            return f"{self.__class__.__name__}(shape: {self.shape}, dtype: {self.dtype})"
        dtype = self._source.dtype if self._tensor is None else self._tensor.dtype
        where = "" if self.path is None else f", path: {self.path}"
        where += f", memory: {self.memory / 2**20:.1f} MiB" if self._loaded else ""
        text = f"shape: {self.shape}, spacing: {self.get_spacing_string()}, {self.orientation_str}, dtype: {dtype}"
        return f"{self.__class__.__name__}({text}{where})"

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
        """An image of the same voxels, whose affine and metadata may be set."""
        copied = blank(type(self))
        copied.__dict__.update({**self.__dict__, "_named": dict(self._named)})
        return copied


class ScalarImage(Image):
    """An image of intensities: interpolated, and changed by intensity transforms. See `Image`."""

    kind = mj.ScalarImage


class LabelMap(Image):
    """An image of labels: never interpolated into values that are not there. See `Image`."""

    kind = mj.LabelMap

    def count_nonzero(self) -> int:
        """How many voxels are not 0."""
        return int(self.data.count_nonzero())

    def count_labels(self) -> dict[int, int]:
        """How many voxels each label has."""
        labels, counts = self.data.unique(return_counts=True)
        return dict(zip(labels.tolist(), counts.tolist(), strict=True))


KINDS: dict[type[mj.Image], type[Image]] = {mj.ScalarImage: ScalarImage, mj.LabelMap: LabelMap}


def by_type(name: Any) -> type[Image]:
    """The class of images of a type; a map that is sampled from is none of intensities."""
    if name is None:
        warnings.warn("an Image without a type is taken for one of intensities: use tio.ScalarImage or tio.LabelMap",
                      FutureWarning, stacklevel=4)  # fmt: skip
        return ScalarImage
    found = {INTENSITY: ScalarImage, LABEL: LabelMap, SAMPLING_MAP: LabelMap}.get(name)
    if found is None:
        raise ValueError(f"type={name!r} is not one of {INTENSITY!r}, {LABEL!r}, {SAMPLING_MAP!r}")
    return found


def collated(values: list[Any]) -> Any:
    """Metadata of a batch: as torch collates them, or the list where it does not."""
    try:
        return default_collate(values)
    except (TypeError, RuntimeError, KeyError, ValueError):
        return values
