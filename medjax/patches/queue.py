"""Batches of patches for a training loop: threads read, the device augments what is sampled, volumes are mixed.

    data set -> order of patches -> decode (num_threads, by grain) -> patches into a pool -> batch -> consumer

Which patch stands where is arithmetic, known before a file is read. Patches of the n-th volume, S of them, are due
from place n S on: patch j after about (j + U) max_length / S more, U uniform. So the patches of a batch are of
different volumes, a volume is read every S places, and none waits longer than max_length. So the state of an iterator
is one number, and a restart remakes the patches that wait, and no others.
"""

import itertools
import operator
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import geometry, keys
from medjax.arguments import share
from medjax.data.dataset import SubjectsDataset
from medjax.data.identity import digest, identity_of
from medjax.data.iterator import BatchIterator, Reading, Skipped, Stopped, as_here
from medjax.data.loader import in_order
from medjax.data.target import as_target
from medjax.errors import about, needs_extra, one_of
from medjax.image import Image
from medjax.patches.plan import FAR, Plan, around, first_of_each
from medjax.patches.programs import compiled_ends, compiled_patches, empty_pool
from medjax.patches.samplers import Sampler, check_fits
from medjax.patches.schedule import Schedule
from medjax.subject import KEY, LOCATION, Subject, is_array, stack_others
from medjax.transforms import box, buckets, checks, host, near
from medjax.transforms.compose import Compose
from medjax.transforms.place import Place, Step, Turn, is_spatial
from medjax.transforms.program import flatten, shown, split
from medjax.typing import Key


class Volume(NamedTuple):
    """A decoded subject, its place in the sequence of volumes, its epoch and index, and what an error calls it.

    first: the number of its first patch among those of the same subject in the epoch.
    error: why it could not be read; then the subject is empty.
    """

    number: int
    epoch: int
    index: int
    subject: Subject
    name: str
    first: int
    error: Exception | None = None


class Kept(NamedTuple):
    """What is known of a volume whose patches wait, beside its voxels, and how far it was brought near the origin."""

    known: Subject
    offset: near.Offset


class PatchQueue:
    """Batches of patches of a data set's subjects, each patch with an augmentation of its own; iterable, with `len`.

    dataset: `SubjectsDataset(subjects, transform)`; every patch is the box `patch[mj.LOCATION]` of its volume
    transformed with `patch["key"]`, and of what the transform does to the rest as little is computed as can be:
    printing the queue shows what is done once per volume, on the volume for each patch, and on the box alone.
    sampler: where patches lie, in the transformed volume. A label or weight is looked up before the last spatial
    transforms, if it can be where a patch fits in the grid after them, and followed through them; a patch that would
    stick out is moved into the volume, and lies anywhere if a transform has left nothing to look up.
    batch_size: B; images are (B, C, *patch_size).  key: what all draws from.  samples_per_volume: S, or one number for
    each subject.  max_length: places over which the patches of a volume are spread, at least S; no more than that many
    wait.  shuffle_subjects, shuffle_patches: a new order of volumes in each epoch; mix patches of several.  epochs: how
    often all volumes are given, or the range of their numbers.  num_threads: that read and decode.  device: where
    patches are made.  order: the subjects of every epoch, as indices, in this order and as often as they stand there,
    instead of all of them.
    on_error: what becomes of a volume that cannot be read or transformed. "raise": the loop gets the error with each
    batch that is to hold a patch of it; `next` goes on with the batch after. "skip": the next volume of the epoch that
    can be used gives further patches, of draws of their own, in its stead, so that batches keep their size, their
    number and what else is in them. Those skipped are in `iter(queue).skipped`, and one warning at the end of an epoch
    counts and names them.
    shard: (index, count) of this process among those that train together, as `(jax.process_index(),
    jax.process_count())`: of every `count` volumes of an epoch it reads one, and of every batch of B it gives B /
    count, all of them of its own volumes; volumes left over at the end of an epoch are left out of it.

    Iterating again gives the same patches again, for any number of threads. The key of a patch is that of its epoch and
    subject, as the loader's, with its number in its volume folded in. Affines are float32. `iter(queue).get_state()` is
    a small dictionary, from which `set_state` goes on. Leaving a loop early, or `close()`, ends the threads.
    Raises ImportError without the `loader` extra, TypeError and ValueError for arguments that make no sense, ValueError
    for images that end on different grids (more than half a voxel apart at a corner) or smaller than a patch; an error
    while reading or transforming reaches the consumer and begins with the subject.
    """

    ahead = 4
    """How many finished batches may wait for the consumer, so that a new volume is not felt."""

    def __init__(
        self,
        dataset: SubjectsDataset,
        sampler: Sampler,
        batch_size: int,
        key: Any,
        *,
        samples_per_volume: int | Sequence[int] = 10,
        max_length: int = 300,
        shuffle_subjects: bool = True,
        shuffle_patches: bool = True,
        epochs: int | range = 1,
        num_threads: int = 2,
        device: Any = None,
        order: Sequence[int] | None = None,
        on_error: str = "raise",
        shard: tuple[int, int] = (0, 1),
    ):
        one_of("on_error", on_error, ("raise", "skip"))
        if not isinstance(dataset, SubjectsDataset):
            raise TypeError(f"dataset must be a SubjectsDataset(subjects, transform), got {type(dataset).__name__}")
        if not len(dataset):
            raise ValueError("the data set is empty")
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a UniformSampler, WeightedSampler or LabelSampler, got {sampler!r}")
        samples = samples_per_volume
        most = operator.index(samples) if not isinstance(samples, Sequence) else max(samples, default=0)
        sizes = {
            "batch_size": batch_size, "samples_per_volume": most,
            "epochs": len(epochs) if isinstance(epochs, range) else epochs, "num_threads": num_threads,
        }  # fmt: skip
        for name, size in sizes.items():
            if operator.index(size) < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if max_length < most:
            raise ValueError(f"max_length={max_length} holds no volume of {most} patches")
        if isinstance(samples, Sequence) and (len(samples) != len(dataset) or min(samples) < 0):
            raise ValueError(f"samples_per_volume must be a number for each of {len(dataset)} subjects, got {samples}")
        if order is not None and not all(0 <= index < len(dataset) for index in order):
            raise ValueError(f"order must hold indices of the {len(dataset)} subjects, got {order}")
        part, parts = share("shard", shard)
        if batch_size % parts:
            raise ValueError(f"a batch of {batch_size} does not divide over {parts} processes")
        if parts > 1 and isinstance(samples, Sequence):
            raise ValueError("samples_per_volume must be one number where processes share the volumes, or they part")
        self.dataset, self.sampler, self.num_threads, self.on_error = dataset, sampler, num_threads, on_error
        self.key, self.target = keys.as_key(key), as_target(device)
        reach = max_length - most if shuffle_patches else 0
        self.order = Schedule(
            len(dataset), samples, batch_size // parts, epochs, reach, self.key, shuffle_subjects, order, (part, parts)
        )
        if not self.order.batches:
            raise ValueError("there is no patch to give")
        self.pipeline = dataset.rest or Compose([])
        self.parts = split(self.pipeline)
        steps = flatten(self.pipeline)
        self.head = Compose([steps[i].transform for group in self.parts.head for i in group])

    def __len__(self) -> int:
        return self.order.batches

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self)

    def __repr__(self) -> str:
        text = f"PatchQueue({len(self)} batches of {self.order.batch_size} patches of {self.sampler.patch_size})"
        return text + "\n" + shown(self.dataset.transform or self.pipeline)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Batch size and number of subjects, and digests of the key, of the options and of the data set.

        The options are the schedule and the sampler; the transform is none, as its strengths may be scheduled.
        """
        schedule = [digest(found.tolist()) for found in (self.order.order, self.order.volumes, self.order.epochs)]
        sampler = [type(self.sampler).__name__, *map(repr, vars(self.sampler).values())]
        told = identity_of(self.key, [schedule, sampler], self.dataset)
        return {"batch_size": self.order.batch_size, "subjects": self.order.size, **told}

    def epoch_of(self, batch: int) -> int:
        """The number of the epoch to which the first patch of a batch belongs."""
        return int(self.order.epochs[self.order.patches(batch)[0] // self.order.samples])

    # -- the stages, in the order in which they run

    def elements(self, first: int, reading: Reading) -> Any:
        """grain's iterator of decoded volumes that batches from `first` on need."""
        try:
            import grain
        except ImportError:
            needs_extra("grain", "loader", "medjax.PatchQueue")
        numbers = list(itertools.chain.from_iterable(self.order.arrivals(first).values()))
        options = grain.ReadOptions(num_threads=self.num_threads, prefetch_buffer_size=self.num_threads)
        decode = as_here(partial(self.decode, reading=reading))
        return iter(grain.MapDataset.source(numbers).map(decode).to_iter_dataset(options))

    def decode(self, number: int, *, reading: Reading, instead_of: int | None = None) -> Volume:
        """Read a volume; what goes wrong is noted in it, so that the others are read on."""
        reading.proceed()
        epoch, index = int(self.order.epochs[number]), int(self.order.volumes[number])
        name, place = self.dataset.describe(index), number if instead_of is None else instead_of
        # Beyond all that this subject gives of its own, so that nothing is drawn twice.
        first = int(self.order.first[number]) if instead_of is None else len(self.order.batch_of) * (1 + instead_of)
        try:
            subject = self.dataset.prepared(index, reading.proceed)
            images = {name: image.replace(data=in_order(image.data)) for name, image in subject.images.items()}
        except Exception as error:
            if isinstance(error, Stopped):
                raise
            return Volume(place, epoch, index, Subject(), name, first, error)
        return Volume(place, epoch, index, subject.replace(**images), name, first)

    def batches(self, volumes: Iterator[Volume], count: int, reading: Reading) -> Iterator[tuple[int, Any]]:
        """The last `count` batches with their numbers; one that fails is the last, its error instead of it."""
        first = len(self) - count
        arrivals = self.order.arrivals(first)
        pool, free, slot_of = None, list(range(self.order.slots())), {}
        kept: dict[int, Kept] = {}
        for batch in range(first, len(self)):
            for _ in arrivals.get(batch, ()):
                volume = next(volumes)
                patches = np.arange(volume.number * self.order.samples, (volume.number + 1) * self.order.samples)
                wanted = self.order.batch_of[patches] >= first
                slots = np.full(len(patches), -1)
                for i in np.flatnonzero(wanted):
                    slots[i] = slot_of[int(patches[i])] = free.pop()
                volume, pool, offset, error = self.filled(volume, wanted, slots, pool, reading)
                if error is not None:
                    yield batch, error
                    return
                kept[volume.number] = Kept(Subject(beside_images(volume.subject)), offset)
            due = self.order.patches(batch)
            slots = np.array([slot_of.pop(int(patch)) for patch in due])
            free.extend(slots.tolist())
            patches, times = taken(pool, slots, self.key)
            of = [kept[int(patch) // self.order.samples] for patch in due]
            yield batch, with_metadata(taken_back(patches, of), self.after([volume.known for volume in of], times))
            waiting = {patch // self.order.samples for patch in slot_of}
            kept = {number: volume for number, volume in kept.items() if number in waiting}

    def filled(
        self, volume: Volume, wanted: np.ndarray, slots: np.ndarray, pool: Any, reading: Reading
    ) -> tuple[Volume, Any, near.Offset, Exception | None]:
        """The volume whose patches fill the slots, the pool and how far the volume was brought for them.

        Or the error, if no volume of the epoch can be used.

        The volume itself, or, where it cannot be used and that is no error, the next one of the epoch that can.
        """
        number = volume.number
        others = np.flatnonzero(self.order.epochs == volume.epoch)
        others = others[self.order.volumes[others] != volume.index] if self.on_error == "skip" else others[:0]
        substitutes = iter(np.roll(others, -np.searchsorted(others, number)).tolist())
        while True:
            error = volume.error
            if error is None:
                try:
                    with about(volume.name):
                        pool, seen, offset = self.make(volume, wanted, slots, pool)
                        self.sampler.verify(jax.device_get(seen))
                    return volume, pool, offset, None
                except Exception as problem:
                    error = problem
            if self.on_error == "skip":
                reading.skipped.append(Skipped(volume.epoch, volume.index, volume.name, error))
            place = next(substitutes, None)
            if place is None:
                return volume, pool, None, error
            volume = self.decode(place, reading=reading, instead_of=number)

    def after(self, kept: list[Subject], times: dict[int, Turn]) -> list[Subject]:
        """What is known of each patch beside its voxels, after all steps."""
        steps, times = flatten(self.pipeline), jax.device_get(times)
        result = []
        for number, known in enumerate(kept):
            params = jax.tree.map(lambda leaf, number=number: leaf[number], times)
            result.append(known.replace(**host.metadata_after(steps, dict(known.metadata), params)))
        return result

    def make(self, volume: Volume, wanted: np.ndarray, slots: np.ndarray, pool: Any) -> tuple[Any, Any, near.Offset]:
        """The pool with the wanted patches in their slots, what to verify of them, how far their volume was brought."""
        subject = volume.subject
        checks.check_subject(self.pipeline, subject)
        ready = self.head(host.bare(subject)) if len(self.head) else host.bare(subject)
        pipeline, subject, offset = near.brought_near(self.pipeline, host.bare(subject))
        ready = near.taken_back(ready, None if offset is None else -offset)
        one = keys.for_element(self.key, volume.epoch, volume.index)
        number = volume.first + np.arange(len(wanted))
        many = jax.vmap(keys.for_step, (None, 0))(one, jnp.asarray(number, jnp.uint32))
        outline = host.outline(subject)
        drawn = compiled_ends(pipeline, outline, host.outline(ready), many, parts=self.parts)
        plan = self.planned(flatten(pipeline), ready, drawn)
        ready = ready.replace(**{name: self.brought(image) for name, image in ready.images.items()})
        arguments = (pipeline, outline, ready, plan.around)
        static = {"sampler": self.sampler, "parts": self.parts, "margin": plan.margin}
        if pool is None:
            pool = empty_pool(*arguments, many[0], count=self.order.slots(), **static)
        # Waited for, since jaxlib ends the process where NumPy asks for a result that has failed.
        pool, seen = jax.block_until_ready(compiled_patches(*arguments, many, wanted, slots, pool, **static))
        return pool, seen, offset

    def brought(self, image: Image) -> Image:
        """The image of a volume where patches are made of it.

        Padded where there are several shapes, so that few programs serve them, unless something runs on all of it for
        each patch: that would be slower, and a function of the user's would see the padding. Of a box nothing hangs on
        the volume's shape. What is not padded is not copied: of a volume that a cache has mapped no more is read, then,
        than its patches and what is measured need.
        """
        if not self.parts.whole and image.extent is None and not self.one_shape:
            on_host = image.replace(data=np.asarray(jax.block_until_ready(image.data)))
            image = buckets.padded(on_host, buckets.bucket(image.spatial_shape))
        return image.replace(data=jax.device_put(image.data, self.target))

    @cached_property
    def one_shape(self) -> bool:
        """Whether the images of a name come to their patches in one shape, whichever subject they are of."""
        if host.changes_grids(flatten(self.head)):
            return False
        names = dict.fromkeys(name for subject in self.dataset.subjects for name in subject.images)
        try:
            found = self.dataset.known_shapes(tuple(names), self.num_threads)
        except Exception:  # of a file that cannot be read: an error of its patches alone
            return False
        known = {name: {shapes[name] for shapes in found if name in shapes} for name in names}
        return all(len(shapes) == 1 and None not in shapes for shapes in known.values())

    def planned(self, steps: Sequence[Step], ready: Subject, drawn: tuple[box.Ends, dict[int, Turn]]) -> Plan:
        """What is known of a volume's patches before their voxels, whatever is drawn for each of them.

        Raises ValueError for images that come to lie on different grids, or are smaller than a patch, for any of them.
        """
        parts = self.parts
        ends, params = jax.device_get(drawn)
        places: dict[str, Place] = {}
        for i in first_of_each({n: p.on for n, p in params.items()}):
            one = jax.tree.map(lambda leaf, i=i: leaf[i], params)
            places = host.places_after(steps, (*parts.whole, *parts.box), one, host.start_all(ready))
        last = {name: ends.end[name] for name in places}  # in order, in which a program does not give them
        geometry.check_same_grid(last, "PatchQueue")
        name = self.sampler.looked_up(ready)
        begin, end = (grids[name] for grids in ends)
        i, j, k = end.shape.min(0).tolist()
        check_fits(self.sampler.patch_size, (i, j, k))
        margin = box.margin_of(steps, parts.box, last, {name: place.label for name, place in places.items()})
        seen = any(is_spatial(steps[i].transform) and steps[i].spatial.locates for i in params)
        return Plan(margin, (np.zeros(3, np.int32), FAR) if seen else around(begin, end, self.sampler.patch_size))


@jax.jit
def taken(pool: Any, slots: Array, like: Key) -> tuple[Subject, dict[int, Turn]]:
    """The patches in some slots, as a batch, and what was drawn that their metadata hang on; their keys as `like`."""
    batch = jax.tree.map(lambda leaf: leaf[slots], pool)
    patches = batch["patch"].replace(**{LOCATION: batch[LOCATION], KEY: keys.of_words(batch[KEY], like)})
    return patches, batch["times"]


def taken_back(patches: Subject, of: Sequence[Kept]) -> Subject:
    """A batch of patches where their volumes lay before they were brought near the world's origin."""
    if all(volume.offset is None for volume in of):
        return patches
    return near.shifted(patches, np.stack([np.zeros(3) if v.offset is None else v.offset for v in of]))


def beside_images(subject: Subject) -> dict[str, Any]:
    """The metadata of the images, under their names, and the subject's own arrays and metadata."""
    others = {n: i for n, i in subject.items() if is_array(i) or n in subject.metadata}
    return others | {name: image.metadata for name, image in subject.images.items()}


def with_metadata(batch: Subject, kept: Sequence[Subject]) -> Subject:
    """A batch with the arrays and metadata of each patch's subject."""
    images = {
        name: image.replace(metadata=tuple(subject.metadata.get(name, {}) for subject in kept))
        for name, image in batch.images.items()
    }
    rest = stack_others([Subject({n: i for n, i in subject.items() if n not in batch}) for subject in kept])
    return Subject({**dict(batch.items()), **images, **rest})
