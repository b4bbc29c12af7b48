"""Subjects by number: read when asked for, and kept nowhere, or in a cache."""

import operator
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from medjax.arguments import maybe, of_type
from medjax.data.cache import Cache
from medjax.data.prepared import prepared_by
from medjax.errors import about, needs_key
from medjax.subject import Subject
from medjax.transforms.checks import check_subject
from medjax.transforms.host import changes_grids
from medjax.transforms.program import flatten, is_random
from medjax.transforms.transform import Transform


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
        cache = maybe(of_type(Cache))("cache", cache)
        self._prepared, self._rest = (None, transform) if cache is None else prepared_by(cache, transform, "medjax")

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

    def check(self, *, voxels: bool = False) -> list[Problem]:
        """All subjects that cannot be used, before an epoch is begun: (index, name, error) of each.

        Headers are read, and what the transform asks of a subject is checked (the images that it names, a world that
        they share); with `voxels` every file is read to its end, one subject at a time. Nothing is kept or transformed.
        A list, so that one bad file of a thousand does not hide the others: stop there, or leave them out.

        >>> bad = {problem.index for problem in dataset.check(voxels=True)}
        >>> dataset = mj.SubjectsDataset([s for i, s in enumerate(subjects) if i not in bad], pipeline)
        """
        problems = []
        for index in range(len(self)):
            try:
                with about(self.describe(index)):
                    subject = self.subjects[index]
                    copy = subject.replace(**{name: image.replace() for name, image in subject.images.items()})
                    copy = copy.load() if voxels else copy
                    for name, image in copy.images.items():
                        with about(name):
                            _ = image.shape, image.affine, image.dtype
                    if self.transform is not None:
                        check_subject(self.transform, copy)
            except Exception as error:
                problems.append(Problem(index, self.describe(index), error))
        return problems

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
