"""Subjects by number: read when asked for, and kept nowhere, or in a cache."""

import operator
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from medjax.arguments import maybe, of_type, whole
from medjax.data import parts, sources
from medjax.data.cache import Cache
from medjax.data.prepared import prepared_by
from medjax.data.progress import progress as shown_progress
from medjax.errors import about, needs_key
from medjax.image import Image
from medjax.subject import Subject
from medjax.transforms.checks import check_subject
from medjax.transforms.host import changes_grids
from medjax.transforms.program import flatten, is_random
from medjax.transforms.transform import Transform
from medjax.typing import Key


class Problem(NamedTuple):
    """What is wrong with a subject: its index, what errors call it, and the error."""

    index: int
    name: str
    error: Exception


class SubjectsDataset:
    """A sequence of subjects, each read and transformed when it is asked for.

    subjects: Subjects, usually of paths. They are left as they are: what is read goes into a copy, so memory is flat
    however often they are drawn.  transform: of one Subject; None only reads.  cache: a `Cache` that keeps what each
    subject becomes before anything random, for later epochs and other processes; see `prepared` and `rest`. Images in
    files are kept, images that are arrays are not.

    `dataset[i]` is subject i, (C, I, J, K) images, read and transformed; `dataset.get(i, key)` is the same with a key,
    for random transforms; `dataset.read(i)` leaves the transform out. Without a transform, or with one that is not
    random, it is a source for grain: `grain.MapDataset.source(SubjectsDataset(subjects))` has decoded subjects.

    Raises TypeError for what is no Subject or Transform, IndexError beyond the end. An error while reading or
    transforming begins with the subject: its index, its short metadata and its files.

    >>> dataset = mj.SubjectsDataset([mj.Subject(t1=mj.ScalarImage("t1.nii.gz"))], mj.RandomNoise())
    >>> noisy = dataset.get(0, jax.random.key(0))
    """

    def __init__(self, subjects: Iterable[Subject], transform: Transform | None = None, *, cache: Cache | None = None):
        self.subjects = tuple(subjects)
        self.transform = transform
        for index, subject in enumerate(self.subjects):
            if not isinstance(subject, Subject):
                raise TypeError(f"subjects[{index}] is no Subject but a {type(subject).__name__}")
        if transform is not None and not isinstance(transform, Transform):
            raise TypeError(f"transform must be a Transform or None, got {transform!r}")
        self.cache = cache = maybe(of_type(Cache))("cache", cache)
        self._prepared, self._rest = (None, transform) if cache is None else prepared_by(cache, transform, "medjax")

    @classmethod
    def from_folder(
        cls,
        pattern: str | os.PathLike,
        transform: Transform | None = None,
        *,
        labels: Sequence[str] = sources.LABELS,
        cache: Cache | None = None,
    ) -> "SubjectsDataset":
        """The subjects whose files lie in a folder, by their names.

        pattern: a path with names in braces. `{modality}` names the image of a subject, without it that is `image`;
        the other names become metadata, texts, and files that agree in all of them are of one subject. A name takes as
        much as it can, from left to right, and no `/`; twice the same name is twice the same text; `*`, `?` and `**`
        are as in a shell.
        labels: the images that are label maps; the others are ScalarImages, which come first.

        A subject has the images that are there: one that lacks a modality does not have it. No file is opened.
        Raises FileNotFoundError if nothing fits, ValueError for two files that would be the same image.

        >>> dataset = mj.SubjectsDataset.from_folder("bids/sub-{id}/anat/sub-{id}_{modality}.nii.gz", labels=["dseg"])
        >>> dataset.subjects[0].id, dataset.subjects[0].T1w
        """
        return cls(sources.in_folder(pattern, labels), transform, cache=cache)

    @classmethod
    def from_csv(
        cls,
        source: Any,
        transform: Transform | None = None,
        *,
        images: Sequence[str] = (),
        labels: Sequence[str] = (),
        folder: str | os.PathLike | None = None,
        cache: Cache | None = None,
    ) -> "SubjectsDataset":
        """A subject for each row of a table.

        source: the path of a text file whose columns are divided by commas, semicolons or tabs, or a DataFrame.
        images, labels: the columns that hold paths of scalar images and of label maps; all others are metadata. Of a
        text file those that hold nothing but numbers become numbers (007 is none). What is empty the subject lacks.
        folder: that relative paths begin in; that of the table, or for a DataFrame the working directory.

        Raises ValueError for columns that are not there, TypeError for another source, OSError for no file.

        >>> dataset = mj.SubjectsDataset.from_csv("study/scans.csv", images=["t1", "flair"], labels=["lesions"])
        """
        return cls(sources.in_table(source, images, labels, folder), transform, cache=cache)

    def subset(self, which: Iterable[int] | Callable[[Subject], bool]) -> "SubjectsDataset":
        """The data set of some of the subjects: of these indices, or of those for which a function, unread, is true.

        >>> adults = dataset.subset(lambda subject: subject.age >= 18)
        """
        if callable(which):
            indices = [index for index, subject in enumerate(self.subjects) if which(subject)]
        else:
            indices = [self._checked(whole(low=None)(f"which[{place}]", index)) for place, index in enumerate(which)]
        return SubjectsDataset((self.subjects[index] for index in indices), self.transform, cache=self.cache)

    def split(self, fractions: Sequence[float], *, by: str | None = None, key: Key) -> "tuple[SubjectsDataset, ...]":
        """Data sets of parts of the subjects, at random, each in the order in which the subjects are here.

        fractions: of the parts, positive, 1 together.  by: a metadatum; subjects that share its value stay together, as
        scans of one person should.  key: with the same key the parts are the same, and nearly the same when subjects
        are added: each has a random number of its own, and the numbers are cut.

        Raises ValueError for fractions that leave a part without a subject, and for a subject without that metadatum.

        >>> train, validate, test = dataset.split((0.7, 0.15, 0.15), by="id", key=jax.random.key(0))
        """
        return tuple(self.subset(indices) for indices in parts.divided(self.subjects, fractions, by, key))

    @property
    def rest(self) -> Transform | None:
        """What is left to do to what `prepared` gives: all of the transform, without a cache; None if nothing is."""
        return self._rest

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> Subject:
        return self.get(index)

    def get(self, index: int, key: Any = None) -> Subject:
        """Subject `index`, read and transformed with this key. Raises TypeError if a key is needed and None given."""
        index = self._checked(index)
        if key is None and self.transform is not None and is_random(self.transform):
            needs_key(type(self.transform).__name__, f"dataset.get({index}, jax.random.key(0))")
        subject, rest = self.prepared(index), self.rest
        if rest is None:
            return subject
        with about(self.describe(index)):
            return rest(subject, key)

    def prepared(self, index: int, proceed: Callable[[], None] | None = None) -> Subject:
        """Subject `index` as far as it is the same in every epoch: what is left is `rest`.

        Without a cache that is `read`. With one, the steps before the first random one are done, once: their results
        are mapped from the cache, and are not to be written to.
        """
        prepared, index = self._prepared, self._checked(index)
        if prepared is None:
            return self.read(index, proceed)
        if proceed is not None:
            proceed()
        name = self.describe(index)

        def make() -> Subject:
            subject = self.read(index, proceed)
            with about(name):
                return subject if prepared.only_reads else prepared.head(subject)

        return prepared.get(self.subjects[index], make)

    def known_shape(self, index: int, name: str) -> tuple[int, ...] | None:
        """(C, I, J, K) of an image of `prepared`; None where nothing but making it tells. Keeps nothing."""
        image = self.subjects[index].images.get(name)
        if image is None or (self._prepared is not None and changes_grids(flatten(self._prepared.head))):
            return None
        return image.known_shape()

    def known_shapes(self, names: Sequence[str], num_threads: int) -> list[dict[str, tuple[int, ...] | None]]:
        """`known_shape` of the images of these names that each subject has, from the headers of all files."""

        def shapes(index: int) -> dict[str, tuple[int, ...] | None]:
            images = self.subjects[index].images
            with about(self.describe(index)):
                return {name: self.known_shape(index, name) for name in names if name in images}

        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(shapes, range(len(self)) if names else ()))

    def outlines(self) -> dict[str, Image]:
        """An image without voxels, as `prepared` gives it, for each name that any subject has.

        Those of the subject with most images come first, in its order; no more subjects are read than are needed.
        """
        counts = [len(subject.images) for subject in self.subjects]
        found: dict[str, Image] = {}
        for index in np.argsort(-np.array(counts), kind="stable").tolist():
            if not found.keys() >= self.subjects[index].images.keys():
                for name, image in self.prepared(index).images.items():
                    outline = np.broadcast_to(np.zeros((), image.dtype), image.shape)
                    found.setdefault(name, image.replace(data=outline))
        return found

    def read(self, index: int, proceed: Callable[[], None] | None = None) -> Subject:
        """A copy of subject `index` with every image read, not transformed; touches NumPy only.

        proceed: called before each image; what it raises ends the reading, and passes as it is.
        """
        index = self._checked(index)
        subject, images = self.subjects[index], {}
        for name, image in subject.images.items():
            if proceed is not None:
                proceed()
            with about(self.describe(index)):
                images[name] = image.load()
        return subject.replace(**images)

    def check(self, *, voxels: bool = False, progress: bool = True) -> list[Problem]:
        """All subjects that cannot be used, before an epoch is begun: (index, name, error) of each.

        Headers are read, and what the transform asks of a subject is checked (the images that it names, a world that
        they share); with `voxels` every file is read to its end, one subject at a time. Nothing is kept or transformed.
        A list, so that one bad file of a thousand does not hide the others: stop there, or leave them out.
        progress: a bar on a terminal, with the extra `demo` or `cli`.

        >>> bad = {problem.index for problem in dataset.check(voxels=True)}
        >>> dataset = dataset.subset(index for index in range(len(dataset)) if index not in bad)
        """
        problems = []
        with shown_progress("checking", len(self), progress) as advance:
            for index in range(len(self)):
                try:
                    with about(self.describe(index)):
                        self._check(index, voxels)
                except Exception as error:
                    problems.append(Problem(index, self.describe(index), error))
                advance()
        return problems

    def _check(self, index: int, voxels: bool) -> None:
        """Raise an error for a subject that cannot be used."""
        subject = self.subjects[index]
        copy = subject.replace(**{name: image.replace() for name, image in subject.images.items()})
        copy = copy.load() if voxels else copy
        for name, image in copy.images.items():
            with about(name):
                _ = image.shape, image.affine, image.dtype
        if self.transform is not None:
            check_subject(self.transform, copy)

    def describe(self, index: int) -> str:
        """Which subject this is, for a message: its index, its short metadata and its files."""
        subject = self.subjects[index]
        known = [f"{name}={item!r}" for name, item in subject.metadata.items() if is_short(item)]
        files = [f"{name}: {image.path}" for name, image in subject.images.items() if image.path is not None]
        return f"subject {index}" + (f" ({', '.join(known + files)})" if known or files else "")

    def __repr__(self) -> str:
        return f"SubjectsDataset({len(self)} subjects, transform={self.transform!r})"

    def _checked(self, index: int) -> int:
        """The index as a number from 0 on."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} is beyond the {len(self)} subjects of the data set")
        return number % len(self)


def is_short(item: Any) -> bool:
    """Whether an item of metadata tells subjects apart in a line of text."""
    return isinstance(item, int) or (isinstance(item, str) and len(item) <= 80)
