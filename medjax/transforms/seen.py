"""What the host must see of a batch: brought there as one array, where every array of it would be a transfer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from medjax import keys
from medjax.transforms.place import Record, Turn


class Seen(NamedTuple):
    """What steps saw of voxels, and what was drawn for those that the host plans again; with a leading axis B."""

    record: Record
    turns: dict[int, Turn]


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["layout", "restore"])
@dataclass(frozen=True)
class Packed:
    """`Seen` as bytes.

    data: (B, N), which a program gives.  layout: shape and dtype of each array, an element's.  restore: from the
    arrays to what they are of.
    """

    data: UInt8[Array, "B N"]
    layout: tuple[tuple[tuple[int, ...], np.dtype], ...]
    restore: Callable[[Sequence], Seen]

    def ask(self) -> None:
        """Begin to bring it to the host; a batch that is computed in the meantime does not hold it up."""
        self.data.copy_to_host_async()

    def unpacked(self) -> Seen:
        """What it is of, on the host; waits for it."""
        data, arrays, start = np.asarray(self.data), [], 0
        for shape, dtype in self.layout:
            stop = start + int(np.prod(shape)) * dtype.itemsize
            arrays.append(np.ascontiguousarray(data[:, start:stop]).view(dtype).reshape(len(data), *shape))
            start = stop
        return self.restore(arrays)


def packed(seen: Seen, size: int) -> Packed:
    """`Seen` of a batch of `size` as bytes; traced."""
    words, restore = keys.in_words(seen)
    data = jnp.concatenate([jnp.zeros((size, 0), jnp.uint8), *map(as_bytes, words)], axis=1)
    return Packed(data, tuple((word.shape[1:], np.dtype(word.dtype)) for word in words), restore)


def as_bytes(x: Array) -> UInt8[Array, "B N"]:
    """The bytes of each element of an array, as they lie in memory."""
    flat = x.astype(jnp.uint8) if x.dtype == bool else x
    flat = jnp.stack([x.real, x.imag], -1) if jnp.iscomplexobj(x) else flat
    return jax.lax.bitcast_convert_type(flat.reshape(len(x), -1), jnp.uint8).reshape(len(x), -1)
