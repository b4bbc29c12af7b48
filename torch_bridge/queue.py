"""A queue of random patches for training."""

import math
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

import medjax as mj
from medjax.patches.samplers import Sampler as MedjaxSampler
from medjax.transforms.program import shown
from torch_bridge import forked
from torch_bridge.bridge import draw_key
from torch_bridge.dataset import SubjectsDataset
from torch_bridge.lending import WHERE_COMPUTED
from torch_bridge.ranks import are_several, share
from torch_bridge.subject import Subject
from torch_bridge.volumes import Volumes, cannot_be_cut, origin, separated, transform_of


class Queue(Dataset):
    """Random patches of a data set, each with an augmentation of its own; a map-style Dataset of them.

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

    Under torch.distributed each rank has its part of the volumes of an epoch, as DistributedSampler deals them, and the
    length is that of the part; a subject_sampler is asked instead. Lightning would deal a DataLoader of a queue again:
    give its Trainer `use_distributed_sampler=False`.

    `queue[i]` is the next patch, whatever i, epoch after epoch without end: so any DataLoader, its sampler, shuffle and
    drop_last may ask. `len` is the number of patches of an epoch; after `load_state_dict` of what is left of it, until
    the next patch is taken. Iterating the queue itself, or a SubjectsLoader, gives the next epoch, or goes on where
    `load_state_dict` stands. `state_dict()` is where it stands, for `torch.save` or JSON. Dropping the queue ends its
    threads.

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
        return self._size - self._given if self._resumes else self.iterations_per_epoch

    @property
    def num_subjects(self) -> int:
        """How many volumes an epoch has. Raises ValueError for a subject_sampler that does not say it."""
        chosen = self.chosen(max(0, self._epoch))
        if chosen is not None and not hasattr(chosen, "__len__"):
            raise ValueError(f"subject_sampler must have a __len__, got {self.subject_sampler!r}")
        return len(self.subjects_dataset if chosen is None else chosen)

    def chosen(self, epoch: int) -> Any:
        """What gives the volumes of an epoch: the user's sampler, or what deals them to several ranks; else None."""
        if self.subject_sampler is not None or not are_several():
            return self.subject_sampler
        return share(self.subjects_dataset, self.shuffle_subjects, epoch)

    @property
    def num_patches(self) -> int:
        """How many patches are made and wait."""
        return len(self._held)

    def get_max_memory(self, subject: Subject | None = None) -> int:
        """Bytes of `max_length` patches of float32. subject: whose images are counted; None for the first."""
        first: Subject = self.subjects_dataset[0] if subject is None else subject
        channels = sum(image.num_channels for image in first.get_images(intensity_only=False))
        return 4 * math.prod(self.sampler.patch_size) * channels * self.max_length

    def get_max_memory_pretty(self, subject: Subject | None = None) -> str:
        """The same in words, as '1.5 GiB'."""
        size, units = float(self.get_max_memory(subject)), ["Bytes", "KiB", "MiB", "GiB", "TiB"]
        while size >= 1024 and len(units) > 1:
            size, _ = size / 1024, units.pop(0)
        return f"{size:.1f} {units[0]}"

    @property
    def iterations_per_epoch(self) -> int:
        """How many patches an epoch has."""
        samples, chosen = self.samples(), self.chosen(max(0, self._epoch))
        if not isinstance(samples, int) and self.subject_sampler is None and are_several():
            raise ValueError(
                "subjects with a num_samples of their own make epochs of another length on each rank: give "
                "subject_sampler, or take the num_samples away"
            )
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
        self._epoch, self._given = self._epoch + 1, 0
        chosen = self.chosen(self._epoch)
        self._order = None if chosen is None else [int(index) for index in chosen]
        source = self._start()
        if self.verbose:
            print(f"Epoch {self._epoch}: {self._size} patches of {len(source.order.volumes)} volumes.")

    def _start(self) -> mj.PatchQueue:
        """Have medjax's queue of this epoch go on where this one stands; its threads start with the next patch."""
        self._held.clear()
        assert self._seed is not None
        transform = None if self._whole else transform_of(self.subjects_dataset)
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
        if self._epoch >= 0 and self.subject_sampler is None and are_several():
            self._order = list(self.chosen(self._epoch))  # this rank's, whichever rank's state it is
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
        whole = self._whole or transform_of(self.subjects_dataset) is None
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
