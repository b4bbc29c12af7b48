"""NIfTI, MGH and Analyze files: headers by nibabel, voxels by our own reader, straight into aligned memory."""

import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader
from nibabel.spatialimages import HeaderDataError

from medjax.io import boxes, memory, streams
from medjax.io.affines import apart, same_grid
from medjax.io.registry import Format, Header, register

nib: Any = nibabel  # its type hints know less than it does
_TO_MM = {1: 1e3, 3: 1e-3}  # NIfTI unit code to mm: metre, micrometre; 0 (unknown) and 2 are taken as mm
_TO_SECONDS = {0: 1.0, 8: 1.0, 16: 1e-3, 24: 1e-6}  # the unit of TR: unknown (as others take it), s, ms, us
_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz")

# What a NIfTI header says and medjax does not use, by what it depends on.
_ALWAYS = ("xyzt_units", "toffset", "descrip", "aux_file")
_OF_THE_GRID = ("dim_info", "slice_start", "slice_end", "slice_code", "slice_duration")
_OF_THE_VALUES = ("intent_code", "intent_p1", "intent_p2", "intent_p3", "intent_name")

_NIFTI_NAMES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
_WIDENED = {"bool": "uint8", "float16": "float32", "bfloat16": "float32"}
_NIFTI_DTYPES = _WIDENED | {n: n for n in _NIFTI_NAMES}  # from an array's dtype to that of its file
_COMMON = ("uint8", "int16", "int32", "uint32")  # in this order; the first three are in every reader, from ANALYZE on
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
    voxels = _voxels(file, proxy.offset, math.prod(header.shape), stored, alone=not _is_pair(path))
    return _as_volume(voxels, header.shape, proxy, stored, header.dtype), header


def read_box(path: Path, start: Sequence[int], shape: Sequence[int]) -> tuple[np.ndarray, Header]:
    """`medjax.io.read_box` for what nibabel reads. A compressed file is decoded up to the last voxel of the box."""
    file, proxy, stored, header = _open(path)
    c, i, j, k = header.shape
    whole, low, size = (c, k, j, i), (0, *start[::-1]), (c, *shape[::-1])
    if proxy.dtype.names:
        whole, low, size = (k, j, i, c), (*start[::-1], 0), (*shape[::-1], c)
    end = proxy.offset + stored.itemsize * math.prod(header.shape)
    with streams.opened(file, _compression(file, proxy.offset, end, not _is_pair(path))) as stream:
        voxels = boxes.read(stream, proxy.offset, stored, whole, low, size).ravel()
    return _as_volume(voxels, (c, *shape), proxy, stored, header.dtype), header


def _as_volume(voxels: np.ndarray, shape: Sequence[int], proxy: Any, stored: np.dtype, dtype: np.dtype) -> np.ndarray:
    """Numbers in the order of a file as voxels of `shape` (C, I, J, K), in native byte order, scaled."""
    if not stored.isnative:
        voxels = voxels.byteswap(inplace=True).view(stored.newbyteorder("="))
    if _is_scaled(proxy):
        voxels = _scaled(voxels, proxy.slope, proxy.inter, dtype)
    c, i, j, k = shape
    if proxy.dtype.names:  # the parts of a voxel lie side by side
        return voxels.reshape(k, j, i, c).transpose(3, 2, 1, 0)
    return voxels.reshape(c, k, j, i).transpose(0, 3, 2, 1)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """`medjax.io.write` for .nii, compressed or not: NIfTI-1, or NIfTI-2 if it was so or an axis is longer than 32767.

    bool is written as uint8, float16 and bfloat16 as float32, other dtypes as they are, without a scale; but int64 and
    uint64, which many programs do not read, as the first of uint8, int16, int32 and uint32 that holds all values, if
    one does. Of a NIfTI header in the metadata are kept: units, TR, description, extensions; slice timing if the grid
    is the same; the intent if the rank is; the codes of sform and qform, which are both made from the affine. Of an MGH
    header, TR.
    """
    dtype = storable(array, _NIFTI_DTYPES)
    header = nifti_header(array.shape, dtype, affine, metadata.get("header"))
    with open(path, "wb") as file, streams.written(file, path.name) as stream:
        header.write_to(stream)
        for channel in array:
            stream.write(np.ascontiguousarray(channel.T, dtype=dtype).data)


def write_mgh(path: Path, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """`medjax.io.write` for .mgh and .mgz: TR, TE, TI and flip angle of an MGH header are kept, TR of a NIfTI header.

    dtypes are widened without loss or refused; int64 and uint64 are as in NIfTI, where a type of MGH holds the values.
    """
    source = metadata.get("header")
    header = source.copy() if isinstance(source, MGHHeader) else MGHHeader()
    if isinstance(source, nib.Nifti1Header):
        header["tr"] = 1e3 * repetition_time(source)
    dtype = storable(array, _MGH_DTYPES)
    header.set_data_dtype(dtype)
    volume = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    nib.MGHImage(volume.astype(dtype, copy=False), affine, header).to_filename(path)


def _is_pair(path: Path) -> bool:
    """Whether the header and the voxels are in files of their own, one of which this is."""
    return path.name.lower().endswith(_PAIR)


def _open(path: Path) -> tuple[Path, Any, np.dtype, Header]:
    """The file of the voxels, how they lie in it, the dtype of its numbers (of one part, if RGB), and the header."""
    with np.errstate(all="ignore"):  # what overflows is refused for what it became
        image = _mgh_image(path) if path.suffix.lower() in (".mgh", ".mgz") else _nifti_image(path)
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


def _mgh_image(path: Path) -> Any:
    with streams.opened(path, streams.compression_of(path)) as stream:  # which nibabel would leave open
        return nib.MGHImage.from_file_map({"image": nib.FileHolder(str(path), stream)}, mmap=False)


def _nifti_image(path: Path) -> Any:
    """nibabel's image of a NIfTI or Analyze file, or pair of them, made of the bytes before the voxels alone."""
    single = not _is_pair(path)
    kinds = (nib.Nifti1Image, nib.Nifti2Image) if single else (nib.Nifti1Pair, nib.Nifti2Pair, nib.Spm2AnalyzeImage)
    files = kinds[0].filespec_to_file_map(str(path))
    place = "image" if single else "header"
    file = Path(files[place].filename)
    compression = streams.compression_of(file)
    most = file.stat().st_size * (compression or streams.GZIP).most
    with streams.opened(file, compression) as stream:
        start = stream.read(kinds[1].header_class.sizeof_hdr)
        kind = next((kind for kind in kinds if kind.header_class.may_contain_header(start)), None)
        if kind is None:
            raise ValueError("it begins with no header of NIfTI" + ("" if single else " or Analyze"))
        size = kind.header_class.sizeof_hdr
        header = _mended(kind.header_class(start[:size], check=False))
        end = int(header["vox_offset"]) if single else most
        if end > most:
            raise EOFError(f"its voxels would begin at byte {end}")
        extensions = start[size:] + stream.read(max(0, end - len(start)))
    if isinstance(header, nib.Nifti1Header) and 3000 <= header["intent_code"] < 3100:
        raise ValueError("a matrix of CIFTI is no volume")
    files = kind.filespec_to_file_map(str(path))
    files[place] = nib.FileHolder(str(file), io.BytesIO(header.binaryblock + extensions))
    return kind.from_file_map(files, mmap=False)


def _mended(header: Any) -> Any:
    """A header of which nibabel takes what the standard, and ITK, allow.

    Axes of length 0 at the end, behind the second, have length 1, as in NIfTI's own library. Voxels of a single file
    begin behind its header, whatever `vox_offset` from 0 to there says (nifti1.h). A quaternion that is longer than 1
    by rounding, up to 0.05 per cent, is half a turn. An sform of zeros beside a qform is none.
    """
    for axis in range(min(int(header["dim"][0]), 7), 2, -1):
        if header["dim"][axis] not in (0, 1):
            break
        header["dim"][axis] = 1
    if not isinstance(header, nib.Nifti1Header):
        return header
    if header.is_single and 0 <= header["vox_offset"] < header.single_vox_offset:
        header["vox_offset"] = header.single_vox_offset
    parts = ("quatern_b", "quatern_c", "quatern_d")
    length = np.sqrt(sum(float(header[part]) ** 2 for part in parts))
    if 1 < length <= 1.0005:
        for part in parts:
            header[part] = float(header[part]) / length
    rows = np.stack([header[row] for row in ("srow_x", "srow_y", "srow_z")])
    if header["sform_code"] > 0 and header["qform_code"] > 0 and not rows[:, :3].any():
        header["sform_code"] = 0
    return header


def _is_scaled(proxy: Any) -> bool:
    return not proxy.dtype.names and (proxy.slope, proxy.inter) != (1, 0)


def volume_shape(path: Path | str, shape: tuple[int, ...], parts: int) -> tuple[int, int, int, int]:
    """(C, I, J, K) of a file's shape, whose fifth axis is that of vectors; `parts`: numbers in one (RGB) voxel.

    Axes of length 1 at the end count for nothing.
    """
    axes = tuple(int(n) for n in shape)  # of NumPy's kind they would overflow
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    match axes:
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


def _compression(file: Path, offset: int, end: int, alone: bool) -> streams.Compression | None:
    """How a file is compressed whose voxels begin and end at these bytes. Raises: EOFError if it is too short for them.

    alone: the header lies in the same file. Voxels of a pair may begin with the bytes of gzip by chance, so such a file
    is compressed if it says so by its name too, or is too short.
    """
    there, found = file.stat().st_size, streams.compression_of(file)
    if found and not (alone or file.suffix.lower() == found.suffix or end > there):
        found = None
    if offset < 0 or end > there * (found.most if found else 1):
        raise EOFError(f"it is too short for {end - offset} bytes of voxels from byte {offset} on")
    return found


def _voxels(file: Path, offset: int, count: int, dtype: np.dtype, alone: bool) -> np.ndarray:
    """(count,) numbers of a file from byte `offset` on, on a 64-byte boundary. Raises: EOFError if too few."""
    size = count * dtype.itemsize
    # Before memory is asked for: the shape may be that of a damaged header.
    compression = _compression(file, offset, offset + size, alone)
    buffer, filled = memory.empty((size,), np.dtype(np.uint8)), 0
    with streams.opened(file, compression) as stream:
        stream.seek(offset)
        while filled < size and (got := stream.readinto(buffer.data[filled:])):
            filled += got
        if filled < size:
            raise EOFError(f"it ends after {filled} of {size} bytes of voxels")
        while compression and stream.read(1 << 20):
            pass  # the checksum of a compressed file stands at its end
    return buffer.view(dtype)


def _scaled(voxels: np.ndarray, slope: float, inter: float, dtype: np.dtype) -> np.ndarray:
    """slope * voxels + inter. Raises: FloatingPointError if a number becomes too large for the dtype."""
    result = memory.empty(voxels.shape, dtype)
    step = 1 << 16  # float64 values of one step stay in the cache
    with np.errstate(over="raise", invalid="ignore"):
        for start in range(0, voxels.size, step):
            result[start : start + step] = voxels[start : start + step] * np.float64(slope) + inter
    return result


def in_mm(affine: np.ndarray, header: Any) -> np.ndarray:
    """An affine in the unit of a NIfTI header, in mm."""
    scale = _TO_MM.get(int(header["xyzt_units"]) & 7, 1)
    return affine * [[scale], [scale], [scale], [1]]


def _forms_differ(header: Any) -> bool:
    """Whether sform and qform are both set and place some corner of the volume more than 1e-3 voxels apart.

    More where float32 holds the qform no better: the quaternion's a = sqrt(1 - b^2 - c^2 - d^2) is not stored, which
    leaves the angle open by 5e-7 / a: near half a turn forms that nibabel wrote from one affine were 1.6 mm apart.
    """
    if header["sform_code"] <= 0 or header["qform_code"] <= 0:
        return False
    shape = (*header.get_data_shape(), 1, 1)[:3]
    with np.errstate(all="ignore"):  # an sform with an axis of no length is refused later, a spacing of nan unused
        try:
            a, sform, qform = header.get_qform_quaternion()[0], header.get_sform(), header.get_qform()
        except (ValueError, HeaderDataError):
            return False  # a qform that is no rotation is no second opinion
        reach = apart(sform, sform * [0, 0, 0, 1], shape)  # of the farthest corner from the first voxel, in voxels
        return bool(apart(sform, qform, shape) > 1e-3 + reach * 5e-7 / max(a, 3e-4))


def nifti_header(shape: tuple, dtype: np.dtype, affine: np.ndarray, source: Any) -> Any:
    """A header for an array of `shape` (C, I, J, K), with what a NIfTI `source` says and still holds for it."""
    c, *grid = shape
    header = nib.Nifti2Header() if isinstance(source, nib.Nifti2Header) or max(shape) > 32767 else nib.Nifti1Header()
    header.set_data_shape((*grid, c) if c > 1 else grid)
    header.set_data_dtype(dtype)
    if not isinstance(source, nib.Nifti1Header):
        tr = float(source["tr"]) / 1e3 if isinstance(source, MGHHeader) else 0.0
        source = nib.Nifti1Header()
        source.set_xyzt_units("mm", "sec" if tr > 0 else None)
        if tr > 0:
            source["pixdim"][4] = tr
    old = source.get_data_shape()
    kept = _ALWAYS
    if tuple(grid) == old[:3] and same_grid(in_mm(source.get_best_affine(), source), affine, grid):
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


def repetition_time(header: Any) -> float:
    """TR in seconds as a NIfTI header says it, or 0 if it does not.

    Of a volume without a time axis only if the unit is set: all headers hold some number in its place.
    """
    unit, step = int(header["xyzt_units"]) & 0o70, float(header["pixdim"][4])
    said = unit in _TO_SECONDS and (unit or header["dim"][0] > 3) and np.isfinite(step) and step > 0
    return step * _TO_SECONDS[unit] if said else 0.0


def slice_axis(metadata: dict[str, Any]) -> int | None:
    """The voxel axis along which slices were taken one after the other, if a header says when each was; else None."""
    header: Any = metadata.get("header")
    if not isinstance(header, nib.Nifti1Header) or not (header["slice_code"] or header["slice_duration"]):
        return None
    axis = header.get_dim_info()[2]
    return 2 if axis is None else axis


def without_slice_times(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an image whose slices are no longer those that were taken."""
    header = metadata["header"].copy()
    for name in ("slice_start", "slice_end", "slice_code", "slice_duration"):
        header[name] = 0
    return {**metadata, "header": header}


def without_texts(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of an image without what a NIfTI header says in words, which may name a person."""
    header: Any = metadata.get("header")
    if not isinstance(header, nib.Nifti1Header):
        return metadata
    header = header.copy()
    for name in ("descrip", "aux_file", "intent_name", "db_name"):
        header[name] = b""
    header.extensions.clear()
    return {**metadata, "header": header}


def storable(array: np.ndarray, table: dict[str, str] = _NIFTI_DTYPES) -> np.dtype:
    """The dtype in which an array is written; raises ValueError where the format has none."""
    name = array.dtype.name
    if name in ("int64", "uint64"):
        low, high = int(array.min()), int(array.max())
        held = (n for n in _COMMON if n in table and np.iinfo(n).min <= low and high <= np.iinfo(n).max)
        name = next(held, name)
    if name not in table:
        raise ValueError(f"dtype {array.dtype} is not stored in this format; convert to one of {', '.join(table)}.")
    return np.dtype(table[name])


register(
    Format("NIfTI", (".nii", ".nii.gz", ".nii.bz2", ".nii.zst"), read_header, read, write_nifti, read_box=read_box)
)
register(Format("MGH", (".mgh", ".mgz"), read_header, read, write_mgh, read_box=read_box))
register(Format("Analyze or NIfTI pair", _PAIR, read_header, read, read_box=read_box))
