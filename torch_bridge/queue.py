"""Random patches of subjects, and a queue of them for training."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.utils.data import IterableDataset, Subset, get_worker_info

import medjax as mj
from medjax import keys
from medjax.data.loader import in_order
from medjax.errors import UnknownShape, about
from medjax.patches.samplers import Sampler as MedjaxSampler
from medjax.subject import KEY
from medjax.transforms.program import shown
from torch_bridge import forked
from torch_bridge.dataset import SubjectsDataset, describe, element_keys, to_subject
from torch_bridge.dlpack import Owners, lent, restored, to_torch
from torch_bridge.subject import (
    KINDS,
    LOCATION,
    WHERE_COMPUTED,
    Image,
    Subject,
    element,
    placed,
    subject_to_medjax,
)
from torch_bridge.transforms import as_key, draw_key


def compute_patches(sampler: MedjaxSampler, x: mj.Subject, key: Any, first: int, count: int) -> mj.Subject:
    """A batch of patches, each by the key and its number, waited for."""
    key = keys.for_name(keys.as_key(key), "patch")
    many = jax.numpy.stack([keys.for_step(key, number) for number in range(first, first + count)])
    return jax.block_until_ready(MedjaxSampler.batch(sampler, x, many, count))


def patches(sampler: Any, subject: Subject, key: Any, first: int, count: int, device: Any = None) -> list[Subject]:
    """Patches number `first` on of a subject by a key, each in memory of its own, with its location."""
    inner, back = subject_to_medjax(subject)
    result = forked.run(compute_patches, sampler, inner, key, first, count)
    locations = torch.from_numpy(np.array(result[LOCATION], np.int64))
    images = result.images
    batch = back(mj.Subject(images), device)
    made = []
    for i in range(count):
        items: dict[str, Any] = {}
        for name, item in subject.items():
            if isinstance(item, Image):
                several = batch[name]
                items[name] = item.of(several.data[i].clone(), several.affine[i], item.metadata)
            else:
                items[name] = item
        made.append(Subject({**items, LOCATION: locations[i].clone()}))
    return made


class Sampler(MedjaxSampler):
    """Abstract. `sampler(subject)` is a patch, `sampler(subject, n)` an iterator over n of them.

    A patch is a Subject; `patch[tio.LOCATION]`, (6,) int64, holds its first voxel and the one after its last. Without
    `key` it draws one from torch's default generator; a key is a `jax.random.key`, or an integer as a seed.
    """

    def __call__(self, subject: Any, num_patches: int | None = None, *, key: Any = None) -> Any:
        key = draw_key() if key is None else as_key(key)
        if num_patches is None:
            return patches(self, subject, key, 0, 1)[0]
        return iter(patches(self, subject, key, 0, num_patches))


class UniformSampler(Sampler, mj.UniformSampler):
    """Patches anywhere, each place that fits equally likely, those at the border included. See `Sampler`."""


class WeightedSampler(Sampler, mj.WeightedSampler):
    """Patches whose centres are drawn in proportion to an image; see `Sampler` and `medjax.WeightedSampler`.

    probability_map: name of the image; what is 0 there is never a centre.
    """


class LabelSampler(Sampler, mj.LabelSampler):
    """Patches whose centres are voxels of a label map; see `Sampler` and `medjax.LabelSampler`.

    label_name: the label map; None for the first.  label_probabilities: {label: weight}; None for any that is not 0.
    """


NOTES = "torch_bridge"
"""Under this name a volume carries its `Notes` through medjax's queue."""


class Notes(NamedTuple):
    """What medjax does not know of a volume: the types of its voxels, and its key if it was transformed whole.

    And what it need not know: to the torch user arrays are metadata, which may differ in shape.
    """

    dtypes: dict[str, torch.dtype]
    key: np.ndarray | None
    rest: dict[str, Any]


class Volumes(mj.SubjectsDataset):
    """The subjects of a torch data set as medjax's queue reads them in an epoch.

    transform: what all of them carry and the queue does to boxes; None to have each volume transformed whole, here, by
    the key of its epoch and index.
    """

    def __init__(self, dataset: Any, transform: mj.Transform | None, seed: np.ndarray, epoch: int):
        super().__init__((), transform)
        self.dataset, self.numbers = origin(dataset)
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.numbers)

    def describe(self, index: int) -> str:
        """What an error calls a subject."""
        number = self.numbers[index]
        known = isinstance(self.dataset, SubjectsDataset)
        return describe(self.dataset.subjects[number], number) if known else f"subject {number}"

    def read(self, index: int, proceed: Callable[[], None] | None = None) -> mj.Subject:
        """A subject in memory of its own: the user may write to theirs while this is used."""
        if proceed is not None:
            proceed()
        number, key, mine = self.numbers[index], None, []
        if self.transform is None:
            subject, key = self.transformed(number, index)
        else:
            subject = self.dataset.subjects[number]
        with about(self.describe(index)):
            if self.transform is not None and self.dataset.cache is not None:
                mine = [n for n, i in subject.get_images_dict().items() if i._tensor is None]
                subject = self.dataset.prepared(number)
            x, dtypes = subject.as_medjax(), {}
            x = x.replace(**{name: image.stored() for name, image in x.images.items()})
            for name, image in subject.get_images_dict().items():
                dtypes[name] = torch_type(x[name].dtype) if image._tensor is None else image._tensor.dtype
            seen = {**x.annotations, **{n: own(i, n in mine) for n, i in x.images.items()}}
            rest = {n: item for n, item in x.items() if n not in seen and item is not None}
            return mj.Subject({**seen, NOTES: Notes(dtypes, key, rest)})

    def transformed(self, number: int, index: int) -> tuple[Subject, np.ndarray | None]:
        """A subject as its data set has it, and the key that it was transformed by, if that was still to be done."""
        if isinstance(self.dataset, SubjectsDataset):
            subject = self.dataset[number]  # its errors begin with the subject
        else:
            with about(self.describe(index)):
                subject = self.dataset[number]
                subject = subject if isinstance(subject, Subject) else to_subject(subject, number)
        if subject._pending is None:
            return subject, None
        key = element_keys(self.seed, self.epoch, [index])[0]
        subject._pending.keys, subject._pending.device = key[None], WHERE_COMPUTED
        subject._ready()
        return subject, key


def torch_type(dtype: np.dtype) -> torch.dtype:
    """The type that voxels of a file have as a tensor."""
    return to_torch(np.empty(0, dtype)).dtype


def own(image: mj.Image, mine: bool) -> mj.Image:
    """An image in an order and a type that JAX takes, in memory of its own; mine: that what is given is in, too."""
    given = np.asarray(image.data)
    labels = isinstance(image, mj.LabelMap)
    data = in_order(given if given.dtype.itemsize <= 4 else np.asarray(lent(to_torch(given), labels)))
    return image.replace(data=data if mine or not np.may_share_memory(data, given) else data.copy())


def origin(dataset: Any) -> tuple[Any, Sequence[int]]:
    """The data set behind Subsets, and which of its subjects they have."""
    if type(dataset) is not Subset:
        return dataset, range(len(dataset))
    inner, numbers = origin(dataset.dataset)
    return inner, [numbers[int(index)] for index in dataset.indices]


def carried(dataset: Any) -> mj.Transform | None:
    """The transform that all subjects of a data set carry and somebody else may do; None if that is not known."""
    inner, _ = origin(dataset)
    own = isinstance(inner, SubjectsDataset) and type(inner).__getitem__ is SubjectsDataset.__getitem__
    return inner._rest.transform if own and inner._rest is not None else None


def cannot_be_cut(error: BaseException | None) -> bool:
    """Whether a pipeline has to see values before its shapes are known, so that no program makes patches."""
    while error is not None and not isinstance(error, (UnknownShape, jax.errors.JAXTypeError)):
        error = error.__cause__
    return error is not None


def separated(batch: mj.Subject, device: Any) -> list[Subject]:
    """The patches of a batch, as views of its memory, which nothing else uses."""
    owners, notes = Owners(), batch[NOTES]
    tensors = {name: placed(image.data, None, device, owners) for name, image in batch.images.items()}
    affines = {name: np.asarray(image.affine, np.float64) for name, image in batch.images.items()}
    locations = torch.from_numpy(np.array(batch[LOCATION], np.int64))
    words = np.array(keys.words_of(batch[KEY]), np.int64)
    made = []
    for i, note in enumerate(notes):
        items: dict[str, Any] = {}
        for name, item in batch.items():
            if isinstance(item, mj.Image):
                metadata: Any = item.metadata
                data = restored(tensors[name][i], note.dtypes.get(name))
                items[name] = KINDS[type(item)].of(data, affines[name][i], metadata[i])
            elif name not in (NOTES, KEY, LOCATION):
                items[name] = element(item, i)
        key = torch.from_numpy(words[i] if note.key is None else note.key.astype(np.int64))
        made.append(Subject({**items, **note.rest, LOCATION: locations[i], KEY: key}))
    return made


class Queue(IterableDataset):
    """Random patches of a data set, each with an augmentation of its own; under a plain DataLoader, or iterated itself.

    subjects_dataset: a SubjectsDataset, or any torch data set of Subjects of the bridge or of torchio.  max_length: how
    many patches wait at most, over which those of a volume are spread; at least samples_per_volume.
    samples_per_volume: patches of each subject in an epoch; a subject's own `num_samples` counts instead.
    sampler: where they lie.  subject_sampler: a torch sampler that gives the volumes of an epoch instead of
    shuffle_subjects.  num_workers: threads that read ahead, at least one.  shuffle_patches: mix patches of several
    volumes.  device: where they lie; None for where JAX computes.  generator: where the seed is drawn from when the
    first patch is asked for; None for torch's default one.  start_background: accepted; reading starts with the first
    patch.  verbose: print each epoch.

    It gives what `medjax.PatchQueue` gives for its seed: a patch is the box `patch[tio.LOCATION]` of its volume
    transformed with `patch["key"]`, and of the rest as little is computed as can be; printing the queue shows how. A
    seed gives the same patches in the same order for any num_workers. Patches are views of a few made at once.

    A volume is transformed whole instead, once for all its patches and by the key of its epoch and index, where a
    shape depends on values behind what is random, and where the data set hides its transform: a ConcatDataset, or one
    of the user's own; a Subset does not. A function of the user's own is called on the volume in a thread, and what it
    draws from torch is not repeated.

    `len` is the number of patches of an epoch. Iterating, itself or by a DataLoader, gives the next epoch, or goes on
    where `load_state_dict` stands; `queue[i]` is the next patch, whatever i, without end. `state_dict()` is where it
    stands, for `torch.save` or JSON. Dropping the queue ends its threads.

    Raises ValueError for sizes below 1 and a max_length that holds no volume; RuntimeError in a worker of a DataLoader,
    whose num_workers must be 0, and in a forked child. What goes wrong with a subject begins with the subject.
    Differs from TorchIO: there a volume is augmented once for all its patches, and processes read.
    """

    at_once = 8
    """Patches that are made together."""

    def __init__(
        self,
        subjects_dataset: Any,
        max_length: int,
        samples_per_volume: int,
        sampler: MedjaxSampler,
        subject_sampler: Any = None,
        num_workers: int = 0,
        shuffle_subjects: bool = True,
        shuffle_patches: bool = True,
        start_background: bool = True,
        verbose: bool = False,
        *,
        device: Any = None,
        generator: torch.Generator | None = None,
    ):
        del start_background
        for name, size in {"max_length": max_length, "samples_per_volume": samples_per_volume}.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if max_length < samples_per_volume:
            raise ValueError(f"max_length={max_length} holds no volume of {samples_per_volume} patches")
        if not isinstance(sampler, MedjaxSampler):
            raise TypeError(f"sampler must be a sampler of torch_bridge, got {sampler!r}")
        self.subjects_dataset, self.sampler, self.subject_sampler = subjects_dataset, sampler, subject_sampler
        self.max_length, self.samples_per_volume, self.num_workers = max_length, samples_per_volume, num_workers
        self.shuffle_subjects, self.shuffle_patches, self.verbose = shuffle_subjects, shuffle_patches, verbose
        self.device, self.generator = device, generator
        self._seed: np.ndarray | None = None
        self._epoch, self._order, self._given, self._whole = -1, None, 0, False
        self._resumes = False
        self._batches: Any = None
        self._held: deque[Subject] = deque()
        self._size = 0

    def __len__(self) -> int:
        samples, chosen = self.samples(), self.subject_sampler
        if isinstance(samples, int):
            return samples * len(self.subjects_dataset if chosen is None else chosen)
        return sum(samples if chosen is None else (samples[int(index)] for index in chosen))

    def samples(self) -> int | list[int]:
        """How many patches a subject gives in an epoch, or how many each one does."""
        dataset, numbers = origin(self.subjects_dataset)
        known = isinstance(dataset, SubjectsDataset)
        own = [dataset.subjects[number].get("num_samples") for number in numbers] if known else []
        if all(number is None for number in own):
            return self.samples_per_volume
        return [self.samples_per_volume if number is None else int(number) for number in own]

    def __iter__(self) -> Iterator[Subject]:
        refuse()
        if not self._resumes:
            self._begin()
        self._resumes = False
        return self._rest(self._epoch)

    def _rest(self, epoch: int) -> Iterator[Subject]:
        """What is left of an epoch, unless another has begun."""
        while self._epoch == epoch and self._given < self._size:
            yield self._take()

    def __getitem__(self, index: int) -> Subject:
        """The next patch, whatever the index."""
        refuse()
        self._resumes = False
        if self._given >= self._size:
            self._begin()
        return self._take()

    def _begin(self) -> None:
        """Stand at the beginning of the next epoch."""
        if self._seed is None:
            self._seed = draw_key(self.generator)
        self._order = None if self.subject_sampler is None else [int(index) for index in self.subject_sampler]
        self._epoch, self._given = self._epoch + 1, 0
        source = self._start()
        if self.verbose:
            print(f"Epoch {self._epoch}: {self._size} patches of {len(source.order.volumes)} volumes.")

    def _start(self) -> mj.PatchQueue:
        """Have medjax's queue of this epoch go on where this one stands; its threads start with the next patch."""
        self._held.clear()
        assert self._seed is not None
        transform = None if self._whole else carried(self.subjects_dataset)
        source = mj.PatchQueue(
            Volumes(self.subjects_dataset, transform, self._seed, self._epoch),
            self.sampler,
            min(self.at_once, self.max_length),
            self._seed,
            samples_per_volume=self.samples(),
            max_length=self.max_length,
            shuffle_subjects=self.shuffle_subjects,
            shuffle_patches=self.shuffle_patches,
            epochs=range(self._epoch, self._epoch + 1),
            num_threads=max(1, self.num_workers),
            order=self._order,
        )
        self._size = len(source.order.order)
        self._batches = iter(source)
        place = {"batch": self._given // source.order.batch_size}
        self._batches.set_state({**self._batches.get_state(), **place})
        self._skip = self._given % source.order.batch_size
        return source

    def _take(self) -> Subject:
        """The next patch of the epoch."""
        if not self._held:
            try:
                batch = next(self._batches)
            except TypeError as error:
                if self._whole or not cannot_be_cut(error):
                    raise
                self._whole = True
                self._start()
                batch = next(self._batches)
            device = WHERE_COMPUTED if self.device is None else self.device
            self._held.extend(separated(batch, device)[self._skip :])
            self._skip = 0
        self._given += 1
        return self._held.popleft()

    def state_dict(self) -> dict[str, Any]:
        """Where the queue stands: its seed, the epoch, its volumes if a sampler chose them, how many patches it gave.

        And whether volumes are transformed whole.
        """
        seed = None if self._seed is None else self._seed.tolist()
        return {
            "seed": seed, "epoch": self._epoch, "order": self._order, "given": self._given, "whole": self._whole
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a queue of the same data set and options stood; patches that waited are made again.

        Raises ValueError for a state with more patches than an epoch has.
        """
        self._seed = None if state["seed"] is None else np.array(state["seed"], np.uint32)
        self._epoch, self._order = state["epoch"], state["order"]
        self._given, self._whole = state["given"], state["whole"]
        self._held.clear()
        self._batches, self._size = None, 0
        if self._epoch >= 0:
            self._start()
        if self._given > self._size:
            raise ValueError(f"the state has given {self._given} patches of an epoch that here has {self._size}")
        self._resumes = self._given < self._size

    def __getstate__(self) -> Any:
        raise TypeError(NO_WORKERS)

    def __repr__(self) -> str:
        text = f"Queue({len(self)} patches of {self.sampler.patch_size} an epoch, at most {self.max_length} waiting)"
        whole = self._whole or carried(self.subjects_dataset) is None
        transform = None if whole else origin(self.subjects_dataset)[0].transform
        return text + "\n" + ("volumes are transformed whole" if transform is None else shown(transform))


NO_WORKERS = (
    "a Queue reads by threads of its own, and each worker of a DataLoader would have a whole queue: give the "
    "DataLoader num_workers=0, and the Queue num_workers"
)


def refuse() -> None:
    """Raise a RuntimeError where no queue can run."""
    if get_worker_info() is not None:
        raise RuntimeError(NO_WORKERS)
    if forked.in_child():
        raise RuntimeError("a forked child runs no JAX: use the queue in the process that it was forked from")
