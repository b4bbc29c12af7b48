"""The voxels of one element of a batch, for programs that loop over it."""

from typing import Any, NamedTuple

import jax
import numpy as np


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
