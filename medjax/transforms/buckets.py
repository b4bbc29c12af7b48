"""Volumes on the host, padded to few shapes, so that a data set of many shapes compiles few programs."""

import math
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from medjax.image import Image
from medjax.io import memory
from medjax.typing import Shape3

try:
    import resource
except ImportError:  # Windows has none
    resource = None

MOST = 2**31 - 1
"""How many voxels a channel may have: kernels count them in int32."""


def bucket(shape: Sequence[int]) -> Shape3:
    """The shape that volumes of `shape` are padded to, beyond 8 voxels at most 1.5 times as long along an axis.

    Each axis is the next of 1, 2, 4, 8, 12, 16, 24, 32, 48, ... voxels.
    """
    return within(tuple(next_of(n) for n in shape), shape)


def next_of(size: int) -> int:
    """The least power of two, or beyond 8 three halves of one, that is not below a size."""
    power = 1 << max(size - 1, 0).bit_length()
    return power * 3 // 4 if 8 < size <= power * 3 // 4 else power


def rounded(shape: Sequence[int]) -> Shape3:
    """The shape in which a result of `shape` is computed: each axis the next multiple of 16, singletons as they are."""
    return within(tuple(n if n <= 1 else -(-n // 16) * 16 for n in shape), shape)


def within(grown: Sequence[int], shape: Sequence[int]) -> Shape3:
    """The grown shape, or the shape itself where it would have too many voxels."""
    i, j, k = grown if math.prod(grown) <= MOST else shape
    return i, j, k


def check_count(shape: Sequence[int], what: str) -> None:
    """Raise a ValueError for a volume of more voxels than can be counted."""
    if math.prod(shape) > MOST:
        raise ValueError(
            f"{what} has shape {tuple(shape)}, {math.prod(shape)} voxels: at most {MOST} (2^31 - 1) a channel can be "
            "transformed; cut it into parts, or make it coarser"
        )


def check_memory(shape: Sequence[int], itemsize: int, what: str) -> None:
    """Raise a MemoryError for an array of `shape` that the device, or the machine where it is the host, cannot hold."""
    size = math.prod(shape) * itemsize
    if size > SMALL and size > available():
        raise MemoryError(
            f"{what} has shape {tuple(shape)}, {math.prod(shape)} voxels, which take {size / 1e9:.1f} GB of the "
            f"{available() / 1e9:.1f} GB that there are: is the spacing or the size in the unit that was meant?"
        )


SMALL = 2**28
"""Bytes below which nobody asks how much memory there is."""


def available() -> int:
    """Bytes of the device that JAX uses; where that is the host, of the machine or of what this process may have."""
    config: Any = jax.config
    device = config.jax_default_device or jax.local_devices()[0]
    stats = device.memory_stats() if isinstance(device, jax.Device) else None
    if stats and stats.get("bytes_limit"):
        return int(stats["bytes_limit"])
    found = [2**63]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(path).read_text().strip() if Path(path).exists() else ""
        found += [int(text)] if text.isdigit() else []
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [limit] if limit != resource.RLIM_INFINITY else []
    return min(found)


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
