"""Volumes on the host, padded to few shapes, so that a data set of many shapes compiles few programs."""

from functools import cache
from typing import Any

import jax
import numpy as np

from medjax.image import Image
from medjax.io import memory
from medjax.typing import Shape3


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
    data = memory.zeros((image.shape[0], *shape), image.dtype)
    data[(slice(None), *map(slice, image.spatial_shape))] = in_order(image.data)
    extent = np.array(image.spatial_shape, np.int32)
    return type(image).of(data, image.affine, extent, metadata=image.metadata)


def in_order(array: np.ndarray) -> np.ndarray:
    """The array with its last axis contiguous, as kernels read it; files hold the first so.

    JAX transposes on its way to a device, three times faster than NumPy; eight bytes it might narrow.
    """
    if array.flags.c_contiguous:
        return array
    if array.dtype.itemsize > 4 or not (host := cpu()):
        return np.ascontiguousarray(array)
    return np.asarray(jax.device_put(array, host))


@cache
def cpu() -> Any:
    """JAX's device on the host, unless its CPU platform is turned off."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
