"""Batches for a training loop: threads decode, one thread augments each batch on its device, one batch ahead.

    data set -> order of the epoch -> decode (num_threads, by grain) -> stack, pad -> transform a batch -> consumer

What a batch holds is arithmetic: batch b of an epoch has the subjects at places b B to (b + 1) B of the order that the
key and the epoch give, and each is transformed by the key of its epoch and index. So the number of threads changes
nothing, and the state of an iterator is the number of its next batch. What cannot be read leaves its place empty: the
batches before and after it are what they were.
"""

import itertools
import operator
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from medjax import keys
from medjax.arguments import choice, maybe, share
from medjax.data.dataset import SubjectsDataset
from medjax.data.identity import identity_of
from medjax.data.iterator import BatchIterator, Reading, Skipped, Stopped, as_here
from medjax.data.order import Order
from medjax.data.padding import Padding, largest_shapes, padded_shapes, with_zeros
from medjax.data.target import Device, as_target
from medjax.errors import about, needs_extra, needs_key, one_of
from medjax.image import Image
from medjax.subject import Subject, compare, completed, stack
from medjax.transforms import buckets, call, checks, host
from medjax.transforms.program import is_random
from medjax.transforms.seen import Packed
from medjax.typing import Key


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
    on_error: str = "raise",
    shard: tuple[int, int] = (0, 1),
    missing: str | None = None,
) -> "Loader":
    """Batches of a data set, read by threads and transformed as batches on a device.

    batch_size: B; images are (B, C, I, J, K), arrays of subjects (B, ...), metadata tuples of B.  key: what shuffles
    and what transforms draw from; None if neither does.  shuffle: a new order in each epoch.  drop_last: leave out a
    last batch of fewer than B.
    epochs: how often all subjects are given; batches do not cross epochs.  num_threads: that read and decode.
    prefetch: batches that are decoded ahead.  device: a `jax.Device`, or a `jax.sharding.Sharding` that splits the
    batch axis over devices; None for JAX's default.  on_error: what becomes of a subject that cannot be read or
    transformed. "raise": the loop gets the error; `next` goes on with the batch after it. "skip": it is left out, its
    batch is smaller by it (by the same program, but a training step compiles for each size that it meets; a batch of
    none is not given), and no other batch changes, so the state of an iterator means what it meant. Those left out are
    in `iter(loader).skipped`, and one warning at the end of an epoch counts and names them.  shard: (index, count) of
    this process among those that train together, as `(jax.process_index(), jax.process_count())`: of every batch of B
    it reads and gives B / count, so that all processes together have, in the order of their indices, the batches that
    one alone has.  missing: "zeros" makes zeros of an image that a subject lacks and another of the data set has, as
    `medjax.stack` does, so that every batch has all images and `present`; None: all must have the same images.

    Iterating again gives the same batches again, for any number of threads; `len` counts them. Subject i of the data
    set is what `dataset.get(i, keys.for_element(key, epoch, i))` gives, whatever batch it lands in. Every subject is
    read each time it is drawn, and nothing that was read is kept, unless the data set has a `Cache`: then what comes
    before anything random is done once, on each subject alone, so that it may also end in shapes that a batch cannot
    foresee (`Resample(1.0)` alone); the rest rounds as it does without one, but that a program which resamples, too,
    rounds otherwise (by 1e-5 of the range). `iter(loader).get_state()` is a small dictionary for JSON; `set_state` goes
    on from there, with any number of processes. The iterator is a `grain.DatasetIterator`, which `grain.checkpoint` and
    orbax save and restore beside a model. Leaving a loop early, Ctrl-C or `close()` ends the threads: no other file is
    begun, those that are being read are waited for. Threads may share an iterator: each batch goes to one of them.

    Where the transform begins with steps that end in a fixed shape (`Resample(1.0), CropOrPad(160)`), subjects may
    differ in shape: they are padded to one shape for the whole data set, known from the headers, and only what is real
    is seen. Otherwise the subjects of a batch must agree in shape.

    Raises ImportError without the `loader` extra; TypeError for a key that is none; ValueError for sizes below 1, for
    no batch at all, and for batches that do not divide over the processes or devices. An error while reading or
    transforming reaches the consumer and begins with the subject.

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
    one_of("on_error", on_error, ("raise", "skip"))
    shard = share("shard", shard)
    order = Order(len(dataset), batch_size, key if shuffle else None, drop_last, epochs, shard)
    target = as_target(device)
    devices = len(target.device_set) if isinstance(target, NamedSharding) else 1
    for size in {order.size_of(0), order.size_of(order.steps - 1)}:
        for parts, what in ((order.parts, "processes"), (order.parts * devices, "devices")):
            if size % parts:
                hint = "; drop_last=True leaves it out" if size < batch_size else ""
                raise ValueError(f"a batch of {size} does not divide over {parts} {what}{hint}")
    if order.parts * devices > 1 and on_error == "skip":
        raise ValueError("on_error='skip' makes batches smaller, which do not divide over processes or devices")
    missing = maybe(choice("zeros"))("missing", missing)
    return Loader(dataset, order, key, num_threads, prefetch, target, on_error, missing)


class Element(NamedTuple):
    """A decoded subject, its place in the data set, its epoch, and what an error calls it; all None for a filler.

    error: why there is no subject, if it is to be left out.
    """

    epoch: int
    index: int | None
    subject: Subject | None
    name: str
    error: Exception | None = None


class Started(NamedTuple):
    """A batch whose augmentation has begun: what went in, what comes out, what is to be checked, what errors say."""

    batch: Subject
    result: Subject
    seen: Packed | None
    names: list[str]


class Loader:
    """What `loader` makes: an iterable of batches."""

    ahead = 1

    def __init__(
        self, dataset: SubjectsDataset, order: Order, key: Key | None, num_threads: int, prefetch: int, target: Device,
        on_error: str = "raise", missing: str | None = None,
    ):  # fmt: skip
        self.dataset, self.order, self.key, self.target = dataset, order, key, target
        self.num_threads, self.prefetch, self.on_error, self.missing = num_threads, prefetch, on_error, missing
        self._padding: Padding | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def __repr__(self) -> str:
        return f"loader({self.dataset!r}, batch_size={self.order.batch_size}, {len(self)} batches)"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Batch size and number of subjects, and digests of the key, of the options and of the data set.

        `epochs` is not among the options: a longer training goes on from the state of a shorter one; nor is the
        transform, whose strengths may be scheduled.
        """
        order = self.order
        options = [order.steps, order.shuffles]
        return {"batch_size": order.batch_size, "subjects": order.size, **identity_of(self.key, options, self.dataset)}

    def epoch_of(self, batch: int) -> int:
        """The number of the epoch to which a batch belongs."""
        return batch // self.order.steps

    # -- the stages, in the order in which they run

    def elements(self, first: int, reading: Reading) -> Any:
        """grain's iterator of decoded elements, from batch `first` on."""
        try:
            import grain
        except ImportError:
            needs_extra("grain", "loader", "medjax.loader")

        def decode(place: tuple[int, int | None]) -> Element:
            reading.proceed()
            epoch, index = place
            try:
                return self.decode(epoch, index, reading.proceed)
            except Exception as error:
                if self.on_error == "raise" or index is None or isinstance(error, Stopped):
                    raise
                return Element(epoch, index, None, self.dataset.describe(index), error)

        options = grain.ReadOptions(
            num_threads=self.num_threads,
            prefetch_buffer_size=max(self.prefetch * self.order.local, self.num_threads),
        )
        elements = iter(grain.MapDataset.source(self.order).map(as_here(decode)).to_iter_dataset(options))
        if first:
            elements.set_state({"next_index": first * self.order.local})
        return elements

    def batches(
        self, elements: Iterator[Element], count: int, reading: Reading
    ) -> Iterator[tuple[int, Subject | Exception]]:
        """The last `count` batches, each begun before the one ahead of it is given: the device need not wait.

        A batch that fails does not take the one ahead of it with it, and is the last.
        """
        before: tuple[int, list[Element], Started | Exception] | None = None
        for number in range(len(self) - count, len(self) + 1):
            ahead, problem = None, None
            if number < len(self):
                found: list[Element] = []
                try:
                    found = list(itertools.islice(elements, self.order.local))
                    reading.skipped += [Skipped(e.epoch, e.index or 0, e.name, e.error) for e in found if e.error]
                    if any(e.subject is not None for e in found):
                        ahead = number, found, self.start(found)
                except Exception as error:
                    problem = error
                    if found and self.on_error == "skip":
                        ahead = number, found, error  # some of it may be all right
            if before is not None:
                result = self.finished(*before[1:], reading)
                if result is not None:
                    yield before[0], result
            if ahead is None and problem is not None:
                yield number, problem
                return
            before = ahead

    def finished(self, elements: list[Element], started: Started | Exception, reading: Reading) -> Any:
        """A batch, waited for, or the error with which it failed; None if nothing is left of it."""
        try:
            if isinstance(started, Exception):
                raise started
            return self.finish(started)
        except Exception as error:
            if self.on_error == "raise":
                return error
            return self.survivors(elements, error, reading)

    def survivors(self, elements: list[Element], error: Exception, reading: Reading) -> Any:
        """What is left of a batch that failed, after each of its subjects was tried alone, by the same program."""
        fillers = [Element(elements[0].epoch, None, None, "")] * (self.order.local - 1)
        good = []
        for element in elements:
            if element.subject is None:
                continue
            try:
                self.finish(self.start([element, *fillers]))
                good.append(element)
            except Exception as problem:
                assert element.index is not None
                reading.skipped.append(Skipped(element.epoch, element.index, element.name, problem))
        if not good:
            return None
        left_out = sum(element.subject is not None for element in elements) > len(good)
        try:  # each alone is all right: it is their company that fails
            return self.finish(self.start(good + fillers[len(good) - 1 :])) if left_out else error
        except Exception as problem:
            return problem

    def decode(self, epoch: int, index: int | None, proceed: Callable[[], None]) -> Element:
        """Read a subject, its voxels in the order in which the device reads them."""
        if index is None:
            return Element(epoch, None, None, "")
        subject = self.dataset.prepared(index, proceed)
        images = {name: image.replace(data=in_order(image.data)) for name, image in subject.images.items()}
        return Element(epoch, index, subject.replace(**images), self.dataset.describe(index))

    def start(self, elements: Sequence[Element]) -> Started:
        """Stack the elements of a batch and begin to transform it; does not wait for the result."""
        names = [element.name for element in elements if element.subject is not None]
        subjects = [element.subject for element in elements if element.subject is not None]
        subjects = self.complete(subjects, self.padding())
        shapes = padded_shapes(self.padding(), subjects)
        for name, subject in zip(names[1:], subjects[1:], strict=True):
            compare(subjects[0], subject, f"{names[0]} and {name}", shapes)
        batch = stack(subjects, shape=shapes)
        t = self.dataset.rest
        if t is None:
            return Started(batch, self.put(batch), None, names)
        full = batch
        missing = len(elements) - len(subjects)
        if missing:  # another size would be another program
            full = stack(subjects + subjects[:1] * missing, shape=shapes)
        with about(", ".join(names)):
            checks.check_subject(t, full)
            order, first = self.order, self.order.part * len(subjects)
            whole = order.batch_size if order.parts > 1 else None
            result, seen = call.compute(t, self.put(host.bare(full)), self.element_keys(elements), first, whole)
        return Started(batch, result, seen, names)

    def finish(self, started: Started) -> Subject:
        """Wait for a batch, check it, and give it its affines and metadata."""
        batch, result, seen, names = started
        t, size = self.dataset.rest, len(names)
        if t is None or seen is None:
            return result
        if size < self.order.local:
            result = jax.tree.map(lambda leaf: leaf[:size], result)
        return host.after_batch(t, batch, result, seen, size, names)

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
        real = [e.index for e in elements if e.subject is not None]
        indices = np.array(real + real[:1] * (len(elements) - len(real)), np.uint32)
        found = keys_of(self.key, np.uint32(elements[0].epoch), indices)
        return found if self.target is None else jax.device_put(found, self.target)

    # -- padding, and images that are missing

    @cached_property
    def known(self) -> dict[str, Image]:
        """An image without voxels for each name in the data set."""
        return self.dataset.outlines()

    def complete(self, subjects: Sequence[Subject], padded: Collection[str]) -> list[Subject]:
        """The subjects of a batch, with zeros for what they lack, if that is asked for."""
        return completed(subjects, padded, self.known) if self.missing else list(subjects)

    def padding(self) -> Padding:
        """For each image that may be padded and whose shape varies, its largest shape in the data set.

        None where the shapes are not known without reading: images of a reader of the user's, and what a head makes.
        """
        with self._lock:
            if self._padding is None:
                self._padding = self.find_padding()
            return self._padding

    def find_padding(self) -> Padding:
        """`padding`, from the headers of all files."""
        t, dataset = self.dataset.rest, self.dataset
        if t is None:
            return {}
        first = self.complete([dataset.prepared(0)], ())[0]
        with about(dataset.describe(0)):
            checks.check_subject(t, first)
            names = list(host.fixed_shapes(t, self.key, first))
        found = dataset.known_shapes(names, self.num_threads)
        return largest_shapes(names, with_zeros(found) if self.missing else found)


def in_order(array: Any) -> Any:
    """Host voxels with the last axis contiguous; arrays on a device as they are."""
    return buckets.in_order(array) if isinstance(array, np.ndarray) else array


@jax.jit
def keys_of(key: Key, epoch: Any, indices: Any) -> Key:
    """Keys of the elements of a batch."""
    return jax.vmap(keys.for_element, (None, None, 0))(key, epoch, indices)
