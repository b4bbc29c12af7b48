"""A data set divided at random, so that what belongs together stays together and later subjects move little."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from medjax import keys
from medjax.arguments import entries
from medjax.errors import near, shown
from medjax.subject import Subject
from medjax.typing import Key

SLACK = 1e-6
"""By how much fractions may miss 1."""


uniform = jax.jit(jax.vmap(jax.random.uniform))


def divided(subjects: Sequence[Subject], fractions: Sequence[float], by: str | None, key: Key) -> list[list[int]]:
    """The indices of each part; see `SubjectsDataset.split`."""
    sizes = np.asarray(entries(fractions) or (), np.float64)
    if sizes.ndim != 1 or not len(sizes) or not np.all(sizes > 0) or abs(sizes.sum() - 1) > SLACK:
        raise ValueError(f"fractions must be positive numbers that add up to 1, as (0.8, 0.2), got {shown(fractions)}")
    groups: dict[Any, list[int]] = {}
    for index, subject in enumerate(subjects):
        groups.setdefault(index if by is None else value_of(subject, by, index), []).append(index)
    numbers = drawn(key, [str(group) for group in groups])
    order = [group for _, group in sorted(zip(numbers, groups.values(), strict=True))]
    ends, parts, before = np.cumsum(sizes), [[] for _ in sizes], 0
    for group in order:
        middle = (before + len(group) / 2) / len(subjects)  # a group lies where its middle does
        parts[min(int(np.searchsorted(ends, middle)), len(parts) - 1)] += group
        before += len(group)
    if not all(parts):
        what = "subjects" if by is None else f"different {by}"
        raise ValueError(f"fractions={shown(fractions)} leave a part empty: there are {len(groups)} {what}")
    return [sorted(part) for part in parts]


def value_of(subject: Subject, by: str, index: int) -> Any:
    """What a subject shares with others that stay with it."""
    if by not in subject.metadata:
        known = list(subject.metadata)
        raise ValueError(f"by={by!r}: subject {index} has no such metadata; it has {known}.{near(by, known)}")
    return subject.metadata[by]


def drawn(key: Key, names: Sequence[str]) -> list[tuple[float, str]]:
    """A number for each name, of its own, whatever other names there are; the name decides between equal ones."""
    numbers = uniform(keys.for_names(keys.for_name(keys.as_key(key), "split"), names))
    return list(zip(np.asarray(numbers).tolist(), names, strict=True))
