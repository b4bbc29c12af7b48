"""Volumes on the host, padded to few shapes, so that a data set of many shapes compiles few programs."""

import numpy as np

from medjax.subject import Image
from medjax.typing import Shape3

ALIGNMENT = 64
"""Bytes; JAX takes a host array of this alignment on a CPU without copying it."""


def bucket(shape: tuple[int, ...]) -> Shape3:
    """The shape that volumes of `shape` are padded to: each axis the next power of two, singletons as they are."""
    i, j, k = (n if n <= 1 else 1 << (n - 1).bit_length() for n in shape)
    return i, j, k


def rounded(shape: tuple[int, ...]) -> Shape3:
    """The shape in which a result of `shape` is computed: each axis the next multiple of 16, singletons as they are."""
    i, j, k = (n if n <= 1 else -(-n // 16) * 16 for n in shape)
    return i, j, k


def padded(image: Image, shape: Shape3) -> Image:
    """The image at the low corner of a volume of zeros of `shape`, with its extent. Memory beyond it is not touched."""
    data = zeros((image.shape[0], *shape), image.dtype)
    data[(slice(None), *map(slice, image.spatial_shape))] = image.data
    extent = np.array(image.spatial_shape, np.int32)
    return type(image).of(data, image.affine, extent, metadata=image.metadata)


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros whose first byte is aligned."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)
