"""Subjects for torch's data loaders: workers decode, the parent transforms.

`dataset[i]` is a pending subject, read and not transformed; what collates is a pending batch; both pickle as what they
are. Whoever first looks at what they hold transforms: the parent of a data loader a whole batch at once, on its device,
with keys drawn from torch's default generator in the order of the batch. So a plain DataLoader gives the same batches
with any number of workers, whatever starts them. What runs in a worker touches NumPy and torch only.
"""

import contextlib
import operator
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torch.utils.data._utils.collate import default_collate_fn_map

import medjax as mj
from medjax.arguments import maybe, of_type
from medjax.data.loader import keys_of
from medjax.data.prepared import prepared_by
from medjax.errors import about
from medjax.keys import as_key, words_of
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.cached import from_cache
from torch_bridge.pending import Held, Pending
from torch_bridge.subject import (
    Batch,
    Image,
    Subject,
    check_names,
    from_torchio,
    same_shapes,
    stacked,
)
from torch_bridge.transforms import draw_key


def collate(subjects: Sequence[Subject], *, collate_fn_map: Any = None) -> Batch:
    """A batch of subjects; pending if they are. Raises ValueError, saying which two, if they differ in their images."""
    del collate_fn_map
    pending = [subject._pending for subject in subjects]
    if any(p is None or p.held is not pending[0].held for p in pending):
        return stacked(subjects, [f"element {i}" for i in range(len(subjects))])
    who = [p.who[0] for p in pending]
    read = [Subject(subject._items) for subject in subjects]
    check_names(read, who)
    fits = same_shapes(read)
    # Where they differ in shape they are brought to one by the transform, each on its own.
    batch = stacked(read, who) if fits else Batch({})
    batch._pending = Pending(pending[0].held, who, None if fits else read)
    return batch


default_collate_fn_map[Subject] = collate


class SubjectsDataset(Dataset):
    """Subjects by number, for any torch DataLoader; read and transformed when they are asked for.

    subjects: Subjects of the bridge or of torchio, usually of paths. What is read goes into a copy, so memory is flat
    however often they are drawn.  transform: one of the bridge or of medjax, or any function of a Subject.  cache: a
    `Cache` that keeps what each subject becomes before anything random, for later epochs and for other processes.

    `dataset[i]` is read at once and transformed at the first look at it, or at the batch that it became: in the parent
    process of a DataLoader with workers, a batch at once. A function of the user's own is called at once instead, in
    the worker. `keys` are drawn from torch's default generator then, so that `torch.manual_seed` makes it repeatable.
    Raises TypeError for what is no Subject, IndexError beyond the end. An error while reading or transforming begins
    with the subject: its index, its short metadata and its files.
    """

    def __init__(
        self,
        subjects: Iterable[Any],
        transform: Callable[[Any], Any] | None = None,
        *,
        cache: mj.Cache | None = None,
    ):
        self.subjects = [s if isinstance(s, Subject) else to_subject(s, i) for i, s in enumerate(subjects)]
        self.cache = maybe(of_type(mj.Cache))("cache", cache)
        self.set_transform(transform)

    def set_transform(self, transform: Callable[[Any], Any] | None) -> None:
        """Take another transform."""
        if transform is not None and not callable(transform):
            raise TypeError(f"transform must be a transform, a function or None, got {transform!r}")
        of_medjax = isinstance(transform, mj.Transform)
        self._held, self._function = (Held(transform), None) if of_medjax else (None, transform)
        self._prepared, self._rest = None, self._held
        if self.cache is not None:
            self._prepared, rest = prepared_by(self.cache, transform if of_medjax else None, "torch_bridge")
            self._rest = None if rest is None else Held(rest)

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """The transform of a subject."""
        return self._function if self._held is None else self._held.transform

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> Subject:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} is beyond the {len(self)} subjects of the data set")
        who = describe(self.subjects[number], number % len(self))
        with about(who):
            subject = self.prepared(number)
            if self._rest is not None:
                subject._pending = Pending(self._rest, [who])
            elif self._function is not None:
                return self._function(subject)
        return subject

    def prepared(self, number: int) -> Subject:
        """A subject, read; with a cache also transformed, up to the first random step."""
        given = self.subjects[number]
        return given.read() if self._prepared is None else from_cache(self._prepared, given)

    def __repr__(self) -> str:
        return f"SubjectsDataset({len(self)} subjects, transform={self.transform!r})"


def to_subject(x: Any, index: int) -> Subject:
    """A subject of torchio as one of the bridge; raises TypeError for anything else."""
    if type(x).__module__.partition(".")[0] != "torchio":
        raise TypeError(f"subjects[{index}] is no Subject but a {type(x).__name__}")
    return from_torchio(x)


def describe(subject: Subject, index: int) -> str:
    """Which subject this is, for a message: its index, its short metadata and its files."""
    items = subject.items()
    known = [f"{n}={i!r}" for n, i in items if isinstance(i, int) or (isinstance(i, str) and len(i) <= 80)]
    files = [f"{n}: {i.path}" for n, i in items if isinstance(i, Image) and i.path is not None]
    return f"subject {index}" + (f" ({', '.join(known + files)})" if known or files else "")


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
