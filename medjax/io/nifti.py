"""NIfTI, MGH and Analyze files: headers by nibabel, voxels by our own reader, straight into aligned memory."""

import contextlib
import math
import warnings
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError, MGHHeader
from nibabel.spatialimages import HeaderDataError

from medjax.io import memory
from medjax.io.registry import Format, Header, register

try:
    from isal import igzip as gzip
    from isal import isal_zlib as deflate
except ImportError:
    import gzip
    import zlib as deflate

nib: Any = nibabel  # its type hints know less than it does
_LIBRARY_ERRORS: Any = (ImageFileError, HeaderDataError, MGHError, zlib.error, deflate.error)
_TO_MM = {1: 1e3, 3: 1e-3}  # NIfTI unit code to mm: metre, micrometre; 0 (unknown) and 2 are taken as mm

# What a NIfTI header says and medjax does not use, by what it depends on.
_ALWAYS = ("xyzt_units", "toffset", "descrip", "aux_file")
_OF_THE_GRID = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
_OF_THE_VALUES = ("intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name")

_NIFTI_NAMES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
_WIDENED = {"bool": "uint8", "float16": "float32", "bfloat16": "float32"}
_NIFTI_DTYPES = _WIDENED | {n: n for n in _NIFTI_NAMES}  # from an array's dtype to that of its file
_MGH_DTYPES = _WIDENED | {"int8": "int16", "uint16": "int32"} | {n: n for n in ["uint8", "int16", "int32", "float32"]}


def read_header(path: Path) -> Header:
    """`medjax.io.read_header` for what nibabel reads."""
    return _open(path)[3]


def read(path: Path) -> tuple[np.ndarray, Header]:
    """`medjax.io.read` for what nibabel reads.

    Values are slope * x + inter in float64, rounded once (nibabel's `get_fdata`); RGB(A) voxels are 3 (4) channels.
    A gzip file is read to its end, so that its checksum is verified; bytes after the last voxel are allowed.
    The voxels begin on a 64-byte boundary, where `jax.device_put` on a CPU takes them without a copy.
    """
    file, proxy, stored, header = _open(path)
    with _named(path):
        voxels = _voxels(file, proxy.offset, math.prod(header.shape), stored)
    if not stored.isnative:
        voxels = voxels.byteswap(inplace=True).view(stored.newbyteorder("="))
    if _is_scaled(proxy):
        voxels = _scaled(voxels, proxy.slope, proxy.inter, header.dtype)
    c, i, j, k = header.shape
    if proxy.dtype.names:  # the parts of a voxel lie side by side
        return voxels.reshape(k, j, i, c).transpose(3, 2, 1, 0), header
    return voxels.reshape(c, k, j, i).transpose(0, 3, 2, 1), header


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """`medjax.io.write` for .nii and .nii.gz: NIfTI-1, or NIfTI-2 if it was so or an axis is longer than 32767.

    bool is written as uint8, float16 and bfloat16 as float32, other dtypes as they are, without a scale. Of a NIfTI
    header in the metadata are kept: units, TR, description, extensions; slice timing if the grid is the same; the
    intent if the rank is; the codes of sform and qform, which are both made from the affine.
    """
    dtype = storable(path, array.dtype, _NIFTI_DTYPES)
    header = nifti_header(array.shape, dtype, affine, metadata.get("header"))
    with open(path, "wb") as file:
        # No time and no name inside: the same volume gives the same bytes.
        zipped = path.name.lower().endswith(".gz")
        with gzip.GzipFile("", "wb", 1, file, mtime=0) if zipped else contextlib.nullcontext(file) as stream:
            header.write_to(stream)
            for channel in array:
                stream.write(np.ascontiguousarray(channel.T, dtype=dtype).data)


def write_mgh(path: Path, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """`medjax.io.write` for .mgh and .mgz, TR, TE, TI, flip angle kept; dtypes are widened without loss or refused."""
    source = metadata.get("header")
    header = source.copy() if isinstance(source, MGHHeader) else MGHHeader()
    dtype = storable(path, array.dtype, _MGH_DTYPES)
    header.set_data_dtype(dtype)
    volume = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    nib.MGHImage(volume.astype(dtype, copy=False), affine, header).to_filename(path)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn what a damaged file makes a library raise into one ValueError that names the file."""
    try:
        yield
    except (*_LIBRARY_ERRORS, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it could not be opened: the system's refusal, not the file's content
        raise ValueError(f"{path} cannot be read, it is damaged or of another format: {error}") from error


def _stream(file: Path) -> BufferedIOBase:
    return gzip.GzipFile(file) if file.suffix.lower() in (".gz", ".mgz") else open(file, "rb")


def _open(path: Path) -> tuple[Path, Any, np.dtype, Header]:
    """The file of the voxels, how they lie in it, the dtype of its numbers (of one part, if RGB), and the header."""
    with _named(path), _stream(path) as stream:  # opened here: nibabel calls a file it may not read one of unknown type
        if path.suffix.lower() in (".mgh", ".mgz"):  # which nibabel would leave open
            image = nib.MGHImage.from_file_map({"image": nib.FileHolder(str(path), stream)}, mmap=False)
        else:
            image = nib.load(path, mmap=False)
        if not isinstance(image, nib.spatialimages.SpatialImage):
            raise ValueError(f"a {type(image).__name__} is no volume")
    header, proxy, affine = image.header, image.dataobj, image.affine
    if isinstance(header, nib.Nifti1Header):
        affine = in_mm(affine, header)
        if np.isfinite(affine).all() and _forms_differ(header):
            warnings.warn(f"{path}: sform and qform are both set and differ; the sform is used.", stacklevel=4)
    stored = proxy.dtype[0] if proxy.dtype.names else proxy.dtype
    if stored.kind not in "iuf" or stored.itemsize > 8:
        raise ValueError(f"{path}: {stored} is not read; of complex voxels save the magnitude, or two real channels.")
    dtype = np.dtype(np.float32) if stored.kind in "iu" and _is_scaled(proxy) else stored.newbyteorder("=")
    shape = volume_shape(path, proxy.shape, len(proxy.dtype.names or [stored]))
    return Path(image.file_map["image"].filename), proxy, stored, Header(shape, affine, dtype, {"header": header})


def _is_scaled(proxy: Any) -> bool:
    return not proxy.dtype.names and (proxy.slope, proxy.inter) != (1, 0)


def volume_shape(path: Path | str, shape: tuple[int, ...], parts: int) -> tuple[int, int, int, int]:
    """(C, I, J, K) of a file's shape, whose fifth axis is that of vectors; `parts`: numbers in one (RGB) voxel."""
    match shape:
        case (i, j):
            c, k = 1, 1
        case (i, j, k):
            c = 1
        case (i, j, k, c) | (i, j, k, 1, c):
            pass
        case _:
            c = i = j = k = 0
    if min(c, i, j, k) < 1 or (parts > 1 and c > 1):
        raise ValueError(f"{path}: shape {shape} is none of (I, J), (I, J, K), (I, J, K, T) and (I, J, K, 1, C).")
    return parts * c, i, j, k


def _voxels(file: Path, offset: int, count: int, dtype: np.dtype) -> np.ndarray:
    """(count,) numbers of a file from byte `offset` on, on a 64-byte boundary. Raises: EOFError if too few."""
    size = count * dtype.itemsize
    # Before memory is asked for: the shape may be that of a damaged header. A byte of deflate stands for 1032 at most.
    if offset + size > file.stat().st_size * 1032:
        raise EOFError(f"it is too short for {size} bytes of voxels")
    buffer, filled = memory.empty((size,), np.dtype(np.uint8)), 0
    with _stream(file) as stream:
        stream.seek(offset)
        while filled < size and (got := stream.readinto(buffer.data[filled:])):
            filled += got
        if filled < size:
            raise EOFError(f"it ends after {filled} of {size} bytes of voxels")
        while stream.read(1 << 20):
            pass  # the checksum of a gzip file stands at its end
    return buffer.view(dtype)


def _scaled(voxels: np.ndarray, slope: float, inter: float, dtype: np.dtype) -> np.ndarray:
    result = memory.empty(voxels.shape, dtype)
    step = 1 << 16  # float64 values of one step stay in the cache
    for start in range(0, voxels.size, step):
        result[start : start + step] = voxels[start : start + step] * np.float64(slope) + inter
    return result


def in_mm(affine: np.ndarray, header: Any) -> np.ndarray:
    """An affine in the unit of a NIfTI header, in mm."""
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1)
    return affine * [[scale], [scale], [scale], [1]]


def _forms_differ(header: Any) -> bool:
    """Whether sform and qform are both set and place some corner of the volume more than 1e-3 mm apart.

    More where float32 holds the qform no better: the quaternion's a = sqrt(1 - b^2 - c^2 - d^2) is not stored, which
    leaves the angle open by 5e-7 / a: near half a turn forms that nibabel wrote from one affine were 1.6 mm apart.
    """
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return False
    try:
        a, sform, qform = header.get_qform_quaternion()[0], header.get_sform(), header.get_qform()
    except (ValueError, HeaderDataError):
        return False  # a qform that is no rotation is no second opinion
    last = np.array((*header.get_data_shape(), 1, 1)[:3]) - 1
    corners = np.vstack([np.indices((2, 2, 2)).reshape(3, 8) * last[:, None], np.ones(8)])
    gap = np.linalg.norm((in_mm(sform - qform, header) @ corners)[:3], axis=0).max()
    reach = np.linalg.norm(in_mm(sform, header)[:3, :3] @ last)
    return bool(gap > 1e-3 + reach * 5e-7 / max(a, 3e-4))


def nifti_header(shape: tuple, dtype: np.dtype, affine: np.ndarray, source: Any) -> Any:
    """A header for an array of `shape` (C, I, J, K), with what a NIfTI `source` says and still holds for it."""
    c, *grid = shape
    header = nib.Nifti2Header() if isinstance(source, nib.Nifti2Header) or max(shape) > 32767 else nib.Nifti1Header()
    header.set_data_shape((*grid, c) if c > 1 else grid)
    header.set_data_dtype(dtype)
    if not isinstance(source, nib.Nifti1Header):
        source = nib.Nifti1Header()
        source.set_xyzt_units("mm")
    old = source.get_data_shape()
    kept = _ALWAYS
    if tuple(grid) == old[:3] and np.allclose(in_mm(source.get_best_affine(), source), affine, atol=1e-3):
        kept += _OF_THE_GRID
    if len(old) <= 4 and (c > 1) == (math.prod(old[3:]) > 1):
        kept += _OF_THE_VALUES
    for name in kept:
        header[name] = source[name]
    header["pixdim"][4:] = source["pixdim"][4:]
    if (units := int(source["xyzt_units"])) & 7 in _TO_MM:
        header["xyzt_units"] = units & ~7 | 2
    header.extensions.extend(source.extensions)
    sform, qform = int(source["sform_code"]), int(source["qform_code"])
    if not (sform or qform):
        sform = qform = 1
    elif _forms_differ(source):
        qform = sform  # both will be that affine, in the space that the sform names
    header.set_qform(affine, qform, strip_shears=True)
    header.set_sform(affine, sform or qform)
    if _forms_differ(header):
        header["qform_code"] = 0  # the affine has shears, which a qform cannot hold
    return header


def storable(path: Path, dtype: np.dtype, table: dict[str, str] = _NIFTI_DTYPES) -> np.dtype:
    """The dtype in which one is written; raises ValueError where the format has none."""
    if dtype.name not in table:
        raise ValueError(f"{path}: dtype {dtype} is not stored in this format; convert to one of {', '.join(table)}.")
    return np.dtype(table[dtype.name])


register(Format("NIfTI", (".nii", ".nii.gz"), read_header, read, write_nifti))
register(Format("MGH", (".mgh", ".mgz"), read_header, read, write_mgh))
register(Format("Analyze or NIfTI pair", (".hdr", ".img", ".hdr.gz", ".img.gz"), read_header, read))
