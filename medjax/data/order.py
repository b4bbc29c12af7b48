"""Which subject stands where in the batches of a loader: arithmetic, the same for any number of threads."""

from functools import lru_cache, partial

import jax
import numpy as np

from medjax import keys
from medjax.typing import Key


class Order:
    """Which subject stands where: a sequence of (epoch, index), those of a batch one after the other; grain's source.

    size: number of subjects.  key: what shuffles, or None.  shard: (index, count) of the process that asks, among those
    that share every batch in equal parts, the first of them its first part. Of a last batch of fewer than B, each
    process's part is filled up with index None, so that batches never cross epochs.
    """

    def __init__(
        self, size: int, batch_size: int, key: Key | None, drop_last: bool, epochs: int, shard: tuple[int, int] = (0, 1)
    ):
        self.size, self.batch_size, self.shuffles = size, batch_size, key is not None
        self.part, self.parts = shard
        self.local = batch_size // self.parts
        self.steps = size // batch_size if drop_last else -(-size // batch_size)
        self.batches = self.steps * epochs
        self.of_epoch = lru_cache(4)(partial(order_of, key, size))
        if not self.steps:
            raise ValueError(f"there is no batch: {size} subjects, batch_size={batch_size}, drop_last={drop_last}")

    def __len__(self) -> int:
        return self.batches * self.local

    def __getitem__(self, index: int) -> tuple[int, int | None]:
        batch, place = divmod(index, self.local)
        epoch, step = divmod(batch, self.steps)
        own = self.size_of(batch) // self.parts
        first = step * self.batch_size + self.part * own
        return epoch, int(self.of_epoch(epoch)[first + place]) if place < own else None

    def size_of(self, batch: int) -> int:
        """How many subjects a batch has, in all processes together."""
        return min(self.batch_size, self.size - batch % self.steps * self.batch_size)


def order_of(key: Key | None, size: int, epoch: int) -> np.ndarray:
    """The order of the subjects in an epoch. (grain's own shuffle never ends for some seeds of a few elements.)"""
    if key is None:
        return np.arange(size)
    return np.asarray(jax.random.permutation(keys.for_step(keys.for_name(key, "shuffle"), epoch), size))
