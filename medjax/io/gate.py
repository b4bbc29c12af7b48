"""What an array must be before its numbers are voxels, whichever door it comes through: `native`, then `narrowed`."""

from typing import Any, NoReturn

import numpy as np

NARROW = {np.dtype(np.int64): np.dtype(np.int32), np.dtype(np.uint64): np.dtype(np.uint32)}
"""The types of whole numbers that JAX holds in 32 bits unless `jax_enable_x64` is set."""
EXACT = 2.0**24
"""float32 holds every whole number up to this one."""
LARGEST = float(np.finfo(np.float32).max)


def native(array: Any, what: str) -> Any:
    """Voxels of a type that JAX takes, in the byte order of this machine.

    What is so already passes untouched, and so does what is JAX's own, traced or not: its shape and dtype are looked
    at, never its values. A foreign byte order is turned and long double becomes float64, in a copy.
    Raises ValueError, beginning with `what`, for complex numbers, records, objects, text, dates and masked arrays, for
    long doubles beyond float64, and for an array that holds no voxels.
    """
    if 0 in array.shape:
        raise ValueError(f"{what} holds no voxels: its shape is {tuple(array.shape)}")
    dtype = array.dtype
    if not isinstance(dtype, np.dtype):  # keys of JAX have types of their own
        raise ValueError(f"{what} is of dtype {dtype}, which are no voxels")
    if dtype.kind == "c":
        raise ValueError(f"{what} is of dtype {dtype}; of complex voxels give the magnitude, or two real channels")
    if not isinstance(array, np.ndarray):
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{what} is a masked array, and what is masked would be taken for voxels: give .filled(value)")
    if dtype.kind not in "biuf" and (dtype.kind != "V" or dtype.type is np.void):  # bfloat16 and its like are "V" too
        raise ValueError(f"{what} is of dtype {dtype}; voxels are truth values, whole numbers or real numbers")
    if dtype.itemsize > 8:
        double = rounded(array, np.float64)
        if not np.array_equal(np.isinf(double), np.isinf(array)):
            raise ValueError(f"{what} is of dtype {dtype} and holds a number that is too large for float64")
        return double
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def narrowed(array: Any, what: str, labels: bool) -> Any:
    """`native` voxels whose numbers survive 32 bits, for where JAX has no more.

    int64 becomes int32 and uint64 uint32, in a copy. Where a number does not fit, intensities become float32 and
    `labels` are refused. float64 stays as it is, JAX rounds it to float32 where it computes: refused are numbers that
    would become infinite and labels, whole numbers beyond 2^24, that would become another label.
    What is at most 32 bits wide, or JAX's own, passes untouched.
    """
    if not isinstance(array, np.ndarray) or array.dtype.itemsize < 8:
        return array
    narrow = NARROW.get(array.dtype)
    if narrow is not None:
        low, high, limits = array.min(), array.max(), np.iinfo(narrow)
        if limits.min <= low and high <= limits.max:
            return array.astype(narrow)
        if labels:
            refuse(low if low < limits.min else high, array.dtype, what)
        return array.astype(np.float32)
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)
    bound = EXACT if labels else LARGEST
    if -bound <= low and high <= bound:
        return array
    found = rounded(array, np.float32)
    lost = np.isinf(found) & np.isfinite(array)
    if labels:
        lost |= (found != array) & (np.trunc(array) == array)
    if lost.any():
        refuse(array[lost][0], array.dtype, what)
    return array


def rounded(array: np.ndarray, dtype: Any) -> np.ndarray:
    """The numbers as a smaller floating-point type has them, infinite where they are too large for it."""
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def refuse(value: Any, dtype: Any, what: str) -> NoReturn:
    """Raise the ValueError of a number that 32 bits do not hold."""
    raise ValueError(
        f"{what} holds {value}, of dtype {dtype}, which is too large for the 32 bits that JAX computes in: renumber "
        "the labels or rescale the intensities, or set jax_enable_x64"
    )
