"""The thread that makes batches ahead of the consumer, and the iterator that takes them from it: for loader and queue.

What a batch holds is not decided here: a `Source` makes it.
"""

import contextlib
import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import jax

from medjax.subject import Subject

T = TypeVar("T")


class Skipped(NamedTuple):
    """A subject that was left out: when, its index in the data set, what errors call it, and what went wrong."""

    epoch: int
    index: int
    name: str
    error: Exception


class Stopped(Exception):
    """Nobody waits for what is read."""


class Reading:
    """What threads that read go by: they are known, begin nothing once told to stop, and list what they skip."""

    def __init__(self):
        self.threads: set[threading.Thread] = set()
        self.stop = threading.Event()
        self.skipped: list[Skipped] = []

    def proceed(self) -> None:
        """Called before a file is begun; raises Stopped where none is to be."""
        self.threads.add(threading.current_thread())
        if self.stop.is_set():
            raise Stopped


class Source(Protocol):
    """What batches come from: the loader of this file, or the queue of patches."""

    order: Any
    ahead: int
    """How many finished batches may wait for the consumer."""

    def __len__(self) -> int:
        """How many batches there are."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What a state must agree with: numbers that say what is counted, and digests of what is drawn from."""
        ...

    def epoch_of(self, batch: int) -> int:
        """The number of the epoch to which a batch belongs, from 0 on."""
        ...

    def elements(self, first: int, reading: Reading) -> Any:
        """An iterator of what is decoded for the batches from `first` on."""
        ...

    def batches(self, elements: Iterator[Any], count: int, reading: Reading) -> Iterator[tuple[int, Any]]:
        """The last `count` batches with their numbers; instead of a batch, the error with which it failed."""
        ...


class BatchIterator:
    """The batches of a loader or queue from some number on; what runs ahead of it ends when it is closed or dropped.

    Threads may share one: each batch goes to one of them. skipped: what has been left out so far, with the error.
    It counts as a `grain.DatasetIterator`, so that what saves and restores those does so with it.
    """

    def __init__(self, source: Source):
        register()
        self._source, self._next = source, 0
        self._close: Callable[[], object] | None = None
        self._lock = threading.RLock()
        self.skipped: list[Skipped] = []
        self._warned = 0

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Subject:
        with self._lock:
            if self._next >= len(self._source):
                self.close()
                self._warn(None)
                raise StopIteration
            self.start_prefetch()
            try:
                number, batch, skipped = self._take()
            except BaseException:  # Ctrl-C, or what has nothing to do with a batch
                self.close()
                raise
            self._next = number + 1
            known = {(s.epoch, s.index) for s in self.skipped}
            self.skipped += [s for s in skipped if (s.epoch, s.index) not in known]
            if batch is None:  # nothing is left of it or of those behind it
                return next(self)
            if isinstance(batch, BaseException):
                self.close()
                raise batch
            if number:
                self._warn(self._source.epoch_of(number))
            return batch

    def _warn(self, epoch: int | None) -> None:
        """Warn of what was left out in epochs before this one, once."""
        new = [s for s in self.skipped[self._warned :] if epoch is None or s.epoch < epoch]
        if new:
            self._warned += len(new)
            shown = "; ".join(str(s.error) for s in new[:20]) + ("; ..." if len(new) > 20 else "")
            warnings.warn(f"{len(new)} subjects were skipped in epoch {new[-1].epoch}: {shown}", stacklevel=3)

    def close(self) -> None:
        """End the threads and drop what they prepared. `next` begins anew with the batch that is due."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def start_prefetch(self) -> None:
        """Begin to make batches, as `next` would."""
        with self._lock:
            if self._close is None and self._next < len(self._source):
                worker = Worker(self._source, self._next)
                self._take, self._close = worker.take, weakref.finalize(self, worker.close)

    def save(self, directory: Any) -> Any:
        """For orbax: what writes the state into a folder."""
        return grain_iterator().save(cast(Any, self), directory)

    def load(self, directory: Any) -> Any:
        """For orbax: what goes on from the state in a folder."""
        return grain_iterator().load(cast(Any, self), directory)

    def get_state(self) -> dict[str, Any]:
        """Where the iterator stands, for JSON: number of the batch that is next, and digests of what it counts."""
        return {"batch": self._next, **self._source.identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to where an iterator of the same data set, key and options stood.

        Raises ValueError, saying in what it differs, for the state of another, and for what is no state.
        """
        ours = self._source.identity
        if not isinstance(state, dict) or set(state) != {"batch", *ours}:
            raise ValueError(f"a state is a dictionary with {', '.join(('batch', *ours))}, got {state!r:.200}")
        other = [name for name, value in ours.items() if state[name] != value]
        if other:
            raise ValueError(
                f"the state is of another {', another '.join(other)}: it has {state!r}, here it is like "
                f"{self.get_state()}"
            )
        batch = state["batch"]
        if not isinstance(batch, int) or isinstance(batch, bool) or not 0 <= batch <= len(self._source):
            raise ValueError(f"the state's batch must be from 0 to {len(self._source)}, got {batch!r}")
        with self._lock:
            self.close()
            self._next = batch


def grain_iterator() -> Any:
    """grain's base class of iterators, which is slow to import and need not be there."""
    import grain

    return grain.DatasetIterator


@cache
def register() -> None:
    """Let iterators of batches count as grain's, if there is grain; else reading says what is missing."""
    with contextlib.suppress(ImportError):
        grain_iterator().register(BatchIterator)


class Worker:
    """The thread that stacks and transforms batches ahead of the consumer."""

    def __init__(self, source: Source, first: int):
        self._ready: queue.Queue[tuple[int, Any, list[Skipped]]] = queue.Queue(maxsize=source.ahead)
        self._reading = Reading()
        # The thread must not know this object: it would keep itself alive.
        arguments = (source, first, self._ready, self._reading)
        self._thread = threading.Thread(target=as_here(work), args=arguments, name="medjax-loader", daemon=True)
        self._thread.start()

    def take(self) -> tuple[int, Any, list[Skipped]]:
        """The number of the next batch, it or the error with which it failed, and what was left out until then."""
        return self._ready.get()

    def close(self) -> None:
        """Ask the thread to end, and wait for it; whoever waits for a batch is told."""
        self._reading.stop.set()
        while self._thread.is_alive() and self._thread is not threading.current_thread():
            with contextlib.suppress(queue.Empty):
                self._ready.get_nowait()  # it may be waiting for room
            self._thread.join(0.01)
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()
        self._ready.put((-1, RuntimeError("the iterator was closed while a batch was waited for"), []))


def as_here(function: Callable[..., T]) -> Callable[..., T]:
    """A function that goes by the settings of this thread wherever it is called.

    What `with jax.default_device(...)` and `with jax.enable_x64()` set holds for the thread that says it alone.
    """
    config: Any = jax.config
    device, x64 = config.jax_default_device, config.jax_enable_x64

    def run(*arguments: Any) -> T:
        with jax.default_device(device), jax.enable_x64(x64):
            return function(*arguments)

    return run


def work(source: Source, first: int, ready: queue.Queue, reading: Reading) -> None:
    """Put batches into `ready` until told to stop or all are made, and what went wrong, if anything did."""
    elements, number = None, first - 1
    try:
        elements = source.elements(first, reading)
        for number, batch in source.batches(elements, len(source) - first, reading):
            ready.put((number, batch, reading.skipped[:]))
            if reading.stop.is_set():
                return
        ready.put((len(source) - 1, None, reading.skipped[:]))
    except BaseException as error:
        ready.put((number + 1, error, reading.skipped[:]))
    finally:
        if elements is not None:
            elements.close()
        reading.threads.discard(threading.current_thread())  # a queue reads here too, in another's stead
        while reading.threads:
            reading.threads.pop().join()
