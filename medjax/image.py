"""Images: immutable pytrees of voxels and an affine, with metadata that is carried beside them."""

from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from medjax import geometry, io
from medjax.arguments import function_of, maybe, sizes, text, wholes
from medjax.errors import one_of
from medjax.metadata import leading_axes, register_image
from medjax.ops.statistics import extent_mask
from medjax.typing import Affine, Index, Shape3, Tracer, Voxels
from medjax.voxels import ElementVoxels, admitted, wide


class Image:
    """Voxels (C, I, J, K) and an affine (4, 4) from voxel index to world mm, RAS+; abstract.

    `source` is a path, a list of paths (one after the other they become the channels), an array, a nibabel image or
    a SimpleITK image. A folder, a DICOMDIR or a list of DICOM files holds a DICOM series; of several, `series` chooses
    one by its UID (`medjax.dicom_series` lists them). From a path the image is lazy: shape, affine and dtype come from
    the header, voxels are read when first asked for, and it pickles as its path. A 4D series has time on C. `affine`
    defaults to the file's, or to the identity. `reader(path)` gives what `source` may be but for a path, or a pair of
    that and an affine (None: the identity). Everything else is metadata.

    Arrays may be traced, and the affine too. They are not copied, but for their byte order and for what follows, and
    must not be written to afterwards. JAX computes in 32 bits unless jax_enable_x64 is set: int64 becomes int32 and
    uint64 uint32 when it is given or read. Where a number does not fit, a ScalarImage becomes float32 and a LabelMap is
    refused. float64 stays and is rounded to float32 where JAX computes; a LabelMap with a whole number that this would
    change, beyond 2^24, is refused.
    Raises ValueError for voxels that are not 4D or none, complex numbers, records (colours of nibabel's images are
    channels) and objects, for an affine that is singular, not finite or not (4, 4), and for files that cannot be read
    (with their path).
    """

    __slots__ = (
        "_affine", "_assumed", "_data", "_extent", "_full", "_metadata", "_offset", "_paths", "_reader", "_series",
    )  # fmt: skip
    _affine: Any
    _assumed: bool
    _data: Any
    _extent: Any
    _full: Any
    _metadata: dict[str, Any]
    _offset: Any
    _paths: tuple[Path, ...]
    _reader: Any
    _series: str | None

    is_label: ClassVar[bool]
    """Whether its voxels are labels."""

    def __init__(
        self, source: Any, affine: Any = None, *, reader: Any = None, series: str | None = None, **metadata: Any
    ):
        if type(self) is Image:
            raise TypeError("Image is abstract: use ScalarImage for intensities or LabelMap for labels")
        maybe(function_of)("reader", reader), maybe(text)("series", series)
        data, paths, assumed = None, (), False
        if isinstance(source, (str, Path)):
            paths = (Path(source),)
        elif isinstance(source, (list, tuple)) and source and all(isinstance(s, (str, Path)) for s in source):
            paths = tuple(Path(s) for s in source)
        else:
            of_jax = isinstance(source, jax.Array)  # on a device, or traced: left as it is
            data, found, header = (source, None, {}) if of_jax else io.from_object(source)
            affine = found if affine is None else affine
            metadata = {**header, **metadata}
            if data.ndim != 4:
                raise ValueError(f"source must be an array (C, I, J, K), got shape {data.shape}")
            data, assumed = admitted(data, "source", labels=self.is_label), affine is None
            affine = np.eye(4) if assumed else affine
        if series is not None and (reader is not None or not paths):
            raise ValueError("series chooses among the DICOM series of a path, so it goes with no array and no reader")
        affine = None if affine is None else geometry.check_affine(affine)
        self._fill(data, affine, metadata=metadata, paths=paths, reader=reader, series=series, assumed=assumed)

    def _fill(
        self, data, affine, extent=None, offset=None, full=None, metadata=None, paths=(), reader=None, series=None,
        assumed=False,
    ):  # fmt: skip
        for name, value in (
            ("_data", data), ("_affine", affine), ("_extent", extent), ("_offset", offset), ("_full", full),
            ("_metadata", metadata or {}), ("_paths", paths), ("_reader", reader), ("_series", series),
            ("_assumed", assumed),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, data: Any, affine: Any, extent: Any = None, offset: Any = None, full: Any = None, **rest: Any) -> Self:
        """An image of these leaves, unchecked: arrays may be traced or batched."""
        image = object.__new__(cls)
        image._fill(data, affine, extent, offset, full, **rest)
        return image

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"images are immutable: use image.replace({name}=...)")

    def replace(self, **changes: Any) -> Self:
        """A copy with other `data`, `affine`, `extent`, `offset`, `full` or `metadata`.

        Raises ValueError for `data` that no image takes; see `Image`.
        """
        for name in changes:
            one_of("field", name, ("data", "affine", "extent", "offset", "full", "metadata"))
        data = changes.get("data")
        if data is not None and not isinstance(data, (ElementVoxels, jax.ShapeDtypeStruct)):
            data = data if isinstance(data, (np.ndarray, jax.Array)) else np.asarray(data)
            changes["data"] = admitted(data, "data", labels=self.is_label)
        fields = {
            name: getattr(self, "_" + name) for name in ("data", "affine", "extent", "offset", "full", "metadata")
        }
        lazy = {} if "data" in changes else {"paths": self._paths, "reader": self._reader, "series": self._series}
        return type(self).of(**{**fields, **changes}, **lazy, assumed=self._assumed and "affine" not in changes)

    # -- reading

    def stored(self) -> Self:
        """A copy whose voxels are read, in the type in which they are stored, of 64 bits too; this keeps nothing."""
        if self._data is not None:
            return self
        if self._reader is None:
            data, (_, found, _, known) = io.read_channels(self._paths, self._series)
        else:
            (data, found), known = io.read_with(self._reader, self._paths), {}
        assumed = self._affine is None and found is None
        affine = np.eye(4) if assumed else found if self._affine is None else self._affine
        return self.filled(data, affine, {**known, **self._metadata}, assumed)

    def filled(self, data: Any, affine: Any, metadata: dict[str, Any], assumed: bool) -> Self:
        """A copy of these leaves, unchecked, as if they had been read from its files."""
        files = {"paths": self._paths, "reader": self._reader, "series": self._series}
        return self.of(data, affine, metadata=metadata, assumed=assumed, **files)

    def _header(self) -> io.Header:
        header = io.read_channels_header(self._paths, self._series)
        if self._affine is None:
            object.__setattr__(self, "_affine", header.affine)
        return header

    def _held(self) -> Any:
        """The voxels as they are held; read and kept first, if they are in a file."""
        if self._data is not None or not self._paths:
            return self._data
        image = self.stored()
        data = admitted(image._data, self._sources(), labels=self.is_label)
        self._fill(
            data, image._affine, metadata=image._metadata, paths=self._paths, reader=self._reader,
            series=self._series, assumed=image._assumed,
        )  # fmt: skip
        return data

    def _sources(self) -> str:
        """The paths, for an error."""
        return ", ".join(map(str, self._paths))

    def _told_by_header(self) -> bool:
        """Whether the voxels are in a file, unread, whose header says what they are."""
        return self._data is None and bool(self._paths) and self._reader is None

    def load(self) -> Self:
        """A copy whose voxels are read; this image keeps nothing."""
        if self._data is not None:
            return self
        image = self.replace()
        image._held()
        return image

    def box(self, start: Any, shape: Any) -> Self:
        """The box of `shape` voxels that begins at voxel `start`, an image of its own; this one keeps no voxels.

        Of a file no more than needed is read: of an uncompressed NIfTI, MGH or Analyze file the voxels of the box, of a
        compressed one what comes before its last voxel (so no checksum is compared); other formats are read whole.
        Raises ValueError for a box that is not all inside the image, for batches and for padded images.

        >>> patch = mj.ScalarImage("ct.nii").box((100, 120, 40), (96, 96, 96))
        """
        first, size = wholes(low=0)("start", start), sizes("shape", shape)
        if self.leading or self._extent is not None:
            raise ValueError("a box is cut from one image, neither from a batch nor from what is padded")
        if any(a + n > whole for a, n, whole in zip(first, size, self.spatial_shape, strict=True)):
            raise ValueError(f"the box of start={first}, shape={size} is not inside the image of {self.spatial_shape}")
        if self._told_by_header():
            data, header = io.read_channels_box(self._paths, first, size, self._series)
            data, known = admitted(data, self._sources(), labels=self.is_label), header.metadata
        else:
            data, known = io.cut(self.load().data, first, size), {}
        affine = geometry.matmul(self.affine, geometry.translation(np.asarray(first, np.float64)))
        return self.of(data, affine, metadata={**known, **self._metadata}, assumed=self._assumed)

    # -- what it holds

    @property
    def data(self) -> Voxels:
        """Voxels, (C, I, J, K), or (B, C, I, J, K) in a batch; read from the file the first time."""
        held = self._held()
        return held.read() if isinstance(held, ElementVoxels) else held

    @property
    def affine(self) -> Affine:
        """Voxel index to world mm, (4, 4); float64 on the host."""
        if self._affine is None and self._told_by_header():
            return self._header().affine
        if self._affine is None:
            self._held()
        return self._affine

    @property
    def assumed(self) -> bool:
        """Whether the affine is the identity because nobody gave one; known once the voxels are, with a reader."""
        return self._assumed

    @property
    def extent(self) -> Index | None:
        """How many voxels of each axis are real, (3,), if the image is padded at the high end; else None."""
        return self._extent

    @property
    def offset(self) -> Index | None:
        """Index of the first voxel in the whole grid, (3,), if the image is a box; else None."""
        return self._offset

    @property
    def full(self) -> Index | None:
        """Shape of the whole grid, (3,), if the image is a box; else None."""
        return self._full

    @property
    def size(self) -> Index:
        """How many voxels of each axis are real, (3,) int32: the extent, or the shape of what is not padded."""
        if self._extent is not None:
            return self._extent
        shape = self.spatial_shape
        xp = np if all(isinstance(n, int) for n in shape) else jnp  # an exported program may leave the shape open
        return xp.asarray(shape, np.int32)

    @property
    def real(self) -> Bool[Array, "1 I J K"] | None:
        """Which voxels are real; None if all are."""
        return None if self._extent is None else extent_mask(self.spatial_shape, self._extent)[None]

    @property
    def origin_in_whole(self) -> Index | Shape3:
        """Index of the first voxel in the whole grid, (3,): the offset of a box, or zeros."""
        return (0, 0, 0) if self._offset is None else self._offset

    @property
    def metadata(self) -> dict[str, Any]:
        """What the file and the user said of the image; a tuple of such in a batch."""
        return self._metadata

    @property
    def path(self) -> Path | list[Path] | None:
        """The file, or files, the image comes from."""
        return list(self._paths) if len(self._paths) > 1 else self._paths[0] if self._paths else None

    @property
    def read_by(self) -> tuple[Any, str | None]:
        """The reader that was given for its files, and the UID of the DICOM series."""
        return self._reader, self._series

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K), without reading voxels."""
        return self._header().shape if self._told_by_header() else tuple(self._held().shape)

    @property
    def leading(self) -> tuple[int, ...] | None:
        """The axes of a batch, () for one image; None where JAX has put something else in place of its arrays."""
        if self._data is None and self._paths:
            return ()
        return leading_axes(self._affine, 2) if self._data is None else leading_axes(self._data, 4)

    def held(self) -> tuple[Any, ...]:
        """The leaves as they are, without reading: None for voxels and an affine that are still in a file."""
        return self._data, self._affine, self._extent, self._offset, self._full

    def known_shape(self) -> tuple[int, ...] | None:
        """The shape, or None where only the voxels tell it, as with a reader of the user's; keeps nothing."""
        if self._data is not None:
            return tuple(self._data.shape)
        return None if self._reader is not None else io.read_channels_header(self._paths, self._series).shape

    @property
    def spatial_shape(self) -> Shape3:
        """(I, J, K), without reading voxels."""
        i, j, k = self.shape[-3:]
        return i, j, k

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels, without reading them.

        Before they are read it is the file's, int32 and uint32 where that is int64 and uint64 (unless jax_enable_x64 is
        set). It changes by reading only where these cannot hold a number: then a ScalarImage is float32.
        """
        if not self._told_by_header():
            return self._held().dtype
        dtype = self._header().dtype
        return dtype if wide() else io.NARROW.get(dtype, dtype)

    @property
    def spacing(self) -> Any:
        """Voxel size in mm: three floats, or an array if traced or batched."""
        return geometry.plain(geometry.spacing(self.affine))

    @property
    def origin(self) -> Any:
        """World position of the centre of the first voxel, mm."""
        return geometry.plain(self.affine[..., :3, 3])

    @property
    def direction(self) -> Any:
        """Unit vectors of the voxel axes as the columns of a (3, 3) array."""
        return self.affine[..., :3, :3] / geometry.spacing(self.affine)[..., None, :]

    @property
    def orientation(self) -> tuple[str, str, str]:
        """Directions in which the voxel axes run, as ('R', 'A', 'S'); raises TypeError while the affine is traced."""
        return geometry.orientation(self.affine)

    @property
    def bounds(self) -> Any:
        """World positions of the centres of the first and of the last voxel, (2, 3), mm; (B, 2, 3) in a batch."""
        affine, xp = self.affine, geometry.namespace(self.affine)
        last = xp.broadcast_to(xp.asarray(self.spatial_shape, affine.dtype) - 1, (*affine.shape[:-2], 1, 3))
        first = affine[..., :3, 3]
        return xp.stack([first, (affine[..., :3, :3] * last).sum(-1) + first], -2)

    @property
    def center(self) -> Any:
        """World position of the middle of the grid, mm."""
        return geometry.plain(self.bounds.mean(-2))

    def numpy(self) -> np.ndarray:
        """Voxels as an array on the host. Raises what computing them failed with, where jaxlib ends the process."""
        return np.asarray(jax.block_until_ready(self.data))

    # -- other forms

    def save(self, path: str | Path) -> None:
        """Write a file, whole or not at all; what its header said is written back where it still holds."""
        io.write(path, self.numpy(), np.asarray(self.affine, np.float64), self.metadata)

    def to_nibabel(self) -> Any:
        """A nibabel image: (I, J, K), or (I, J, K, C) if there are several channels."""
        return io.to_nibabel(self.numpy(), np.asarray(self.affine, np.float64), self.metadata)

    def to_sitk(self) -> Any:
        """A SimpleITK image, in LPS; channels become vector components. Raises ImportError without the `itk` extra."""
        return io.to_sitk(self.numpy(), np.asarray(self.affine, np.float64))

    def __repr__(self) -> str:
        if isinstance(self._affine, Tracer) or (self._data is not None and self._data.ndim != 4):
            return f"{type(self).__name__}(shape: {self.shape}, dtype: {self.dtype})"
        spacing = ", ".join(f"{s:.2f}" for s in self.spacing)
        where = f", path: {self.path}" if self._paths else ""
        orientation = "".join(self.orientation)
        geometry = f"shape: {self.shape}, spacing: ({spacing}), {orientation}"
        return f"{type(self).__name__}({geometry}, dtype: {self.dtype}{where})"

    def __getstate__(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in Image.__slots__}
        if self._paths:
            state["_data"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


class ScalarImage(Image):
    """An image of intensities: interpolated, and changed by intensity transforms. See `Image`."""

    __slots__ = ()
    is_label = False


class LabelMap(Image):
    """An image of labels: never interpolated into values that are not there. See `Image`."""

    __slots__ = ()
    is_label = True


register_image(ScalarImage)
register_image(LabelMap)
