"""Records of calls: a transform, its key and the grids it was given, from which all that was drawn follows again."""

import uuid
import warnings
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import medjax as mj
from medjax.keys import words_of
from medjax.transforms.program import flatten, flatten_params, is_random
from torch_bridge import forked
from torch_bridge.lending import to_medjax
from torch_bridge.subject import Subject
from torch_bridge.voxels import outline

ON = {"on": np.bool_(True), "draw": {}}
"""The params of a Compose, but for its members."""


class Outline(NamedTuple):
    """The grid of an image, or the grids of those of a batch, without a voxel."""

    name: str
    kind: type[mj.Image]
    shape: tuple[int, ...]
    affine: np.ndarray


class Record(NamedTuple):
    """A compiled call: the transform, its key as words (None if nothing is random), and the grids it was given.

    element: which one of a batch it is; None for a subject of its own.
    """

    transform: mj.Transform
    key: Any
    grids: tuple[Outline, ...]
    element: int | None = None

    @property
    def like(self) -> mj.Subject:
        """What it was given, but for the voxels, which an outline without memory stands for."""
        affines = [g.affine if self.element is None else g.affine[self.element] for g in self.grids]
        pairs = zip(self.grids, affines, strict=True)
        return mj.Subject({g.name: g.kind.of(outline(g.shape), affine) for g, affine in pairs})

    def steps(self) -> Iterator[tuple[mj.Transform, Any]]:
        """The transforms that were on, with what was drawn for each; drawn again."""
        params = forked.run(sampled, self.transform, self.key, self.like)
        for step, turn in zip(flatten(self.transform), flatten_params(self.transform, params), strict=True):
            if bool(turn.on):
                yield step.transform, {"on": turn.on, "draw": turn.draw}

    def applied(self, ignore_intensity: bool, image_interpolation: str | None) -> list["Applied"]:
        """The steps, as transforms that do the same again."""
        del image_interpolation  # of the way back alone
        return [
            Applied(t, p) for t, p in self.steps() if not (ignore_intensity and isinstance(t, mj.IntensityTransform))
        ]

    def inverse(self, warn: bool, ignore_intensity: bool, image_interpolation: str | None) -> "Undo | None":
        """What takes the steps back that can be, by one reading for each run of them; None if there are none.

        Raises RuntimeError for a step in space that placed itself by voxels, which a record does not keep.
        """
        taken = []
        for t, params in self.steps():
            if isinstance(t, mj.SpatialTransform) and t.locates:
                raise RuntimeError(
                    f"{name_of(t)} placed itself by voxels, which the history does not keep: undo it by "
                    "transform.invert(x, params, like=original)"
                )
            if ignore_intensity and isinstance(t, mj.IntensityTransform):
                continue
            if is_invertible(t):
                taken.append((t, params))
            elif warn:
                warnings.warn(f"Skipping {name_of(t)} as it is not invertible", RuntimeWarning, stacklevel=4)
        return Undo(taken, self.like, image_interpolation) if taken else None


class StepRecord(NamedTuple):
    """A call of a transform in torch. It is known by a token, and never pickled: it may be of a local class."""

    token: str
    name: str

    @property
    def transform(self) -> Any:
        """The transform; raises RuntimeError in a process that does not have it."""
        found = KNOWN.get(self.token)
        if found is None:
            raise RuntimeError(f"{self.name} was applied in another process, or is gone: its history ends here")
        return found

    def applied(self, ignore_intensity: bool, image_interpolation: str | None) -> list[Any]:
        """The transform itself."""
        del image_interpolation
        return [] if ignore_intensity and getattr(self.transform, "of_intensity", False) else [self.transform]

    def inverse(self, warn: bool, ignore_intensity: bool, image_interpolation: str | None) -> Any:
        """The transform's own inverse, or None."""
        if not self.applied(ignore_intensity, image_interpolation):
            return None
        if self.transform.is_invertible():
            return self.transform.inverse()
        if warn:
            warnings.warn(f"Skipping {self.name} as it is not invertible", RuntimeWarning, stacklevel=4)
        return None


KNOWN: "weakref.WeakValueDictionary[str, Any]" = weakref.WeakValueDictionary()


def token_for(transform: Any) -> str:
    """A token under which records find a transform of the user's."""
    token = uuid.uuid4().hex
    KNOWN[token] = transform
    return token


class Applied:
    """A step that was applied, with what was drawn: called, it does the same again."""

    def __init__(self, transform: mj.Transform, params: Any):
        self.transform, self.params = transform, params

    @property
    def name(self) -> str:
        """The name of the deterministic transform."""
        return name_of(self.transform)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("transform", "params"):
            raise AttributeError(name)
        drawn = self.params["draw"]
        return drawn[name] if name in drawn else getattr(self.transform, name)

    def __call__(self, x: Any) -> Any:
        inner, back = to_medjax(x)
        params = {**ON, "members": (self.params,)}
        return back(forked.run(again, mj.Compose([self.transform]), inner, params))

    def is_invertible(self) -> bool:
        """Whether the way back takes it back."""
        return is_invertible(self.transform)

    def __repr__(self) -> str:
        return f"{self.name}({jax.tree.map(shown, self.params['draw'])})"


def shown(drawn: Any) -> np.ndarray:
    """What was drawn, for a text: the words of a key, numbers as they are."""
    return np.asarray(words_of(drawn) if jnp.issubdtype(drawn.dtype, jax.dtypes.prng_key) else drawn)


class Undo:
    """Takes steps back, to the grids that they were given."""

    def __init__(self, steps: list[tuple[mj.Transform, Any]], like: mj.Subject, interpolation: str | None):
        self.steps, self.like, self.interpolation = steps, like, interpolation

    def __call__(self, x: Any) -> Any:
        inner, back = to_medjax(x)
        params = {**ON, "members": tuple(params for _, params in self.steps)}
        t = mj.Compose([t for t, _ in self.steps])
        return back(forked.run(undone, t, inner, params, self.like, self.interpolation))

    def __repr__(self) -> str:
        return f"Undo({', '.join(name_of(t) for t, _ in reversed(self.steps))})"


def name_of(t: mj.Transform) -> str:
    """The name of a transform once it is drawn."""
    return type(t).__name__.removeprefix("Random") or type(t).__name__


def is_invertible(t: Any) -> bool:
    """Whether a step can be undone from what was drawn, without the voxels that it was given.

    OneHot measures them to refuse labels, and needs nothing of it on the way back.
    """
    return (
        not t.locates
        if isinstance(t, mj.SpatialTransform)
        else bool(getattr(t, "invertible", False) and (not t.measures or isinstance(t, mj.OneHot)))
    )


def sampled(t: mj.Transform, key: Any, like: mj.Subject) -> Any:
    """What was drawn, on the host."""
    return jax.device_get(mj.Transform.sample(t, key, like))


def again(t: mj.Transform, x: Any, params: Any) -> Any:
    """medjax's own `apply`, waited for."""
    return jax.block_until_ready(mj.Transform.apply(t, x, params))


def undone(t: mj.Transform, x: Any, params: Any, like: Any, interpolation: str | None) -> Any:
    """medjax's own `invert`, waited for."""
    return jax.block_until_ready(mj.Transform.invert(t, x, params, like=like, interpolation=interpolation))


def grids(subject: mj.Subject) -> tuple[Outline, ...]:
    """The grids of a subject, or of a batch, whose elements share them."""
    images = subject.images.items()
    return tuple(Outline(n, type(i), i.shape[-4:], np.array(i.affine, np.float64)) for n, i in images)


def noted(result: Any, before: Any, t: mj.Transform, key: Any, inner: Any) -> Any:
    """A result, with the record of what made it of a subject behind those that the subject had."""
    if isinstance(result, Subject):
        words = np.asarray(key) if is_random(t) else None
        records = before.__dict__.get("_history", []) if isinstance(before, Subject) else []
        result.__dict__["_history"] = [*records, Record(t, words, grids(inner))]
    return result
