"""What is to be done to a subject or batch when somebody looks at it, and the transform, which processes find again.

A worker makes it and passes it on; it touches NumPy and torch only, and computes nothing while it is unpickled.
"""

import pickle
import uuid
import weakref
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import medjax as mj
from medjax.errors import UnknownShape, about
from medjax.keys import as_keys
from medjax.transforms import call, checks, host
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.subject import WHERE_COMPUTED, Batch, Items, Subject, stacked, subject_to_medjax
from torch_bridge.transforms import compute, draw_key

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

    held: the transform.  who: what an error calls each subject.  keys: one for each; None to draw them then.
    device: where the result is put; None for where a single subject was, or for where JAX computes a batch.
    subjects: those of a batch that do not stack yet.
    """

    def __init__(self, held: Held, who: Sequence[str], subjects: Sequence[Subject] | None = None):
        self.held, self.who, self.subjects = held, list(who), subjects
        self.keys: Any = None
        self.device: Any = None

    def resolve(self, x: Items) -> dict[str, Any]:
        """The items of a pending subject or batch, transformed."""
        keys = self.keys
        if keys is None and is_random(self.held.transform):
            keys = np.stack([draw_key() for _ in self.who])
        if isinstance(x, Subject):
            return self.one(x, self.who[0], None if keys is None else keys[0], self.device)._items
        if self.subjects is None:
            inner, back = subject_to_medjax(Batch(x._items))
            result = forked.run(compute_many, self.held.transform, inner, keys, self.who)
            if result is not None:
                return back(result, self.device or WHERE_COMPUTED)._items
        subjects = Batch(x._items).unstacked() if self.subjects is None else self.subjects
        each = zip(subjects, self.who, [None] * len(subjects) if keys is None else keys, strict=True)
        return stacked([self.one(*parts, self.device or WHERE_COMPUTED) for parts in each], self.who)._items

    def one(self, subject: Subject, who: str, key: Any, device: Any) -> Subject:
        """One subject, transformed."""
        inner, back = subject_to_medjax(Subject(subject._items))
        with about(who):
            return back(forked.run(compute, self.held.transform, inner, key), device)


def compute_many(t: mj.Transform, x: mj.Subject, keys: Any, who: Sequence[str]) -> mj.Subject | None:
    """A batch by one program, waited for; None if the shapes of its results depend on values."""
    given = (jax.tree.structure(t), *((n, i.shape, str(i.dtype)) for n, i in x.images.items()))
    if given in UNBATCHED:
        return None
    keys = None if keys is None else as_keys(keys, len(who))
    with about(", ".join(who)):
        checks.check_subject(t, x)
        try:
            result, record = call.compute(t, host.bare(x), keys)
        except UnknownShape:
            UNBATCHED.add(given)
            return None
    return jax.block_until_ready(host.after_batch(t, x, result, record, len(who), who))
