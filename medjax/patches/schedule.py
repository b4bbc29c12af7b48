"""Which patch stands in which batch of a queue: arithmetic, known before a file is read."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax import keys
from medjax.typing import Key


class Schedule:
    """Which patches a batch holds.

    Patch p is the (p mod S)-th of volume p div S of the sequence of all volumes in all epochs.
    size: of the data set.  samples: patches of a volume, or of each one of the data set; S is the most.
    reach: places by which patches are spread, 0 to keep them in order.  order: the volumes of every epoch, if given.
    shard: (index, count) of the process among those that share the volumes of every epoch: of each `count` of them it
    has the one at `index`. Those that are left over at an epoch's end nobody has, so that all have as many.
    """

    def __init__(
        self, size: int, samples: Any, batch_size: int, epochs: int | range, reach: int, key: Key, shuffle: bool,
        order: Sequence[int] | None = None, shard: tuple[int, int] = (0, 1),
    ):  # fmt: skip
        counts = np.broadcast_to(samples, size)
        epochs = range(epochs) if isinstance(epochs, int) else epochs
        self.size, self.samples, self.batch_size = size, int(counts.max()), batch_size
        orders = [
            np.asarray(order, np.int64)
            if order is not None
            else numbers(key, "order", epoch).permutation(size)
            if shuffle
            else np.arange(size)
            for epoch in epochs
        ]
        part, parts = shard
        shared = [len(volumes) // parts * parts for volumes in orders]
        orders = [volumes[:n] for volumes, n in zip(orders, shared, strict=True)]
        volumes, of_epoch = np.concatenate(orders), np.repeat(np.asarray(epochs), shared)
        first = self.repeated(volumes, of_epoch, counts)
        self.volumes, self.epochs, self.first = volumes[part::parts], of_epoch[part::parts], first[part::parts]
        counts = counts[self.volumes]
        begin = counts.cumsum() - counts
        volume = np.repeat(np.arange(len(counts)), counts)
        j = np.arange(len(volume)) - begin[volume]
        # Of the same places in any epochs, so that their pools are of one size.
        spread = (j + numbers(key, "spread").random(len(j))) * reach / counts[volume] if reach else j
        due = begin[volume] + np.where(j == 0, 0, spread)  # the first is never late, so volumes come one by one
        self.order = (volume * self.samples + j)[np.argsort(due, kind="stable")]
        self.batches = -(-len(j) // batch_size)
        self.batch_of = np.full(len(counts) * self.samples, -1)  # of what is no patch
        self.batch_of[self.order] = np.arange(len(j)) // batch_size

    @staticmethod
    def repeated(volumes: np.ndarray, epochs: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """For each volume how many patches the same one has given before in its epoch."""
        found, first = Counter(), np.zeros(len(volumes), np.int64)
        for number, place in enumerate(zip(epochs.tolist(), volumes.tolist(), strict=True)):
            first[number] = found[place]
            found[place] += int(counts[place[1]])
        return first

    def patches(self, batch: int) -> np.ndarray:
        """The patches of a batch, in order."""
        return self.order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def arrivals(self, first: int) -> dict[int, list[int]]:
        """For each batch from `first` on the volumes that must have come; those that wait already come with `first`."""
        due = self.batch_of.reshape(-1, self.samples)
        coming: dict[int, list[int]] = {}
        for volume in np.flatnonzero((due >= first).any(1)):
            coming.setdefault(max(int(due[volume, 0]), first), []).append(int(volume))
        return {batch: coming[batch] for batch in sorted(coming)}

    def slots(self) -> int:
        """How many patches wait at most, those of the batch that is made included."""
        due = self.batch_of.reshape(-1, self.samples)
        due = due[due[:, 0] >= 0]
        come = np.bincount(due[:, 0], (due >= 0).sum(1), self.batches).cumsum()
        gone = np.bincount(due[due >= 0], minlength=self.batches).cumsum()
        return int((come - np.concatenate([[0], gone[:-1]])).max())


def numbers(key: Key, name: str, epoch: int = 0) -> np.random.Generator:
    """Random numbers on the host, by the name of what is drawn, in an epoch."""
    return np.random.default_rng(np.asarray(keys.words_of(keys.for_step(keys.for_name(key, name), epoch))))
