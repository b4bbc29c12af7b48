"""Host memory that begins on a 64-byte boundary, where JAX on a CPU takes an array without copying it."""

import math
from collections.abc import Sequence

import numpy as np

ALIGNMENT = 64


def empty(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of undefined values."""
    return _placed(np.empty(_size(shape, dtype), np.uint8), shape, dtype)


def zeros(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """An array of zeros; memory that is not touched is not used."""
    return _placed(np.zeros(_size(shape, dtype), np.uint8), shape, dtype)


def _size(shape: Sequence[int], dtype: np.dtype) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize + ALIGNMENT


def _placed(raw: np.ndarray, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + raw.size - ALIGNMENT].view(dtype).reshape(tuple(shape))
