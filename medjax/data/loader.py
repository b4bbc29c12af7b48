"""Batches for a training loop: threads decode, one thread augments each batch on its device, one batch ahead.

    data set -> order of the epoch -> decode (num_threads, by grain) -> stack, pad -> transform a batch -> consumer

What a batch holds is arithmetic: batch b of an epoch has the subjects at places b B to (b + 1) B of the order that the
key and the epoch give, and each is transformed by the key of its epoch and index. So the number of threads changes
nothing, and the state of an iterator is the number of its next batch.
"""

import contextlib
import itertools
import operator
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from medjax import keys
from medjax.data.dataset import SubjectsDataset
from medjax.errors import about, needs_extra, needs_key
from medjax.subject import Subject, compare, stack
from medjax.transforms import buckets, call, checks, host
from medjax.transforms.program import is_random
from medjax.typing import Key, Shape3

Device = jax.Device | NamedSharding | None


def loader(
    dataset: SubjectsDataset,
    batch_size: int,
    key: Any,
    *,
    shuffle: bool = True,
    drop_last: bool = False,
    epochs: int = 1,
    num_threads: int = 2,
    prefetch: int = 2,
    device: Any = None,
) -> "Loader":
    """Batches of a data set, read by threads and transformed as batches on a device.

    batch_size: B; images are (B, C, I, J, K), arrays of subjects (B, ...), metadata tuples of B.  key: what shuffles
    and what transforms draw from; None if neither does.  shuffle: a new order in each epoch.  drop_last: leave out a
    last batch of fewer than B.
    epochs: how often all subjects are given; batches do not cross epochs.  num_threads: that read and decode.
    prefetch: batches that are decoded ahead.  device: a `jax.Device`, or a `jax.sharding.Sharding` that splits the
    batch axis over devices; None for JAX's default.

    Iterating again gives the same batches again, for any number of threads; `len` counts them. Subject i of the data
    set is what `dataset.get(i, keys.for_element(key, epoch, i))` gives, whatever batch it lands in. Every subject is
    read each time it is drawn, and nothing that was read is kept. `iter(loader).get_state()` is a small dictionary for
    JSON; `set_state` goes on from there. Leaving a loop early, or `close()`, ends the threads.

    Where the transform begins with steps that end in a fixed shape (`Resample(1.0), CropOrPad(160)`), subjects may
    differ in shape: they are padded to one shape for the whole data set, known from the headers, and only what is real
    is seen. Otherwise the subjects of a batch must agree in shape.

    Raises ImportError without the `loader` extra; TypeError for a key that is none; ValueError for sizes below 1, for
    no batch at all, and for batches that do not divide over the devices. An error while reading or transforming reaches
    the consumer and begins with the subject.

    >>> dataset = mj.SubjectsDataset(subjects, pipeline)
    >>> for batch in mj.loader(dataset, 2, jax.random.key(0), epochs=10):
    ...     state = train_step(state, batch.t1.data, batch.label.data)
    """
    if not isinstance(dataset, SubjectsDataset):
        raise TypeError(f"dataset must be a SubjectsDataset(subjects, transform), got {type(dataset).__name__}")
    sizes = {"batch_size": batch_size, "epochs": epochs, "num_threads": num_threads, "prefetch": prefetch}
    for name, size in sizes.items():
        if operator.index(size) < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if key is not None:
        key = keys.as_key(key)
    elif shuffle:
        needs_key("shuffle=True", "loader(dataset, batch_size, jax.random.key(0))")
    elif dataset.transform is not None and is_random(dataset.transform):
        needs_key(type(dataset.transform).__name__, "loader(dataset, batch_size, jax.random.key(0))")
    order = Order(len(dataset), batch_size, key if shuffle else None, drop_last, epochs)
    target = as_target(device)
    parts = len(target.device_set) if isinstance(target, NamedSharding) else 1
    for size in {order.size_of(0), order.size_of(order.steps - 1)}:
        if size % parts:
            hint = "; drop_last=True leaves it out" if size < batch_size else ""
            raise ValueError(f"a batch of {size} does not divide over {parts} devices{hint}")
    return Loader(dataset, order, key, num_threads, prefetch, target)


def as_target(device: Any) -> Device:
    """The device, or the sharding of the leading axis, that a user asks for."""
    if isinstance(device, SingleDeviceSharding):
        return next(iter(device.device_set))
    if isinstance(device, NamedSharding):
        spec = tuple(device.spec)
        if not spec or spec[0] is None or any(axis is not None for axis in spec[1:]):
            raise ValueError(
                f"device must split the first axis, that of the batch, and no other; its spec is {device.spec}"
            )
        return NamedSharding(device.mesh, PartitionSpec(spec[0]))
    if device is None or isinstance(device, jax.Device):
        return device
    raise TypeError(f"device must be a jax.Device, a NamedSharding or None, got {device!r}")


class Order:
    """Which subject stands where: a sequence of (epoch, index), B of them a batch; grain's source.

    size: number of subjects.  key: what shuffles, or None.  A last batch of fewer than B is filled up with index None,
    so that batches never cross epochs.
    """

    def __init__(self, size: int, batch_size: int, key: Key | None, drop_last: bool, epochs: int):
        self.size, self.batch_size = size, batch_size
        self.steps = size // batch_size if drop_last else -(-size // batch_size)
        self.batches = self.steps * epochs
        self.of_epoch = lru_cache(4)(partial(order_of, key, size))
        if not self.steps:
            raise ValueError(f"there is no batch: {size} subjects, batch_size={batch_size}, drop_last={drop_last}")

    def __len__(self) -> int:
        return self.batches * self.batch_size

    def __getitem__(self, index: int) -> tuple[int, int | None]:
        epoch, place = divmod(index, self.steps * self.batch_size)
        return epoch, int(self.of_epoch(epoch)[place]) if place < self.size else None

    def size_of(self, batch: int) -> int:
        """How many subjects a batch has."""
        return min(self.batch_size, self.size - batch % self.steps * self.batch_size)


def order_of(key: Key | None, size: int, epoch: int) -> np.ndarray:
    """The order of the subjects in an epoch. (grain's own shuffle never ends for some seeds of a few elements.)"""
    if key is None:
        return np.arange(size)
    return np.asarray(jax.random.permutation(keys.for_step(keys.for_name(key, "shuffle"), epoch), size))


class Element(NamedTuple):
    """A decoded subject, its place in the data set, its epoch, and what an error calls it; all None for a filler."""

    epoch: int
    index: int | None
    subject: Subject | None
    name: str


class Started(NamedTuple):
    """A batch whose augmentation has begun: what went in, what comes out, what is to be checked, what errors say."""

    batch: Subject
    result: Subject
    record: Any
    names: list[str]


class Source(Protocol):
    """What batches come from: the loader of this file, or the queue of patches."""

    order: Any
    ahead: int
    """How many finished batches may wait for the consumer."""

    def __len__(self) -> int:
        """How many batches there are."""
        ...

    def elements(self, first: int, seen: set[threading.Thread]) -> Any:
        """An iterator of what is decoded for the batches from `first` on; `seen` collects the threads that read."""
        ...

    def batches(self, elements: Iterator[Any], count: int) -> Iterator[Subject]:
        """The last `count` batches."""
        ...


class Loader:
    """What `loader` makes: an iterable of batches."""

    ahead = 1

    def __init__(
        self, dataset: SubjectsDataset, order: Order, key: Key | None, num_threads: int, prefetch: int, target: Device
    ):
        self.dataset, self.order, self.key, self.target = dataset, order, key, target
        self.num_threads, self.prefetch = num_threads, prefetch
        self._padding: dict[str, Shape3 | None] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def __repr__(self) -> str:
        return f"loader({self.dataset!r}, batch_size={self.order.batch_size}, {len(self)} batches)"

    # -- the stages, in the order in which they run

    def elements(self, first: int, seen: set[threading.Thread]) -> Any:
        """grain's iterator of decoded elements, from batch `first` on; `seen` collects the threads that read."""
        try:
            import grain
        except ImportError:
            needs_extra("grain", "loader", "medjax.loader")

        def decode(place: tuple[int, int | None]) -> Element:
            seen.add(threading.current_thread())
            return self.decode(*place)

        options = grain.ReadOptions(
            num_threads=self.num_threads,
            prefetch_buffer_size=max(self.prefetch * self.order.batch_size, self.num_threads),
        )
        elements = iter(grain.MapDataset.source(self.order).map(decode).to_iter_dataset(options))
        if first:
            elements.set_state({"next_index": first * self.order.batch_size})
        return elements

    def batches(self, elements: Iterator[Element], count: int) -> Iterator[Subject]:
        """The next `count` batches, each begun before the one ahead of it is given: the device need not wait.

        A batch that fails does not take the one ahead of it with it.
        """
        started = None
        for _ in range(count):
            ahead, problem = None, None
            try:
                ahead = self.start(list(itertools.islice(elements, self.order.batch_size)))
            except Exception as error:
                problem = error
            if started is not None:
                yield self.finish(started)
            if problem is not None:
                raise problem
            started = ahead
        if started is not None:
            yield self.finish(started)

    def decode(self, epoch: int, index: int | None) -> Element:
        """Read a subject, its voxels in the order in which the device reads them."""
        if index is None:
            return Element(epoch, None, None, "")
        subject = self.dataset.read(index)
        images = {name: image.replace(data=in_order(image.data)) for name, image in subject.images.items()}
        return Element(epoch, index, subject.replace(**images), self.dataset.describe(index))

    def start(self, elements: Sequence[Element]) -> Started:
        """Stack the elements of a batch and begin to transform it; does not wait for the result."""
        names = [element.name for element in elements if element.subject is not None]
        subjects = [element.subject for element in elements if element.subject is not None]
        shapes = self.padded_shapes(subjects)
        for name, subject in zip(names[1:], subjects[1:], strict=True):
            compare(subjects[0], subject, f"{names[0]} and {name}", shapes)
        batch = stack(subjects, shape=shapes)
        t = self.dataset.transform
        if t is None:
            return Started(batch, self.put(batch), None, names)
        full = batch
        missing = len(elements) - len(subjects)
        if missing:  # another size would be another program
            full = stack(subjects + subjects[:1] * missing, shape=shapes)
        with about(names[0]):
            checks.check_subject(t, full)
            result, record = call.compute(t, self.put(host.bare(full)), self.element_keys(elements))
        return Started(batch, result, record, names)

    def finish(self, started: Started) -> Subject:
        """Wait for a batch, check it, and give it its affines and metadata."""
        batch, result, record, names = started
        t, size = self.dataset.transform, len(names)
        if t is None:
            return result
        if size < self.order.batch_size:
            result = jax.tree.map(lambda leaf: leaf[:size], result)
        return host.after_batch(t, batch, result, record, size, names)

    def put(self, batch: Subject) -> Subject:
        """The batch with its voxels on the device."""
        images = {
            name: image.replace(data=jax.device_put(image.data, self.target)) for name, image in batch.images.items()
        }
        return batch.replace(**images)

    def element_keys(self, elements: Sequence[Element]) -> Key | None:
        """The (B,) keys of the elements of a batch."""
        if self.key is None:
            return None
        indices = np.array([elements[0].index if e.index is None else e.index for e in elements], np.uint32)
        found = keys_of(self.key, np.uint32(elements[0].epoch), indices)
        return found if self.target is None else jax.device_put(found, self.target)

    # -- padding

    def padded_shapes(self, subjects: Sequence[Subject]) -> dict[str, Shape3]:
        """The shape that each image which needs it is padded to, for the subjects of a batch.

        The largest of the data set, so that there is one program, unless that is more than twice what this batch needs
        in its bucket.
        """
        shapes = {}
        for name, largest in self.padding().items():
            found = [subject.images[name].spatial_shape for subject in subjects if name in subject.images]
            if not found:
                continue
            need = buckets.bucket(tuple(max(sizes) for sizes in zip(*found, strict=True)))
            if largest is not None:
                need = tuple(min(n, m) for n, m in zip(need, largest, strict=True))
                need = largest if 2 * np.prod(need) >= np.prod(largest) else need
            shapes[name] = need
        return shapes

    def padding(self) -> dict[str, Shape3 | None]:
        """For each image that may be padded and whose shape varies, its largest shape in the data set.

        None where the shapes are not known without reading: images of a reader of the user's.
        """
        with self._lock:
            if self._padding is None:
                self._padding = self.find_padding()
            return self._padding

    def find_padding(self) -> dict[str, Shape3 | None]:
        """`padding`, from the headers of all files."""
        t, dataset = self.dataset.transform, self.dataset
        if t is None:
            return {}
        first = dataset.read(0)
        with about(dataset.describe(0)):
            checks.check_subject(t, first)
            names = list(host.fixed_shapes(t, self.key, first))

        def shapes(index: int) -> dict[str, tuple[int, ...] | None]:
            images = dataset.subjects[index].images
            with about(dataset.describe(index)):
                return {name: images[name].known_shape() for name in names if name in images}

        with ThreadPoolExecutor(self.num_threads) as pool:
            found = list(pool.map(shapes, range(len(dataset)) if names else ()))
        padding: dict[str, Shape3 | None] = {}
        for name in names:
            known = {shape and shape[1:] for shapes in found for key, shape in shapes.items() if key == name}
            if None in known:
                padding[name] = None
            elif len(known) > 1:
                i, j, k = (max(sizes) for sizes in zip(*known, strict=True))
                padding[name] = (i, j, k)
        return padding


class BatchIterator:
    """The batches of a loader or queue from some number on; what runs ahead of it ends when it is closed or dropped."""

    def __init__(self, source: Source):
        self._source, self._next = source, 0
        self._close: Callable[[], object] | None = None

    def __iter__(self) -> "BatchIterator":
        return self

    def __next__(self) -> Subject:
        if self._next >= len(self._source):
            self.close()
            raise StopIteration
        if self._close is None:
            worker = Worker(self._source, self._next)
            self._take, self._close = worker.take, weakref.finalize(self, worker.close)
        try:
            batch = self._take()
        except BaseException:
            self.close()
            raise
        self._next += 1
        return batch

    def close(self) -> None:
        """End the threads and drop what they prepared. `next` begins anew with the batch that is due."""
        if self._close is not None:
            self._close()
            self._close = None

    def get_state(self) -> dict[str, int]:
        """Where the iterator stands, for JSON: number of the batch that is next, and of what it counts."""
        order = self._source.order
        return {"batch": self._next, "batch_size": order.batch_size, "subjects": order.size}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to where an iterator of the same data set, key and options stood.

        Raises ValueError if it counted batches of another size, or of a data set of another length.
        """
        ours = {**self.get_state(), "batch": state.get("batch")}
        if ours != dict(state) or not 0 <= operator.index(state["batch"]) <= len(self._source):
            raise ValueError(f"the state {dict(state)} is of another loader; here it is like {self.get_state()}")
        self.close()
        self._next = state["batch"]


class Worker:
    """The thread that stacks and transforms batches ahead of the consumer."""

    def __init__(self, source: Source, first: int):
        self._ready: queue.Queue[tuple[Subject | None, BaseException | None]] = queue.Queue(maxsize=source.ahead)
        self._stop = threading.Event()
        # What `with jax.default_device(...)` and `with jax.enable_x64()` set holds for the consumer's thread alone.
        config: Any = jax.config
        settings = (config.jax_default_device, config.jax_enable_x64)
        # The thread must not know this object: it would keep itself alive.
        arguments = (source, first, self._ready, self._stop, settings)
        self._thread = threading.Thread(target=work, args=arguments, name="medjax-loader", daemon=True)
        self._thread.start()

    def take(self) -> Subject:
        """The next batch; raises what went wrong while it was made."""
        batch, error = self._ready.get()
        if error is not None:
            raise error
        assert batch is not None
        return batch

    def close(self) -> None:
        """Ask the thread to end, and wait for it."""
        self._stop.set()
        while self._thread.is_alive() and self._thread is not threading.current_thread():
            with contextlib.suppress(queue.Empty):
                self._ready.get_nowait()  # it may be waiting for room
            self._thread.join(0.01)
        with contextlib.suppress(queue.Empty):
            self._ready.get_nowait()


def work(source: Source, first: int, ready: queue.Queue, stop: threading.Event, settings: tuple[Any, bool]) -> None:
    """Put batches into `ready` until `stop` is set or all are made, then what went wrong, if anything did."""
    readers: set[threading.Thread] = set()
    elements = None
    device, x64 = settings
    try:
        with jax.default_device(device), jax.enable_x64(x64):
            elements = source.elements(first, readers)
            for batch in source.batches(elements, len(source) - first):
                ready.put((batch, None))
                if stop.is_set():
                    return
    except BaseException as error:
        ready.put((None, error))
    finally:
        if elements is not None:
            elements.close()
        while readers:
            readers.pop().join()


def in_order(array: Any) -> Any:
    """Host voxels with the last axis contiguous; arrays on a device as they are."""
    return buckets.in_order(array) if isinstance(array, np.ndarray) else array


@jax.jit
def keys_of(key: Key, epoch: Any, indices: Any) -> Key:
    """Keys of the elements of a batch."""
    return jax.vmap(keys.for_element, (None, None, 0))(key, epoch, indices)
