"""What is to be done to a subject, or to a batch of them, when somebody looks.

A pending subject is read and not transformed; what collates is a pending batch; both pickle as what they are. Whoever
first looks at what they hold transforms: the parent of a data loader a whole batch at once, on its device, with keys
drawn from torch's default generator in the order of the batch. So a plain DataLoader gives the same batches with any
number of workers, whatever starts them. What runs in a worker touches NumPy and torch only.
"""

import pickle
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from torch.utils.data._utils import collate as torch_collate
from torch.utils.data._utils.collate import default_collate_fn_map

import medjax as mj
from medjax.data.loader import keys_of
from medjax.errors import UnknownShape, about
from medjax.keys import as_key, as_keys, words_of
from medjax.transforms import call, checks, host
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.bridge import compute, draw_key, one_by_one
from torch_bridge.image import Image
from torch_bridge.lending import WHERE_COMPUTED, subject_to_medjax
from torch_bridge.replay import Record, grids, noted
from torch_bridge.steps import has_torch, run, steps_of
from torch_bridge.subject import Batch, Items, Subject, check_names, same_shapes, stacked, stacked_images

UNBATCHED: set[Any] = set()
"""Pipelines, with the shapes they got, whose results have a shape of their own for each subject."""


class Held:
    """A transform that pending subjects carry: the process it came from knows it by a token, and finds its own again.

    So compiled programs are found again, and a function that does not pickle can be used in workers that never call it.
    """

    def __init__(self, transform: mj.Transform):
        self._transform: mj.Transform | None = transform
        self._packed: bytes | None = None
        self.token = uuid.uuid4().hex
        HELD[self.token] = self

    @property
    def transform(self) -> mj.Transform:
        """The transform. Raises TypeError if it could not be brought here."""
        if self._transform is not None:
            return self._transform
        if not self._packed:
            raise TypeError("the transform does not pickle, so no other process can call it: define it in a module")
        self._transform = found = pickle.loads(self._packed)
        return found

    @property
    def here(self) -> mj.Transform | None:
        """The transform, or None where it could not be brought."""
        return self.transform if self._transform is not None or self._packed else None

    def packed(self) -> bytes:
        """The transform as a pickle; empty if it has none."""
        if self._packed is None:
            try:
                self._packed = pickle.dumps(self._transform)
            except (pickle.PicklingError, AttributeError, TypeError):
                self._packed = b""
        return self._packed

    def __reduce__(self) -> Any:
        return recalled, (self.token, self.packed())

    def __deepcopy__(self, memo: Any) -> "Held":
        return self


HELD: "weakref.WeakValueDictionary[str, Held]" = weakref.WeakValueDictionary()


def recalled(token: str, packed: bytes) -> Held:
    """The holder of this token, or a new one; computes nothing, for an error while unpickling would stop a loader."""
    found = HELD.get(token)
    if found is None:
        found = object.__new__(Held)
        found._transform, found._packed, found.token = None, packed, token
        HELD[token] = found
    return found


class Pending:
    """What is to be done to a subject, or to a batch of them, when somebody looks.

    held: the transform.  who: what an error calls each subject.  keys: one for each, None where it is to be drawn then.
    device: where the result is put; None for where a single subject was, or for where JAX computes a batch.
    starts: how many steps in torch were done in the worker, for each.
    subjects: those of a batch that do not stack yet.
    Copies of a pending subject share it, so that all of them see what is drawn once.
    """

    def __init__(self, held: Held, who: Sequence[str], subjects: Sequence[Subject] | None = None):
        self.held, self.who, self.subjects = held, list(who), subjects
        self.keys: list[Any] = [None] * len(self.who)
        self.starts = [0] * len(self.who)
        self.device: Any = None

    def __deepcopy__(self, memo: Any) -> "Pending":
        return self

    def resolve(self, x: Items) -> None:
        """Transform a pending subject or batch."""
        if is_random(self.held.transform):
            self.keys = [draw_key() if key is None else key for key in self.keys]
        if isinstance(x, Subject):
            made = self.single(x)
            x._items, x._pending, x._history = made._items, None, made.applied_transforms
        else:
            many = self.several(x)
            x._items, x._pending, x._histories = many._items, None, many._histories  # pyright: ignore

    def single(self, x: Subject) -> Subject:
        """A subject, transformed."""
        before = Subject(x._items)
        before.applied_transforms = x.__dict__.get("_history", [])
        if has_torch(self.held.transform):
            with about(self.who[0]):
                done = run(steps_of(self.held.transform), [before], self.keys, many, self.starts[0])[0].owned()
            return done if self.device in (None, WHERE_COMPUTED) else done.to(self.device)
        return self.one(before, self.who[0], self.keys[0], self.device)

    def several(self, x: Any) -> Batch:
        """A batch, transformed: in one program where its results are of one shape."""
        batch, t = x._with(x._items), self.held.transform
        batch._shows = None  # what was done is known at the end
        subjects, device = self.subjects or batch.unstacked, self.device or WHERE_COMPUTED
        if has_torch(t):
            return self.in_steps(subjects() if callable(subjects) else subjects)
        if self.subjects is None:
            inner, back = subject_to_medjax(batch)
            keys = None if self.keys[0] is None else np.stack(self.keys)
            result = forked.run(compute_many, t, inner, keys, self.who)
            if result is not None:
                made = back(result, device)
                made._histories = histories(batch, t, self.keys, inner)
                return made
        each = zip(subjects() if callable(subjects) else subjects, self.who, self.keys, strict=True)
        return stacked([self.one(subject, who, key, device) for subject, who, key in each], self.who)

    def in_steps(self, subjects: Sequence[Subject]) -> Batch:
        """A batch of these, by a pipeline with steps in torch."""
        steps = steps_of(self.held.transform)
        with about(", ".join(self.who)):
            if len(set(self.starts)) == 1:
                done = run(steps, list(subjects), self.keys, many, self.starts[0])
            else:
                each = zip(subjects, self.keys, self.starts, strict=True)
                done = [run(steps, [subject], [key], many, start)[0] for subject, key, start in each]
        batch = stacked(done, self.who)
        return batch if self.device in (None, WHERE_COMPUTED) else batch.to(self.device)

    def one(self, subject: Subject, who: str, key: Any, device: Any) -> Subject:
        """One subject, transformed."""
        inner, back = subject_to_medjax(subject)
        with about(who):
            result = back(forked.run(compute, self.held.transform, inner, key), device)
        return noted(result, subject, self.held.transform, key, inner)


def compute_many(t: mj.Transform, x: mj.Subject, keys: Any, who: Sequence[str]) -> mj.Subject | None:
    """A batch by one program, waited for; None if the shapes of its results depend on values."""
    given = (jax.tree.structure(t), *((n, i.shape, str(i.dtype)) for n, i in x.images.items()))
    if given in UNBATCHED:
        return None
    keys = None if keys is None else as_keys(keys, len(who))
    with about(", ".join(who)):
        checks.check_subject(t, x)
        try:
            result, seen = call.compute(t, host.bare(x), keys)
        except UnknownShape:
            UNBATCHED.add(given)
            return None
    return jax.block_until_ready(host.after_batch(t, x, result, seen, len(who), who))


def many(t: mj.Transform, subjects: list[Subject], keys: list[np.ndarray]) -> list[Subject]:
    """A compiled pipeline on several subjects, in one program if they stack."""
    if len(subjects) == 1 or not same_shapes(subjects):
        return one_by_one(t, subjects, keys)
    who = [f"element {i}" for i in range(len(subjects))]
    batch = stacked(subjects, who)
    inner, back = subject_to_medjax(batch)
    result = forked.run(compute_many, t, inner, np.stack(keys) if is_random(t) else None, who)
    if result is None:
        return one_by_one(t, subjects, keys)
    made = back(result)
    made._histories = histories(batch, t, keys, inner)
    return made.unstacked()


def histories(batch: Batch, t: mj.Transform, keys: Sequence[Any], inner: mj.Subject) -> list[list[Any]]:
    """The records of each element of a batch, with that of a call on all of it."""
    before = batch._histories or [[]] * len(keys)
    words = keys if is_random(t) else [None] * len(keys)
    shared, pairs = grids(inner), zip(before, words, strict=True)
    return [[*records, Record(t, key, shared, i)] for i, (records, key) in enumerate(pairs)]


def element_keys(seed: np.ndarray, epoch: int, indices: Sequence[int]) -> np.ndarray:
    """The keys of elements of a data set in an epoch, (B, 2)."""
    found = keys_of(as_key(seed), np.uint32(epoch), np.array(indices, np.uint32))
    return np.asarray(words_of(found))


def collate(subjects: Sequence[Subject], *, collate_fn_map: Any = None) -> Batch:
    """A batch of subjects; pending if they are. Raises ValueError, saying which two, if they differ in their images."""
    del collate_fn_map
    pending = [subject._pending for subject in subjects]
    if any(p is None or p.held is not pending[0].held for p in pending):
        return stacked(subjects, [f"element {i}" for i in range(len(subjects))])
    who = [p.who[0] for p in pending]
    read = [subject._with(subject._items) for subject in subjects]
    check_names(read, who)
    fits = same_shapes(read)
    # Where they differ in shape they are brought to one by the transform, each on its own.
    batch = stacked(read, who) if fits else Batch({})
    batch._pending = Pending(pending[0].held, who, None if fits else read)
    batch._pending.keys = [p.keys[0] for p in pending]
    batch._pending.starts = [p.starts[0] for p in pending]
    return batch


def collate_images(images: Sequence[Image], *, collate_fn_map: Any = None) -> Image:
    """One image (B, C, I, J, K) of several that stand in dictionaries of the user's."""
    del collate_fn_map
    return stacked_images(images, "an image", [f"element {i}" for i in range(len(images))])


def convert(data: Any) -> Any:
    """What a DataLoader makes of one item with `batch_size=None`: torch's, but for what is pending, which it leaves.

    torch converts the items of whatever is a dictionary, and would look in the worker.
    """
    return data if isinstance(data, Items) and data._pending is not None else torchs_convert(data)


torchs_convert = torch_collate.default_convert
torch_collate.default_convert = convert
default_collate_fn_map[Subject] = collate
default_collate_fn_map[Image] = collate_images
