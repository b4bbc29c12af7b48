"""What an image holds: which arrays it lets in, in which type, and how one element of a batch is held."""

from typing import Any, NamedTuple

import jax
import numpy as np

from medjax import io


class ElementVoxels(NamedTuple):
    """The voxels of an element of a batch, cut out anew wherever they are read, so that a program fuses the two."""

    batch: jax.Array
    number: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K)."""
        return self.batch.shape[1:]

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the voxels."""
        return self.batch.dtype

    def read(self) -> jax.Array:
        """The voxels."""
        return jax.lax.dynamic_index_in_dim(self.batch, self.number, keepdims=False)


def wide() -> bool:
    """Whether JAX has numbers of 64 bits."""
    config: Any = jax.config
    return config.jax_enable_x64


def admitted(data: Any, what: str, *, labels: bool) -> Any:
    """Voxels as an image holds them, or the ValueError of those that it does not hold; see `medjax.Image`."""
    data = io.native(data, what)
    return data if wide() else io.narrowed(data, what, labels=labels)
