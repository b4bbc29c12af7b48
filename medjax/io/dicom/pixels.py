"""From the frames of a series to its voxels."""

from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels

from medjax.io import memory
from medjax.io.dicom.files import Stored, named
from medjax.io.dicom.frames import Frame
from medjax.io.dicom.tags import Refused, quietly

_BY_GDCM = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")  # JPEG Lossless


def dtype_of(frames: Sequence[Frame]) -> np.dtype:
    """The dtype in which the values of all frames are held: see `medjax.io.dicom.read_header`."""
    stored, scales = {frame.stored.dtype for frame in frames}, {frame.scale for frame in frames}
    if scales == {(1.0, 0.0)} and len(stored) == 1:
        return stored.pop()
    whole = all(dtype.kind in "iu" for dtype in stored) and all(x.is_integer() for scale in scales for x in scale)
    if whole:
        ends = [
            int(slope) * end + int(intercept)
            for dtype, bits, (slope, intercept) in {(f.stored.dtype, f.stored.bits, f.scale) for f in frames}
            for end in ((-(1 << bits - 1), (1 << bits - 1) - 1) if dtype.kind == "i" else (0, (1 << bits) - 1))
        ]
        for name in ("int16", "uint16", "int32"):
            if np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max:
                return np.dtype(name)
    return np.dtype(np.float32)


def read_volumes(volumes: Sequence[Sequence[Frame]], dtype: np.dtype) -> np.ndarray:
    """Voxels (C, K, rows, columns) of volumes[C][K]. Raises ValueError, naming the file, if one cannot be decoded."""
    result = memory.empty((len(volumes), len(volumes[0]), *volumes[0][0].size), dtype)
    files: dict[Stored, list[tuple[np.ndarray, Frame]]] = {}
    for c, volume in enumerate(volumes):
        for k, frame in enumerate(volume):
            files.setdefault(frame.stored, []).append((result[c, k], frame))
    for stored, wanted in files.items():  # one after the other: threads were no faster, whatever the codec
        wanted.sort(key=lambda pair: pair[1].index)
        images = read_frames(stored, [frame.index for _, frame in wanted])
        for (target, frame), image in zip(wanted, images, strict=True):
            (row, column), (rows, columns) = frame.corner, frame.size
            _rescale(image[row : row + rows, column : column + columns], frame.scale, target)
    return result


def read_frames(stored: Stored, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames (rows, columns) of a file at increasing indices, in its dtype; an index may come several times."""
    with named(stored.file):
        decode = _decoded if stored.offset is None else _raw
        image, at = None, -1
        source = decode(stored, sorted(set(indices)))
        for index in indices:
            if index != at:
                image, at = _used_bits(next(source), stored), index
            if image is None or image.shape != (stored.rows, stored.columns):
                raise Refused("its decoded voxels are not what its header says")
            yield image


def same_voxels(one: Frame, other: Frame) -> bool:
    """Whether two slices hold the same values."""
    first, second = (next(read_frames(frame.stored, [frame.index])) for frame in (one, other))
    return one.scale == other.scale and np.array_equal(first, second)


def _raw(stored: Stored, indices: Sequence[int]) -> Iterator[np.ndarray]:
    size = stored.rows * stored.columns
    dtype = stored.dtype.newbyteorder("<")
    with open(stored.file, "rb") as stream:
        for index in indices:
            image = np.empty((stored.rows, stored.columns), dtype)
            stream.seek((stored.offset or 0) + index * size * dtype.itemsize)
            if stream.readinto(image.data.cast("B")) != image.nbytes:
                raise Refused("it is truncated")
            yield image if dtype.isnative else image.astype(stored.dtype)


def _decoded(stored: Stored, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Frames by pydicom and the codecs that are installed. Raises Refused, with what to install, if none can."""
    remedy = "pip install 'medjax[dicom-codecs]'" if stored.syntax in _BY_GDCM else "pip install 'medjax[dicom]'"
    try:
        decoder = get_decoder(stored.syntax)
    except NotImplementedError:
        raise Refused(f"its voxels are compressed in a way that is not read ({stored.syntax.name})") from None
    if not decoder.is_available:
        raise Refused(f"its voxels are compressed by {stored.syntax.name}, for which no codec is installed: {remedy}")
    reason = f"its voxels ({stored.syntax.name}) are damaged"
    if tried := ", ".join(decoder.available_plugins):
        reason += f", or of a form that {tried} cannot decode and python-gdcm may: pip install 'medjax[dicom-codecs]'"
    with quietly(reason):
        yield from iter_pixels(stored.file, indices=indices, raw=True)


def _used_bits(image: np.ndarray, stored: Stored) -> np.ndarray:
    """In native order, without what the unused high bits hold: overlays in old files, or no sign."""
    if image.dtype.newbyteorder("=") != stored.dtype:
        raise Refused("its decoded voxels are not of the type that its header says")
    image = image.astype(stored.dtype, copy=False)  # an array of our own: it may be changed
    unused = stored.dtype.itemsize * 8 - stored.bits
    if unused == 0 or stored.dtype.kind == "f" or stored.bits == 1:
        return image
    if stored.dtype.kind == "u":
        image &= stored.dtype.type((1 << stored.bits) - 1)
    else:
        image <<= stored.dtype.type(unused)
        image >>= stored.dtype.type(unused)
    return image


def _rescale(image: np.ndarray, scale: tuple[float, float], target: np.ndarray) -> None:
    slope, intercept = scale
    if scale == (1.0, 0.0):
        target[...] = image
    elif target.dtype.kind == "f":
        target[...] = image * np.float64(slope) + intercept
    else:
        # The result fits (`dtype_of`), so what overflows on the way to it comes back: integers are of two's complement.
        factor, shift = (np.int64(x).astype(target.dtype) for x in scale)
        if slope == 1:
            np.add(image, shift, out=target, dtype=target.dtype, casting="unsafe")
        else:
            np.multiply(image, factor, out=target, dtype=target.dtype, casting="unsafe")
            target += shift
