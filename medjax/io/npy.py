"""Arrays of NumPy, (C, I, J, K) or (I, J, K): they say nothing of the world, so the affine is the identity."""

from pathlib import Path

import numpy as np

from medjax.io.registry import Format, Header, register


def read_header(path: Path) -> Header:
    """`medjax.io.read_header`: the voxels are mapped, not read."""
    array = _mapped(path)
    if array.ndim not in (3, 4) or array.size == 0:
        raise ValueError(f"{path}: shape {array.shape} is none of (I, J, K) and (C, I, J, K).")
    if array.dtype.kind not in "iufb" or array.dtype.itemsize > 8:
        raise ValueError(f"{path}: {array.dtype} is not read.")
    c, i, j, k = (1, *array.shape)[-4:]
    return Header((c, i, j, k), np.eye(4), array.dtype.newbyteorder("="), {})


def read(path: Path) -> tuple[np.ndarray, Header]:
    """`medjax.io.read`."""
    header = read_header(path)
    return np.array(_mapped(path), header.dtype).reshape(header.shape), header


def _mapped(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read, it is damaged or no array: {error}") from error


register(Format("NumPy", (".npy",), read_header, read))
