"""Volumes from and to the objects of other libraries: NumPy, JAX, nibabel, SimpleITK; several files as channels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import SpatialImage

from medjax.errors import about, needs_extra
from medjax.io import boxes, dicom, nifti, registry
from medjax.io.affines import check_affine, same_grid
from medjax.io.gate import native
from medjax.io.registry import Header

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between world axes L, P, S, as ITK has them, and R, A, S."""


def from_object(source: Any) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(array, affine or None, metadata) of an array on the host, or of a nibabel or SimpleITK image.

    Arrays are what NumPy takes for one: tensors, too, and lists of numbers. The array is `native`.
    Raises TypeError for anything else.
    """
    if isinstance(source, SpatialImage):
        return from_nibabel(source)
    if type(source).__module__.startswith("SimpleITK"):
        return from_sitk(source)
    if isinstance(source, (np.ndarray, list, tuple)) or hasattr(type(source), "__array__"):
        with about("source"):
            array = source if isinstance(source, np.ndarray) else np.asarray(source)
        return native(array, "source"), None, {}
    raise TypeError(
        "source must be a path, a list of paths, an array (C, I, J, K), a nibabel or a SimpleITK image, got "
        f"{type(source).__name__}"
    )


def from_nibabel(image: SpatialImage) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(array (C, I, J, K), affine, metadata) of a nibabel image; its fourth axis, or its colours, are the channels."""
    file = image.get_filename()
    what = "the nibabel image" + (f" of {file}" if file else "")
    with about(what):
        data = np.asanyarray(image.dataobj)
    parts = len(data.dtype.names or [None])
    c, *grid = nifti.volume_shape(what, data.shape, parts)
    data = native(parted(data), what)
    data = np.moveaxis(data.reshape(*grid, c), -1, 0)
    affine = None if image.affine is None else np.asarray(image.affine, np.float64)
    if affine is not None and isinstance(image.header, Nifti1Header):
        affine = nifti.in_mm(affine, image.header)
    return data, affine, {"header": image.header}


def parted(array: np.ndarray) -> np.ndarray:
    """An array of colours, whose voxels are records of one type, with a last axis of their parts; others unchanged."""
    names = array.dtype.names or ()
    if not names or any(array.dtype[name] != array.dtype[names[0]] for name in names):
        return array
    return np.stack([array[name] for name in names], -1)


def to_nibabel(array: np.ndarray, affine: np.ndarray, metadata: dict[str, Any]) -> Nifti1Image:
    """A NIfTI image, (I, J, K) or (I, J, K, C), with what its header said where it still holds; dtypes as in a file."""
    header = nifti.nifti_header(array.shape, nifti.storable(array), affine, metadata.get("header"))
    data = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)
    return Nifti1Image(data.astype(header.get_data_dtype(), copy=False), header.get_best_affine(), header)


def sitk() -> Any:
    """SimpleITK, or the ImportError that says how to install it."""
    try:
        import SimpleITK
    except ImportError:
        needs_extra("SimpleITK", "itk", "a conversion to or from SimpleITK")
    return SimpleITK


def from_sitk(image: Any) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(array (C, I, J, K), affine, {}) of a SimpleITK image; its components, or the times of a series, are channels."""
    rank, shape = image.GetDimension(), image.GetSize()
    if rank not in (2, 3, 4):
        raise ValueError(f"a SimpleITK image of dimension {rank} is no volume")
    with about("the SimpleITK image"):
        data = sitk().GetArrayFromImage(image)
    data = native(data, "the SimpleITK image")
    if image.GetNumberOfComponentsPerPixel() == 1:
        data = data[..., None]
    data = np.transpose(data, range(rank, -1, -1))  # (C, I, J), (C, I, J, K) or (C, I, J, K, T)
    if rank == 2:
        data = data[..., None]
    if rank == 4:
        if 1 not in (data.shape[0], data.shape[4]):
            raise ValueError(
                f"a SimpleITK series of shape {shape} holds {data.shape[0]} components: they are too many axes"
            )
        data = data[..., 0] if data.shape[4] == 1 else np.moveaxis(data[0], -1, 0)
    space = min(rank, 3)
    direction = np.reshape(image.GetDirection(), (rank, rank))
    if rank == 4 and (direction[3, :3].any() or direction[:3, 3].any()):
        raise ValueError("a SimpleITK image whose fourth axis is not time alone is no series of volumes")
    matrix = np.eye(4)
    matrix[:space, :space] = direction[:space, :space] * np.asarray(image.GetSpacing())[None, :space]
    matrix[:space, 3] = image.GetOrigin()[:space]
    return data, LPS @ matrix, {}


def to_sitk(array: np.ndarray, affine: np.ndarray) -> Any:
    """A SimpleITK image of an array (C, I, J, K); several become a vector image. Raises ValueError on shear."""
    lps = LPS @ affine
    spacing = np.sqrt((lps[:3, :3] ** 2).sum(0))
    direction = lps[:3, :3] / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise ValueError("SimpleITK cannot hold an affine with shear; resample the image first")
    data = np.transpose(array.astype(np.uint8) if array.dtype == bool else array, (3, 2, 1, 0))
    data = np.ascontiguousarray(data[..., 0] if array.shape[0] == 1 else data)
    image = sitk().GetImageFromArray(data, isVector=array.shape[0] > 1)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _slices(paths: Sequence[Path], series: str | None) -> bool:
    """Whether paths are to be read as one DICOM series: its files (folders are one channel each), or one was chosen.

    Raises ValueError if a series is chosen where there is no DICOM.
    """
    slices = all(registry.format_of(path) == dicom.FORMAT.name for path in paths)
    if series is not None and not slices:
        raise ValueError(f"series={series!r} chooses among DICOM series, and {paths[0]} is no folder or file of DICOM")
    return slices and (series is not None or (len(paths) > 1 and not any(path.is_dir() for path in paths)))


def read_channels_header(paths: Sequence[Path], series: str | None = None) -> Header:
    """The header of files that are channels of one volume, or the slices of a DICOM series, chosen by its UID.

    Raises ValueError, naming two files, where their grids differ.
    """
    if _slices(paths, series):
        return dicom.read_header(paths, series)
    headers = [registry.read_header(path) for path in paths]
    check_grids(paths, [header.shape for header in headers], [header.affine for header in headers])
    first, dtype = headers[0], np.result_type(*(header.dtype for header in headers))
    return Header((sum(h.shape[0] for h in headers), *first.shape[1:]), first.affine, dtype, first.metadata)


def check_grids(paths: Sequence[Path], shapes: Sequence[tuple[int, ...]], affines: Sequence[np.ndarray]) -> None:
    """Raise a ValueError, naming two of the paths, unless all volumes (C, I, J, K) lie on one grid."""
    for path, shape, affine in zip(paths, shapes, affines, strict=True):
        if shape[1:] != shapes[0][1:] or not same_grid(affines[0], affine, shape[1:]):
            raise ValueError(f"{paths[0]} and {path} are not on one grid, so they cannot be channels of one image")


def read_channels(paths: Sequence[Path], series: str | None = None) -> tuple[np.ndarray, Header]:
    """The voxels and header of files that are channels of one volume, or the slices of a DICOM series."""
    if _slices(paths, series):
        return dicom.read(paths, series)
    if len(paths) == 1:
        return registry.read(paths[0])
    header = read_channels_header(paths)
    return np.concatenate([registry.read(path)[0] for path in paths]), header


def read_channels_box(
    paths: Sequence[Path], start: Sequence[int], shape: Sequence[int], series: str | None = None
) -> tuple[np.ndarray, Header]:
    """The voxels (C, *shape) of the box from voxel `start` on of what `read_channels` reads, and the header of that."""
    if _slices(paths, series):
        array, header = dicom.read(paths, series)
        return boxes.cut(array, start, shape), header
    header = read_channels_header(paths)
    found = [registry.read_box(path, start, shape)[0] for path in paths]
    return np.concatenate(found) if len(found) > 1 else found[0], header


def read_with(reader: Callable[[Path], Any], paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray | None]:
    """The voxels that a user's reader gives for the paths, and their affine if it gives one.

    It gives what `from_object` takes, (C, I, J, K), alone or in a pair with an affine or None.
    Raises ValueError, naming the file, for other shapes, unsound affines and volumes on different grids; what the
    reader raises is said to be about the file.
    """
    arrays, affines = [], []
    for path in paths:
        with about(str(path)):
            found = reader(path)
            pair = isinstance(found, (tuple, list)) and len(found) == 2 and not isinstance(found[0], (list, tuple))
            source, affine = found if pair else (found, None)
            array, known, _ = from_object(source)
            if array.ndim != 4:
                raise ValueError(f"reader gave shape {array.shape} for {path.name}; it must be (C, I, J, K)")
            affine = known if affine is None else affine
            arrays.append(array)
            affines.append(None if affine is None else check_affine(affine, "reader"))
    check_grids(paths, [array.shape for array in arrays], [np.eye(4) if a is None else a for a in affines])
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0], affines[0]
