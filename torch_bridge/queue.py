"""Random patches of subjects, and a queue of them for training."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

import medjax as mj
from medjax import keys
from medjax.patches.samplers import Sampler as MedjaxSampler
from torch_bridge import forked
from torch_bridge.dataset import SubjectsDataset, element_keys
from torch_bridge.subject import LOCATION, WHERE_COMPUTED, Image, Subject, subject_to_medjax
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

    def arguments(self) -> tuple[Any, ...]:
        """What it was made of."""
        return (self.patch_size,)

    def __reduce__(self) -> Any:
        return same, (type(self), self.arguments())


class UniformSampler(Sampler, mj.UniformSampler):
    """Patches anywhere, each place that fits equally likely, those at the border included. See `Sampler`."""


class WeightedSampler(Sampler, mj.WeightedSampler):
    """Patches whose centres are drawn in proportion to an image; see `Sampler` and `medjax.WeightedSampler`.

    probability_map: name of the image; what is 0 there is never a centre.
    """

    def arguments(self) -> tuple[Any, ...]:
        return self.patch_size, self.probability_map


class LabelSampler(Sampler, mj.LabelSampler):
    """Patches whose centres are voxels of a label map; see `Sampler` and `medjax.LabelSampler`.

    label_name: the label map; None for the first.  label_probabilities: {label: weight}; None for any that is not 0.
    """

    def arguments(self) -> tuple[Any, ...]:
        ratios = self.label_probabilities
        return self.patch_size, self.label_name, None if ratios is None else tuple(ratios.items())


@lru_cache(64)
def same(cls: type[Sampler], arguments: tuple[Any, ...]) -> Sampler:
    """The sampler of these arguments: one for all that are unpickled, so that its programs are compiled once."""
    return cls(*arguments)


class Queue(Dataset):
    """Random patches of a data set, of which a bounded number is held; under a plain DataLoader, or iterated itself.

    subjects_dataset: a SubjectsDataset.  max_length: how many patches are held at most.  samples_per_volume: patches of
    each subject in an epoch; a subject's own `num_samples` counts instead.  sampler: where they lie.
    subject_sampler: a torch sampler that gives the order of an epoch instead of shuffle_subjects.  num_workers: threads
    that read ahead; 0 reads when it is time.  shuffle_patches: mix the patches that are held.  device: where they lie;
    None for where JAX computes.  generator: where the seed is drawn from when the first patch is asked for; None for
    torch's default one.  start_background: accepted; reading starts with the first patch.  verbose: print each filling.

    It is filled with patches of as many volumes as it holds, mixed, handed out until none is left, and filled again. A
    volume is read and transformed once an epoch, whole, by the key of its epoch and index, and its patches are drawn by
    their number in it. So a seed gives the same patches in the same order for any num_workers. `len` is the number of
    patches of an epoch; the next epoch follows without end. `state_dict()` is where it stands, for `torch.save`.

    Raises ValueError for sizes below 1; RuntimeError in a worker of a DataLoader, whose num_workers must be 0.
    Differs from TorchIO: max_length may be less than samples_per_volume, and no process is started.
    """

    def __init__(
        self,
        subjects_dataset: SubjectsDataset,
        max_length: int,
        samples_per_volume: int,
        sampler: Sampler,
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
        if not isinstance(sampler, Sampler):
            raise TypeError(f"sampler must be a sampler of torch_bridge, got {sampler!r}")
        self.subjects_dataset, self.sampler, self.subject_sampler = subjects_dataset, sampler, subject_sampler
        self.max_length, self.samples_per_volume, self.num_workers = max_length, samples_per_volume, num_workers
        self.shuffle_subjects, self.shuffle_patches, self.verbose = shuffle_subjects, shuffle_patches, verbose
        self.device, self.generator = device, generator
        self._seed: np.ndarray | None = None
        self._epoch, self._order, self._volume, self._number = -1, [], 0, 0
        self._held: deque[Subject] = deque()
        self._mark: dict[str, Any] = {"epoch": -1, "order": [], "volume": 0, "number": 0}
        self._taken = 0
        self._forget()

    def _forget(self) -> None:
        """Drop what is held, and what was read."""
        self._held.clear()
        self._current: Subject | None = None
        self._ahead: deque[tuple[int, Future]] = deque()
        self._readers: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        indices = range(len(self.subjects_dataset)) if self.subject_sampler is None else self.subject_sampler
        return sum(self.samples_of(int(index)) for index in indices)

    def samples_of(self, index: int) -> int:
        """How many patches subject `index` gives in an epoch."""
        subjects = getattr(self.subjects_dataset, "subjects", None)
        own = None if subjects is None else subjects[index].get("num_samples")
        return self.samples_per_volume if own is None else int(own)

    def __iter__(self) -> Iterator[Subject]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, index: int) -> Subject:
        """The next patch, whatever the index."""
        if get_worker_info() is not None:
            raise RuntimeError(
                "a Queue reads by threads of its own, and each worker of a DataLoader would have a whole queue: give "
                "the DataLoader num_workers=0, and the Queue num_workers"
            )
        for _ in range(2):  # a state may stand at the end of a filling, and that at the end of an epoch
            if not self._held:
                self._fill()
        self._taken += 1
        return self._held.popleft()

    def _fill(self) -> None:
        """Hold as many patches as fit, of what is left of the epoch."""
        if self._seed is None:
            self._seed = draw_key(self.generator)
        if self._volume >= len(self._order):
            self._epoch, self._order, self._volume, self._number = self._epoch + 1, self._new_order(), 0, 0
        self._mark = {
            "epoch": self._epoch, "order": self._order, "volume": self._volume, "number": self._number
        }  # fmt: skip
        self._taken = 0
        held: list[Subject] = []
        while len(held) < self.max_length and self._volume < len(self._order):
            index = self._order[self._volume]
            samples = self.samples_of(index)
            count = min(samples - self._number, self.max_length - len(held))
            if count:
                held += self._patches(index, count)
            self._number += count
            if self._number >= samples:
                self._current, self._volume, self._number = None, self._volume + 1, 0
        if self.shuffle_patches:
            place = (self._mark[name] for name in ("epoch", "volume", "number"))
            mixed = np.random.default_rng([*self._seed, *place])
            held = [held[i] for i in mixed.permutation(len(held))]
        if self.verbose:
            print(f"The queue holds {len(held)} patches of epoch {self._epoch}.")
        self._held.extend(held)

    def _new_order(self) -> list[int]:
        """The subjects of an epoch, in order."""
        if self.subject_sampler is not None:
            order = [int(index) for index in self.subject_sampler]
        elif self.shuffle_subjects:
            mixed = np.random.default_rng([*self._seed, self._epoch + 1])  # pyright: ignore
            order = mixed.permutation(len(self.subjects_dataset)).tolist()
        else:
            order = list(range(len(self.subjects_dataset)))
        if not any(self.samples_of(index) for index in order):
            raise ValueError("the queue has no subject to take patches of")
        return order

    def _patches(self, index: int, count: int) -> list[Subject]:
        """The next patches of a volume, which is read and transformed when it begins."""
        key = forked.run(element_keys, self._seed, self._epoch, [index])[0]
        if self._current is None:
            self._current = self._read()
            pending = self._current._pending
            if pending is not None:
                pending.keys, pending.device = key[None], WHERE_COMPUTED
        device = WHERE_COMPUTED if self.device is None else self.device
        return patches(self.sampler, self._current, key, self._number, count, device)

    def _read(self) -> Subject:
        """The volume that is due, read; threads go on with the next ones."""
        if self.num_workers < 1:
            return self.subjects_dataset[self._order[self._volume]]
        if self._readers is None:
            self._readers = ThreadPoolExecutor(self.num_workers, "torch_bridge-queue")
        last = self._ahead[-1][0] if self._ahead else self._volume - 1
        for place in range(last + 1, min(self._volume + self.num_workers + 1, len(self._order))):
            self._ahead.append((place, self._readers.submit(self.subjects_dataset.__getitem__, self._order[place])))
        return self._ahead.popleft()[1].result()

    def state_dict(self) -> dict[str, Any]:
        """Where the queue stands: its seed, where the patches that it holds began, and how many were taken of them."""
        seed = None if self._seed is None else self._seed.tolist()
        return {"seed": seed, **self._mark, "order": list(self._mark["order"]), "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Stand where a queue of the same data set and options stood; what it held is made again."""
        self._forget()
        self._seed = None if state["seed"] is None else np.array(state["seed"], np.uint32)
        self._epoch, self._order = state["epoch"], list(state["order"])
        self._volume, self._number = state["volume"], state["number"]
        if self._seed is not None:
            self._fill()
            for _ in range(state["taken"]):
                self._held.popleft()
            self._taken = state["taken"]

    def __getstate__(self) -> Any:
        raise TypeError("a Queue does not pickle: give the DataLoader num_workers=0, and the Queue num_workers")

    def __repr__(self) -> str:
        return f"Queue({len(self)} patches of {self.sampler.patch_size} an epoch, at most {self.max_length} held)"
