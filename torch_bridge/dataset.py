"""Subjects by number, for torch's data loaders: workers decode, the parent transforms (see `pending.py`)."""

import operator
from collections.abc import Callable, Iterable
from typing import Any, Self

from torch.utils.data import Dataset

import medjax as mj
from medjax.arguments import maybe, of_type
from medjax.data.prepared import prepared_by
from medjax.errors import about
from torch_bridge import users
from torch_bridge.bridge import as_member
from torch_bridge.cached import from_cache
from torch_bridge.image import Image
from torch_bridge.lending import from_torchio
from torch_bridge.pending import Held, Pending
from torch_bridge.steps import begun, has_torch
from torch_bridge.subject import Subject
from torch_bridge.transforms import Compose
from torch_bridge.utils import get_subjects_from_batch


class SubjectsDataset(Dataset):
    """Subjects by number, for any torch DataLoader; read and transformed when they are asked for.

    subjects: Subjects of the bridge or of torchio, usually of paths. What is read goes into a copy, so memory is flat
    however often they are drawn.  transform: one of the bridge or of medjax, or any function of a Subject.
    load_getitem: whether files are read where there is no transform, or a function of the user's.
    cache: a `Cache` that keeps what each subject becomes before anything random, for later epochs and other processes;
    what it holds is no part of a subject's history.

    `dataset[i]` is read at once and transformed at the first look at it, or at the batch that it became: in the parent
    process of a DataLoader with workers, a batch at once. A function of the user's own is called at once instead, in
    the worker. `keys` are drawn from torch's default generator then, so that `torch.manual_seed` makes it repeatable.
    Raises TypeError for what is no Subject, ValueError for no subjects, a transform that cannot be called and an index
    that is no whole number, IndexError beyond the end. An error while reading or transforming begins
    with the subject: its index, its short metadata and its files.
    """

    def __init__(
        self,
        subjects: Iterable[Any],
        transform: Callable[[Any], Any] | None = None,
        load_getitem: bool = True,
        *,
        cache: mj.Cache | None = None,
    ):
        self.subjects = [s if isinstance(s, Subject) else to_subject(s, i) for i, s in enumerate(subjects)]
        if not self.subjects:
            raise ValueError("subjects is empty: a data set has at least one")
        self.load_getitem = load_getitem
        self.cache = maybe(of_type(mj.Cache))("cache", cache)
        self.set_transform(transform)

    def set_transform(self, transform: Callable[[Any], Any] | None) -> None:
        """Take another transform."""
        if transform is not None and not callable(transform):
            raise ValueError(f"transform must be a transform, a function or None, got {transform!r}")
        step = isinstance(transform, users.Transform) and as_member(transform) is not transform
        held = Compose([transform]) if step else transform
        self._transform = transform
        self._held, self._function = (Held(held), None) if isinstance(held, mj.Transform) else (None, transform)
        self._prepared, self._rest = None, self._held
        if self.cache is not None:
            compiled = held if isinstance(held, mj.Transform) and not has_torch(held) else None
            self._prepared, rest = prepared_by(self.cache, compiled, "torch_bridge")
            if compiled is not None:
                self._rest = None if rest is None else Held(rest)

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """The transform of a subject."""
        return self._held.transform if self._transform is None and self._held is not None else self._transform

    def __getstate__(self) -> dict[str, Any]:
        # `Held` brings the transform, or finds it again where it came from: it need not pickle.
        return {**self.__dict__, "_transform": None if self._held is not None else self._transform}

    @classmethod
    def from_batch(cls, batch: Any) -> Self:
        """A data set of the subjects of a batch."""
        return cls(get_subjects_from_batch(batch))

    def dry_iter(self) -> list[Subject]:
        """The subjects as they were given, of which nothing is read or transformed."""
        return self.subjects

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> Subject:
        try:
            number = operator.index(index)
        except TypeError:
            raise ValueError(f"index must be a whole number, got {index!r}") from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} is beyond the {len(self)} subjects of the data set")
        who = describe(self.subjects[number], number % len(self))
        with about(who):
            if self._rest is None:
                known = self._prepared is not None
                subject = self.prepared(number) if known else self.subjects[number].owned(self.load_getitem)
                return subject if self._function is None else self._function(subject)
            subject, start = self.prepared(number), 0
            t = self._rest.here
            if t is not None and has_torch(t):
                subject, start = begun(t, subject)
            subject._pending = Pending(self._rest, [who])
            subject._pending.starts = [start]
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
