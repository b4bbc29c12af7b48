"""A box of the voxels of a file, of which no more than needed is read."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.io import memory


def cut(array: Any, start: Sequence[int], shape: Sequence[int]) -> Any:
    """The box of voxels (C, *shape) of (C, I, J, K); of NumPy's in memory of its own, so that the rest can go."""
    box = array[(slice(None), *(slice(a, a + n) for a, n in zip(start, shape, strict=True)))]
    return box.copy(order="K") if isinstance(box, np.ndarray) else box


def read(
    stream: Any, offset: int, dtype: np.dtype, whole: Sequence[int], start: Sequence[int], shape: Sequence[int]
) -> np.ndarray:
    """The box of an array of shape `whole`, last axis fastest, whose first number is at byte `offset` of a stream.

    The stream is read forwards, a run of neighbouring bytes at a time. Raises EOFError if it ends too early.
    """
    begins, run = runs(whole, start, shape)
    data = memory.empty(shape, dtype)
    for part, begin in zip(data.reshape(len(begins), run), begins.tolist(), strict=True):
        row = part.view(np.uint8).data
        stream.seek(offset + begin * dtype.itemsize)
        filled = 0
        while filled < len(row):
            got = stream.readinto(row[filled:])
            if not got:
                raise EOFError("it ends before the voxels of the box")
            filled += got
    return data


def runs(whole: Sequence[int], start: Sequence[int], shape: Sequence[int]) -> tuple[np.ndarray, int]:
    """Where the runs of neighbouring numbers of a box begin, in order, and how long each is."""
    inner = len(whole) - 1
    while inner and shape[inner] == whole[inner]:
        inner -= 1
    begins = np.zeros((1,), np.int64)
    for axis in range(inner + 1):
        steps = start[axis] + np.arange(shape[axis] if axis < inner else 1)
        begins = (begins[:, None] + steps * math.prod(whole[axis + 1 :])).ravel()
    return begins, math.prod(shape[inner:])
