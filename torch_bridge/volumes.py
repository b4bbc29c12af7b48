"""The subjects of a torch data set as medjax's queue reads them, and its patches as subjects."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from torch.utils.data import Subset

import medjax as mj
from medjax import keys
from medjax.data.loader import in_order
from medjax.errors import UnknownShape, about
from medjax.subject import KEY
from torch_bridge.constants import LOCATION
from torch_bridge.dataset import SubjectsDataset, describe, to_subject
from torch_bridge.dlpack import Owners, lent, restored, to_torch
from torch_bridge.lending import WHERE_COMPUTED, carried, placed, taken
from torch_bridge.pending import element_keys
from torch_bridge.steps import has_torch
from torch_bridge.subject import Subject, element

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
                mine = [n for n, i in subject.get_images_dict(intensity_only=False).items() if i._tensor is None]
                subject = self.dataset.prepared(number)
            x, dtypes, images = subject.as_medjax(), {}, {}
            for name, image in subject.get_images_dict(intensity_only=False).items():
                stored = x[name].stored()
                dtypes[name] = torch_type(stored.dtype) if image._tensor is None else image._tensor.dtype
                images[name] = owned(stored.replace(metadata={**stored.metadata, **carried(image)}), name in mine)
            seen = {**x.annotations, **images}
            rest = {n: item for n, item in subject.items() if n not in seen and item is not None}
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


def owned(image: mj.Image, mine: bool) -> mj.Image:
    """An image in an order and a type that JAX takes, in memory of its own; mine: that what is given is in, too."""
    given = np.asarray(image.data)
    data = in_order(given if given.dtype.itemsize <= 4 else np.asarray(lent(to_torch(given), image.is_label)))
    return image.replace(data=data if mine or not np.may_share_memory(data, given) else data.copy())


def origin(dataset: Any) -> tuple[Any, Sequence[int]]:
    """The data set behind Subsets, and which of its subjects they have."""
    if type(dataset) is not Subset:
        return dataset, range(len(dataset))
    inner, numbers = origin(dataset.dataset)
    return inner, [numbers[int(index)] for index in dataset.indices]


def transform_of(dataset: Any) -> mj.Transform | None:
    """The transform that all subjects of a data set carry and somebody else may do; None if that is not known."""
    inner, _ = origin(dataset)
    own = isinstance(inner, SubjectsDataset) and type(inner).__getitem__ is SubjectsDataset.__getitem__
    t = inner._rest.transform if own and inner._rest is not None else None
    return None if t is None or has_torch(t) else t


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
                data, header = restored(tensors[name][i], note.dtypes.get(name)), item.metadata
                items[name] = taken(item, data, affines[name][i], header[i])  # pyright: ignore
            elif name not in (NOTES, KEY, LOCATION):
                items[name] = element(item, i)
        key = torch.from_numpy(words[i] if note.key is None else note.key.astype(np.int64))
        made.append(Subject({**items, **copy.deepcopy(note.rest), LOCATION: locations[i], KEY: key}))
    return made
