"""Steps in torch among compiled ones: transforms and functions of the user's as members of a pipeline.

A pipeline with such members is a list of steps: its compiled members, those between two steps in torch together, run on
a whole batch at once; a step in torch on one subject after the other. What a step draws from torch, NumPy and `random`
is seeded by the element's key and the step's place, and the generators are left as they were. So the same is drawn with
any number of workers. Leading steps run in the worker, unless they draw: the key is drawn by who looks.
"""

import random
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

import medjax as mj
from medjax.transforms.program import flatten, is_certain, is_group
from medjax.transforms.transform import abstract, register, static
from torch_bridge.subject import Subject

Words = np.ndarray
"""Two words of 32 bits: a seed."""


@abstract
class TorchStep(mj.Transform):
    """A callable of the user's as a member of a Compose: it gets a Subject and gives one."""

    function: Any = static(default=None)

    random = True

    def __repr__(self) -> str:
        return f"{self.function!r}  in torch"

    @property
    def name(self) -> str:
        """The name of what is called."""
        return getattr(self.function, "name", type(self.function).__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "function":
            raise AttributeError(name)
        return getattr(self.function, name)

    def is_invertible(self) -> bool:
        """Whether what is called says that it has an inverse."""
        return hasattr(self.function, "is_invertible") and self.function.is_invertible()

    def __call__(self, x: Any, key: Any = None, *, labels: Any = ()) -> Any:
        """What the callable makes of a subject."""
        del key, labels
        result = self.function(x)
        if not isinstance(result, Subject):
            raise TypeError(f"{self.function!r} must return a Subject, got {type(result).__name__}")
        return result


register(TorchStep)


class Nest(NamedTuple):
    """A group with steps in torch: for each element all of its branches, or those that are chosen."""

    group: Any
    branches: tuple[tuple[Any, ...], ...]

    def chosen(self, rng: np.random.Generator) -> Sequence[int]:
        """The numbers of the branches that an element goes through, in order."""
        t, count = self.group, len(self.branches)
        if rng.random() >= float(t.p):
            return ()
        if isinstance(t, mj.OneOf):
            weights = np.asarray(t.weights, np.float64)
            return (int(rng.choice(count, p=weights / weights.sum())),)
        if isinstance(t, mj.SomeOf):
            low, high = (int(n) for n in t.num)
            return sorted(rng.permutation(count)[: rng.integers(low, high + 1)].tolist())
        if t.chooses:
            raise TypeError(f"{type(t).__name__} takes no steps in torch: put them into a Compose around it")
        return range(count)


def has_torch(t: Any) -> bool:
    """Whether a pipeline has steps in torch."""
    return isinstance(t, TorchStep) or (is_group(t) and any(map(has_torch, t.members)))


PLANS: "weakref.WeakKeyDictionary[Any, tuple[list[Any], tuple[Any, ...]]]" = weakref.WeakKeyDictionary()


def steps_of(t: Any) -> tuple[Any, ...]:
    """The steps of a pipeline with steps in torch, the same ones for its members: compiled programs are found again."""
    members = [step.transform for step in flatten(t)]
    if t not in PLANS or PLANS[t][0] != members:
        PLANS[t] = members, planned(t)
    return PLANS[t][1]


def planned(t: Any) -> tuple[Any, ...]:
    """Compiled pipelines, steps in torch and nests of them, in order."""
    if not has_torch(t) or isinstance(t, TorchStep):
        return (t,)
    if t.chooses:
        return (Nest(t, tuple(planned(member) for member in t.members)),)
    found: list[Any] = []
    for step in [step for member in t.members for step in planned(member)]:
        if compiled(step) and found and compiled(found[-1]):
            found[-1] = mj.Compose([found[-1], step])
        else:
            found.append(step)
    return tuple(found) if is_certain(t.p) else (Nest(t, (tuple(found),)),)


def compiled(step: Any) -> bool:
    """Whether a step runs in JAX."""
    return not isinstance(step, Nest | TorchStep)


Many = Callable[[Any, list[Subject], list[Words]], list[Subject]]
"""What runs a compiled pipeline on several subjects, each by its own key."""


def run(steps: Sequence[Any], subjects: list[Subject], seeds: list[Words], many: Many, start: int = 0) -> list[Subject]:
    """The steps from number `start` on, on several subjects, each with its seed."""
    for number in range(start, len(steps)):
        step, own = steps[number], [child(seed, number) for seed in seeds]
        if isinstance(step, Nest):
            subjects = run_nest(step, subjects, own, many)
        elif isinstance(step, TorchStep):
            subjects = [seeded(step, subject, seed) for subject, seed in zip(subjects, own, strict=True)]
        else:
            subjects = many(step, subjects, own)
    return subjects


def run_nest(nest: Nest, subjects: list[Subject], seeds: list[Words], many: Many) -> list[Subject]:
    """A nest: each branch on those elements together for which it is chosen."""
    chosen = [nest.chosen(np.random.default_rng(seed)) for seed in seeds]
    subjects = list(subjects)
    for number, branch in enumerate(nest.branches):
        on = [i for i, numbers in enumerate(chosen) if number in numbers]
        if on:
            done = run(branch, [subjects[i] for i in on], [child(seeds[i], number) for i in on], many)
            for i, subject in zip(on, done, strict=True):
                subjects[i] = subject
    return subjects


def child(seed: Words, number: int) -> Words:
    """The seed of step `number`."""
    return np.random.SeedSequence([*(int(word) for word in seed), number]).generate_state(2)


def seeded(step: TorchStep, subject: Subject, seed: Words) -> Subject:
    """What a step makes of a subject, with all generators seeded for it, and left as they were."""
    with generators_kept():
        seed_all(seed)
        return step(subject)


def seed_all(seed: Words) -> None:
    """Seed torch's default generator, NumPy's legacy one and Python's."""
    value = int(seed[0]) << 31 ^ int(seed[1])
    torch.default_generator.manual_seed(value)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(value)


def states() -> tuple[Any, ...]:
    """Where the generators stand."""
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def moved(before: tuple[Any, ...]) -> bool:
    """Whether anything was drawn since."""
    torchs, numpys, pythons = states()
    same = torch.equal(torchs, before[0]) and pythons == before[2] and numpys[2:] == before[1][2:]
    return not (same and np.array_equal(numpys[1], before[1][1]))


ONE = threading.RLock()


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the generators as they were; by one thread at a time."""
    with ONE:
        torchs, numpys, pythons = states()
        try:
            yield
        finally:
            torch.set_rng_state(torchs)
            np.random.set_state(numpys)  # noqa: NPY002
            random.setstate(pythons)


DRAW: "weakref.WeakSet[TorchStep]" = weakref.WeakSet()
"""Steps that were seen to draw in this process."""


def begun(t: Any, subject: Subject) -> tuple[Subject, int]:
    """A subject after the leading steps in torch that draw nothing, and how many they are."""
    for number, step in enumerate(steps_of(t)):
        if not isinstance(step, TorchStep) or step in DRAW:
            return subject, number
        with generators_kept():
            before = states()
            result = step(subject.owned())
            if moved(before):
                DRAW.add(step)
                return subject, number
        subject = result
    return subject, len(steps_of(t))
