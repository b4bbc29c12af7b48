"""NRRD and MetaImage files by SimpleITK; of a header alone no voxel is read. Needs the extra `itk`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from medjax.io import nifti, objects
from medjax.io.registry import Format, Header, register

_DTYPES = {
    f"{kind}{name}": dtype
    for kind in ("sitk", "sitkVector")
    for name, dtype in {
        "Int8": "int8", "UInt8": "uint8", "Int16": "int16", "UInt16": "uint16", "Int32": "int32", "UInt32": "uint32",
        "Int64": "int64", "UInt64": "uint64", "Float32": "float32", "Float64": "float64",
    }.items()
}  # fmt: skip


def read_header(path: Path) -> Header:
    """`medjax.io.read_header` by SimpleITK. A fourth axis, or the components of a vector, become the channels."""
    return _information(path)[0]


def read(path: Path) -> tuple[np.ndarray, Header]:
    """`medjax.io.read` by SimpleITK."""
    (header, rank), sitk = _information(path), objects.sitk()
    with _briefly():
        data = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    c, i, j, k = header.shape
    if rank == 4:
        return data.transpose(0, 3, 2, 1), header
    return data.reshape(k, j, i, c).transpose(3, 2, 1, 0), header


def write(path: Path, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """`medjax.io.write` by SimpleITK, compressed; several channels become a vector. Raises ValueError on shear."""
    dtype = nifti.storable(array)
    with _briefly():
        objects.sitk().WriteImage(objects.to_sitk(array.astype(dtype, copy=False), affine), str(path), True)


def _information(path: Path) -> tuple[Header, int]:
    """The header of a file, and how many axes it has."""
    sitk = objects.sitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _briefly():
        reader.ReadImageInformation()
    rank, size, parts = reader.GetDimension(), reader.GetSize(), reader.GetNumberOfComponents()
    if rank not in (2, 3, 4) or (rank == 4 and parts > 1):
        raise ValueError(f"{path}: {rank} axes of voxels with {parts} numbers each are no (C, I, J, K).")
    dtype = {getattr(sitk, name): dtype for name, dtype in _DTYPES.items()}.get(reader.GetPixelID())
    if dtype is None:
        raise ValueError(f"{path}: voxels that are a {sitk.GetPixelIDValueAsString(reader.GetPixelID())} are not read.")
    i, j, k = (*size, 1)[:3]
    axes = min(rank, 3)
    affine = np.eye(4)
    direction = np.reshape(reader.GetDirection(), (rank, rank))[:axes, :axes]
    affine[:axes, :axes] = direction * reader.GetSpacing()[:axes]
    affine[:axes, 3] = reader.GetOrigin()[:axes]
    shape = (size[3] if rank == 4 else parts, i, j, k)
    return Header(shape, objects.LPS @ affine, np.dtype(dtype), {}), rank


@contextmanager
def _briefly() -> Iterator[None]:
    """SimpleITK's errors as a ValueError with the last line of what it says; the lines before are of its own files."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise ValueError(str(error).strip().splitlines()[-1]) from error


register(Format("NRRD", (".nrrd", ".nhdr"), read_header, read, write))
register(Format("MetaImage", (".mha", ".mhd"), read_header, read, write))
