"""Random fields in which a voxel's value depends on the key, the channel and the voxel's index, and on nothing else.

Each voxel hashes a counter of its own, so that a box of a field is the field's box bit for bit, whatever the shape of
the array, and costs what a box costs. The hash is plain arithmetic, which XLA fuses with whatever uses the field.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, UInt32

from medjax import keys
from medjax.typing import Key, Shape3

Shape4 = tuple[int, int, int, int]
Words = tuple[UInt32[Array, "..."], UInt32[Array, "..."]]


def normal(
    key: Key, shape: Shape4, *, offset: ArrayLike | Shape3 = (0, 0, 0), dtype: DTypeLike = jnp.float32
) -> Float[Array, "C I J K"]:
    """Standard normals: sqrt(2) erfinv(u), u uniform on (-1, 1), as `jax.random.normal` makes them of its bits.

    shape: (C, I, J, K), static. offset: (3,) int32, index of the first voxel in the whole grid; may be traced.
    """
    low = np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype))
    signed = uniform(key, shape, offset=offset, dtype=dtype) * (1 - low) + low
    return np.asarray(np.sqrt(2), dtype) * jax.lax.erf_inv(jnp.maximum(low, signed))


def uniform(
    key: Key, shape: Shape4, *, offset: ArrayLike | Shape3 = (0, 0, 0), dtype: DTypeLike = jnp.float32
) -> Float[Array, "C I J K"]:
    """Uniform on [0, 1): the leading bits of a voxel's hash as the mantissa of a number in [1, 2), less 1.

    shape: (C, I, J, K), static. offset: (3,) int32, index of the first voxel in the whole grid; may be traced.
    """
    first, second = threefry(threefry_words(key), *counters(shape, offset))
    limits = jnp.finfo(dtype)
    bits = first ^ second if limits.bits <= 32 else first.astype(jnp.uint64) << 32 | second.astype(jnp.uint64)
    width = jnp.iinfo(bits.dtype).bits
    mantissa = (bits >> (width - limits.nmant)).astype(f"uint{limits.bits}")
    one = jax.lax.bitcast_convert_type(jnp.ones((), dtype), mantissa.dtype)
    return jax.lax.bitcast_convert_type(mantissa | one, dtype) - jnp.ones((), dtype)


def counters(shape: Shape4, offset: ArrayLike | Shape3) -> Words:
    """A voxel's counter, (channel 2^16 + i, j 2^16 + k): no two alike within 2^16 voxels along each axis."""
    channel = jax.lax.broadcasted_iota(jnp.uint32, shape, 0)
    first = jnp.asarray(offset, jnp.int32).astype(jnp.uint32)
    i, j, k = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis + 1) + first[axis] for axis in range(3))
    return (channel << 16) + i, (j << 16) + k


def threefry_words(key: Key) -> Words:
    """The two words of a threefry key; the data of a longer key (rbg's has four words) are hashed into two."""
    data = keys.words_of(key)
    words = data[0], data[1]
    for index in range(2, data.shape[0], 2):
        words = threefry(words, data[index], data[index + 1])
    return words


def threefry(key: Words, first: UInt32[Array, "..."], second: UInt32[Array, "..."]) -> Words:
    """Threefry-2x32 of a counter, 20 rounds.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    schedule = (*key, key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    first, second = first + schedule[0], second + schedule[1]
    for step in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[step % 2]:
            first = first + second
            second = (second << distance | second >> (32 - distance)) ^ first
        first = first + schedule[(step + 1) % 3]
        second = second + schedule[(step + 2) % 3] + np.uint32(step + 1)
    return first, second
