"""Volumes from and to the objects of other libraries: NumPy, JAX, nibabel, SimpleITK; several files as channels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.spatialimages import SpatialImage

from medjax.errors import needs_extra
from medjax.io import nifti, registry
from medjax.io.registry import Header

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Between world axes L, P, S, as ITK has them, and R, A, S."""


def from_object(source: Any) -> tuple[Any, np.ndarray | None, dict[str, Any]]:
    """(array, affine or None, metadata) of an array, a nibabel image or a SimpleITK image.

    JAX arrays stay on their device. Raises TypeError for anything else.
    """
    if isinstance(source, SpatialImage):
        return from_nibabel(source)
    if type(source).__module__.startswith("SimpleITK"):
        return from_sitk(source)
    if isinstance(source, jax.Array):  # a tracer is one, and must not be asked what attributes it has
        return source, None, {}
    if hasattr(source, "dtype") and hasattr(source, "shape"):
        return np.asarray(source), None, {}
    if isinstance(source, (list, tuple)):
        return np.asarray(source), None, {}
    raise TypeError(
        "source must be a path, a list of paths, an array (C, I, J, K), a nibabel or a SimpleITK image, got "
        f"{type(source).__name__}"
    )


def from_nibabel(image: SpatialImage) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(array (C, I, J, K), affine, metadata) of a nibabel image; its fourth axis becomes the channels."""
    data = np.asanyarray(image.dataobj)
    c, *grid = nifti.volume_shape("the nibabel image", data.shape, 1)
    data = np.moveaxis(data.reshape(*grid, c), -1, 0)
    affine = np.eye(4) if image.affine is None else np.asarray(image.affine, np.float64)
    if isinstance(image.header, Nifti1Header):
        affine = nifti.in_mm(affine, image.header)
    return data, affine, {"header": image.header}


def to_nibabel(array: np.ndarray, affine: np.ndarray, metadata: dict[str, Any]) -> Nifti1Image:
    """A NIfTI image, (I, J, K) or (I, J, K, C), with what its header said where it still holds."""
    header = nifti.nifti_header(
        array.shape, nifti.storable(Path("a NIfTI image"), array.dtype), affine, metadata.get("header")
    )
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
    """(array (C, I, J, K), affine, {}) of a SimpleITK image; vector components become channels."""
    data = sitk().GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        data = data[..., None]
    size, rank = 3, image.GetDimension()
    if rank not in (2, 3):
        raise ValueError(f"a SimpleITK image of dimension {rank} is no volume")
    data = data if rank == 3 else data[None]
    matrix = np.eye(4)
    matrix[:rank, :rank] = np.reshape(image.GetDirection(), (rank, rank)) * np.asarray(image.GetSpacing())[None, :]
    matrix[:rank, size] = image.GetOrigin()
    return np.transpose(data, (3, 2, 1, 0)), LPS @ matrix, {}


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


def read_channels_header(paths: Sequence[Path]) -> Header:
    """The header of files that are channels of one volume. Raises ValueError, naming two, where their grids differ."""
    headers = [registry.read_header(path) for path in paths]
    first = headers[0]
    for path, header in zip(paths, headers, strict=True):
        if header.shape[1:] != first.shape[1:] or not np.allclose(header.affine, first.affine, atol=1e-3):
            raise ValueError(f"{paths[0]} and {path} are not on one grid, so they cannot be channels of one image")
    dtype = np.result_type(*(header.dtype for header in headers))
    return Header((sum(h.shape[0] for h in headers), *first.shape[1:]), first.affine, dtype, first.metadata)


def read_channels(paths: Sequence[Path]) -> tuple[np.ndarray, Header]:
    """The voxels and header of files that are channels of one volume."""
    if len(paths) == 1:
        return registry.read(paths[0])
    header = read_channels_header(paths)
    return np.concatenate([registry.read(path)[0] for path in paths]), header


def read_with(reader: Callable[[Path], Any], paths: Sequence[Path]) -> tuple[np.ndarray, Header]:
    """The voxels that a user's reader gives for the paths: an array (C, I, J, K), or one with its affine."""
    arrays, affine = [], np.eye(4)
    for path in paths:
        found = reader(path)
        array, affine = found if isinstance(found, tuple) else (found, affine)
        array = np.asarray(array)
        if array.ndim != 4:
            raise ValueError(f"reader gave shape {array.shape} for {path}; it must be (C, I, J, K)")
        arrays.append(array)
    data = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
    i, j, k = data.shape[1:]
    return data, Header((data.shape[0], i, j, k), np.asarray(affine, np.float64), data.dtype, {})
