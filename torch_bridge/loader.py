"""Batches of a data set, transformed ahead of the loop that uses them."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from medjax.data.loader import keys_of
from medjax.keys import as_key, words_of
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.subject import Batch
from torch_bridge.transforms import draw_key


class SubjectsLoader:
    """Batches of a data set, one of them made ahead by a thread while the one before is used.

    dataset: a SubjectsDataset, a Subset or ConcatDataset of some, or a Queue, which has an order, keys and a state of
    its own and is not read ahead of.  batch_size: B.  shuffle: a new order in each
    epoch.  num_workers: processes that read; 0 has the thread read.  drop_last: leave out a last batch of fewer than B.
    generator: where the seed of this loader is drawn from, when it is first iterated; None for torch's default.
    device: where the batches lie; None for where JAX computes.  pin_memory: pinned, where they lie on a CPU beside a
    GPU.

    An element is transformed by a key of its own: of the seed, the epoch and its index in the data set, whatever batch
    it lands in. Iterating again is the next epoch. `state_dict()` is where the loader stands, for `torch.save` or JSON;
    after `load_state_dict` the next iteration goes on from there.
    Raises ValueError for no batch at all; what goes wrong with a subject reaches the loop and begins with the subject.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        num_workers: int = 0,
        *,
        drop_last: bool = False,
        pin_memory: bool = False,
        generator: torch.Generator | None = None,
        device: Any = None,
    ):
        self.dataset, self.batch_size, self.shuffle, self.num_workers = dataset, batch_size, shuffle, num_workers
        self.drop_last, self.pin_memory, self.generator, self.device = drop_last, pin_memory, generator, device
        self._queue: Any = dataset if isinstance(dataset, IterableDataset) else None
        self._seed: np.ndarray | None = None
        self._epoch, self._batch, self._resumes = -1, 0, False
        if not len(self):
            raise ValueError(
                f"there is no batch: {len(dataset)} subjects, batch_size={batch_size}, drop_last={drop_last}"
            )

    def __len__(self) -> int:
        size = len(self.dataset)
        return size // self.batch_size if self.drop_last else -(-size // self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: its seed, the epoch, and how many of its batches were given; that of a Queue."""
        if self._queue is not None:
            return self._queue.state_dict()
        return {"seed": None if self._seed is None else self._seed.tolist(), "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a loader of the same data set and options stood."""
        if self._queue is not None:
            self._queue.load_state_dict(state)
            return
        self._seed = None if state["seed"] is None else np.array(state["seed"], np.uint32)
        self._epoch, self._batch = state["epoch"], state["batch"]
        self._resumes = state["seed"] is not None and state["batch"] < len(self)

    def order(self, epoch: int) -> list[list[int]]:
        """The indices of each batch of an epoch."""
        size = len(self.dataset)
        assert self._seed is not None
        order = np.random.default_rng([*self._seed, epoch]).permutation(size) if self.shuffle else np.arange(size)
        return [order[i * self.batch_size : (i + 1) * self.batch_size].tolist() for i in range(len(self))]

    def __iter__(self) -> Iterator[Any]:
        if self._queue is not None:
            given = {"drop_last": self.drop_last, "generator": torch.Generator()}
            batches = DataLoader(self._queue, self.batch_size, self.shuffle, num_workers=self.num_workers, **given)
            yield from map(self.moved, batches)
            return
        if self._seed is None:
            self._seed = draw_key(self.generator)
        if not self._resumes:
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumes = False
        batches = self.order(self._epoch)[self._batch :]
        reads = DataLoader(
            self.dataset,
            batch_sampler=batches,  # pyright: ignore
            num_workers=self.num_workers,
            generator=torch.Generator(),
        )
        # Workers are started here, not in the thread: torch watches those of the main thread.
        finish = Finish(self._seed, self._epoch, self.device, self.pin_memory)
        yield from self.counted(ahead(map(finish, batches, iter(reads))))

    def moved(self, batch: Any) -> Any:
        """A batch of a Queue, where batches are to lie."""
        batch = batch if self.device is None else batch.to(self.device)
        return batch.pin_memory() if self.pin_memory else batch

    def counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, counted as they are given."""
        with contextlib.closing(batches):  # pyright: ignore
            for batch in batches:
                self._batch += 1
                yield batch


class Finish:
    """Transforms a batch that was read, each element by the key of its epoch and index."""

    def __init__(self, seed: np.ndarray, epoch: int, device: Any, pin_memory: bool):
        self.seed, self.epoch, self.device, self.pin_memory = seed, epoch, device, pin_memory

    def __call__(self, indices: Sequence[int], batch: Any) -> Any:
        if not isinstance(batch, Batch):
            return batch
        if batch._pending is not None:
            batch._pending.device = self.device
            if is_random(batch._pending.held.transform):
                batch._pending.keys = forked.run(element_keys, self.seed, self.epoch, indices)
            batch._ready()
        elif self.device is not None:
            batch = batch.to(self.device)
        return batch.pin_memory() if self.pin_memory else batch


def element_keys(seed: np.ndarray, epoch: int, indices: Sequence[int]) -> np.ndarray:
    """The keys of elements of a data set in an epoch, (B, 2)."""
    found = keys_of(as_key(seed), np.uint32(epoch), np.array(indices, np.uint32))
    return np.asarray(words_of(found))


def ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """The items of an iterator, which a thread takes one ahead; the thread ends with this iterator."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    stop = threading.Event()
    thread = threading.Thread(target=take_all, args=(batches, ready, stop), daemon=True, name="torch_bridge-loader")
    thread.start()
    try:
        while True:
            what, value = ready.get()
            if what == "end":
                return
            if what == "error":
                raise value
            yield value
    finally:
        stop.set()
        while thread.is_alive():
            with contextlib.suppress(queue.Empty):
                ready.get_nowait()  # it may be waiting for room
            thread.join(0.01)


def take_all(batches: Iterator[Any], ready: "queue.Queue[tuple[str, Any]]", stop: threading.Event) -> None:
    """Put the items of an iterator into a queue, then how it ended."""
    try:
        for batch in batches:
            ready.put(("item", batch))
            if stop.is_set():
                return
        ready.put(("end", None))
    except BaseException as error:
        ready.put(("error", error))
