"""Batches of a data set, transformed ahead of the loop that uses them."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import medjax as mj
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.bridge import draw_key
from torch_bridge.pending import element_keys
from torch_bridge.queue import Queue
from torch_bridge.ranks import are_several, share
from torch_bridge.steps import has_torch
from torch_bridge.subject import Batch


class SubjectsLoader(DataLoader):
    """Batches of a data set, one of them made ahead by a thread while the one before is used; a torch DataLoader.

    dataset: a SubjectsDataset, a Subset or ConcatDataset of some, or a Queue, which has an order, keys and a state of
    its own and is not read ahead of.  batch_size: B.  shuffle: a new order in each epoch.  num_workers: processes that
    read; 0 has the thread read.  drop_last: leave out a last batch of fewer than B.
    generator: where the seed of this loader is drawn from, when it is first iterated; None for torch's default.
    device: where the batches lie; None for where JAX computes.  pin_memory: pinned, where they lie on a CPU beside a
    GPU.  sampler, batch_sampler, collate_fn and the rest: as those of a DataLoader.

    An element is transformed by a key of its own: of the seed, the epoch and its index in the data set, whatever batch
    it lands in. Iterating again is the next epoch. `state_dict()` is where the loader stands, for `torch.save` or JSON;
    after `load_state_dict` the next iteration goes on from there.
    Under torch.distributed each rank has its part of an epoch, of the same length, as DistributedSampler deals it: so
    Lightning's `use_distributed_sampler` changes nothing, and the state of one rank is that of all. A sampler of the
    user's is asked instead: `sampler=SequentialSampler(dataset)` gives a rank the whole.
    Raises ValueError for no batch at all; what goes wrong with a subject reaches the loop and begins with the subject.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = False,
        num_workers: int = 0,
        *,
        drop_last: bool = False,
        pin_memory: bool = False,
        generator: torch.Generator | None = None,
        device: Any = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        **options: Any,
    ):
        self.device, self._queue, self._options = device, dataset if isinstance(dataset, Queue) else None, options
        self.shuffle = shuffle
        self._chooses = sampler is not None or batch_sampler is not None
        given = {"sampler": sampler, "batch_sampler": batch_sampler, "generator": generator, **options}
        order = (
            {} if batch_sampler is not None else {"batch_size": batch_size, "shuffle": shuffle, "drop_last": drop_last}
        )
        super().__init__(dataset, num_workers=num_workers, **order, **given)
        self.pin_memory = pin_memory
        self._seed: np.ndarray | None = None
        self._epoch, self._batch, self._resumes = -1, 0, False
        self._order: list[list[int]] | None = None
        if not len(self):
            raise ValueError(
                f"there is no batch: {len(dataset)} subjects, batch_size={batch_size}, drop_last={drop_last}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: its seed, the epoch, and how many of its batches were given; that of a Queue."""
        if self._queue is not None:
            return self._queue.state_dict()
        seed = None if self._seed is None else self._seed.tolist()
        dealt = self.dealing()
        chosen = {} if not self._chooses else {"order": self._order} if dealt is None else {"dealt": dealt.epoch}
        return {"seed": seed, "epoch": self._epoch, "batch": self._batch, **chosen}

    def dealing(self) -> Any:
        """The user's sampler, if what it gives follows from its rank and an epoch, as a DistributedSampler's."""
        samplers = (self.batch_sampler, getattr(self.batch_sampler, "sampler", None), self.sampler)
        return next((s for s in samplers if hasattr(s, "set_epoch") and hasattr(s, "epoch")), None)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a loader of the same data set and options stood."""
        if self._queue is not None:
            self._queue.load_state_dict(state)
            return
        self._seed = None if state["seed"] is None else np.array(state["seed"], np.uint32)
        self._epoch, self._batch, self._order = state["epoch"], state["batch"], state.get("order")
        self._resumes = state["seed"] is not None and state["batch"] < len(self)
        dealt = self.dealing()
        if self._resumes and dealt is not None and "dealt" in state:
            dealt.set_epoch(state["dealt"])

    def __len__(self) -> int:
        if self._chooses or self._queue is not None or not are_several():
            return super().__len__()
        size = len(share(self.dataset, bool(self.shuffle), 0, self.drop_last))
        return size if self.batch_size is None else (size if self.drop_last else size + self.batch_size - 1) // (
            self.batch_size
        )  # fmt: skip

    def order(self, epoch: int) -> list[list[int]]:
        """The indices of each batch of an epoch; a sampler of the user's is asked once for each."""
        if self._chooses:
            sampler: Any = self.batch_sampler
            if not self._resumes or self._order is None:
                self._order = [list(map(int, batch)) for batch in sampler]
            return self._order
        size, length = len(self.dataset), self.batch_size
        assert self._seed is not None and length is not None
        if are_several():
            order = list(share(self.dataset, bool(self.shuffle), epoch, self.drop_last))
        elif self.shuffle:
            order = np.random.default_rng([*self._seed, epoch]).permutation(size).tolist()
        else:
            order = list(range(size))
        return [order[i * length : (i + 1) * length] for i in range(len(self))]

    def __iter__(self) -> Any:
        if self._queue is not None:
            yield from map(self.moved, self.of_queue())
            return
        if self.batch_size is None and not self._chooses:
            yield from super().__iter__() if not are_several() else self.singles()
            return
        if self._seed is None:
            self._seed = draw_key(self.generator)
        if not self._resumes:
            self._epoch, self._batch = self._epoch + 1, 0
        batches = self.order(self._epoch)[self._batch :]
        self._resumes = False
        options = {"num_workers": self.num_workers, "generator": torch.Generator(), **self._options}
        reads = DataLoader(self.dataset, batch_sampler=batches, **options)  # pyright: ignore
        # Workers are started here, not in the thread: torch watches those of the main thread.
        finish = Finish(self._seed, self._epoch, self.device, self.pin_memory)
        finished = map(finish, batches, iter(reads))
        # Steps in torch seed the generators of the process, which the loop draws from: not beside it.
        yield from self.counted(finished if self.in_torch() else ahead(finished))

    def singles(self) -> Iterator[Any]:
        """The elements of this rank's part of an epoch, one by one."""
        self._epoch += 1
        part = share(self.dataset, bool(self.shuffle), self._epoch, self.drop_last)
        return iter(DataLoader(self.dataset, None, sampler=part, num_workers=self.num_workers, **self._options))

    def of_queue(self) -> Iterator[Any]:
        """Batches of a Queue: an epoch, or as many patches as a sampler of the user's asks for."""
        if self._chooses or self.num_workers:
            yield from super().__iter__()
            return
        patches, size = iter(self._queue), self.batch_size or 1  # pyright: ignore
        while some := list(islice(patches, size)):
            if len(some) == size or not self.drop_last:
                yield self.collate_fn(some if self.batch_size is not None else some[0])

    def in_torch(self) -> bool:
        """Whether the data set's transform is known to have steps in torch."""
        t = getattr(self.dataset, "transform", None)
        return isinstance(t, mj.Transform) and has_torch(t)

    def moved(self, batch: Any) -> Any:
        """A batch of a Queue, where batches are to lie."""
        batch = batch if self.device is None else batch.to(self.device)
        return batch.pin_memory() if self.pin_memory else batch

    def counted(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, counted as they are given."""
        with contextlib.closing(batches) if hasattr(batches, "close") else contextlib.nullcontext():  # pyright: ignore
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
