"""What every transform of the bridge has before medjax's own: tensors in, tensors out, and keys from torch."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import jax
import numpy as np
import torch

import medjax as mj
from medjax import keys
from medjax.transforms.compose import Group
from medjax.transforms.program import is_random
from medjax.transforms.transform import register
from torch_bridge import forked, users
from torch_bridge.arguments import BASE, NEAREST, ArgumentError, argument_errors, hydra_config, nearest_known
from torch_bridge.by_image import arguments_of_each, given_by_image, named_arguments
from torch_bridge.history import Composed
from torch_bridge.image import Image
from torch_bridge.lending import to_medjax
from torch_bridge.masks import MaskFunction
from torch_bridge.ranks import own_rank
from torch_bridge.replay import is_invertible, noted
from torch_bridge.steps import TorchStep, has_torch, run, steps_of
from torch_bridge.subject import Items, Subject

MAX_WORD = 1 << 32


def draw_key(generator: torch.Generator | None = None) -> np.ndarray:
    """Two words of 32 bits from a generator, torch's default one if None; starts no backend.

    Each rank of a distributed run has its own.
    """
    drawn = torch.randint(MAX_WORD, (2,), generator=generator, device="cpu")
    words = drawn.numpy().astype(np.uint32)
    words[0] ^= np.uint32(own_rank() * 0x9E3779B9 % MAX_WORD)
    return words


def as_key(key: Any) -> Any:
    """A key from a seed, or the key that is given."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        return np.array([int(key) >> 32 & 0xFFFFFFFF, int(key) & 0xFFFFFFFF], np.uint32)
    return key


def compute(t: mj.Transform, x: Any, key: Any, labels: Any = ()) -> Any:
    """medjax's own call, waited for: what is lent to it may be written to afterwards."""
    return jax.block_until_ready(mj.Transform.__call__(t, x, key, labels=labels))


def compute_batch(t: mj.Transform, x: Any, key: Any, labels: Any = ()) -> Any:
    """The same for a batch."""
    return jax.block_until_ready(mj.Transform.batch(t, x, key, labels=labels))


class Bridge:
    """What a transform of the bridge has before medjax's: tensors in, tensors out.

    `t(x)` takes a Subject, an Image, a tensor or array (C, I, J, K), a dictionary of them, a SimpleITK or a nibabel
    image, and gives the same type back, on the device it came from, never a changed input. Without `key` it draws one
    from torch's default generator, if anything is random; a key is a `jax.random.key`, or an integer as a seed. In a
    forked child the process that it was forked from computes.
    Arguments of an intensity transform that draws nothing may be dictionaries by the name of the image; then it is a
    step in torch, and an image that one of them lacks is an error.
    A subclass of the user's that defines `apply_transform` or `__call__` is a step in torch.
    """

    label_keys: Sequence[str] | None = None
    each: Mapping[str, Any] | None = None
    """The transform of each image, where arguments are given by image."""
    copy = True
    args_names: Sequence[str] = ()

    def __init__(
        self, *args: Any, copy: bool = True, keys: Any = None, parse_input: bool = True, label_keys: Any = None,
        **kwargs: Any,
    ):  # fmt: skip
        del copy, parse_input  # accepted as TorchIO's; nothing is changed in place
        if keys is not None:
            kwargs["include"] = users.renamed_keys(keys, kwargs.get("include"))
        if is_group_class(type(self)) and "transforms" in {f.name for f in fields(cast(Any, self))}:
            args, kwargs = with_members(args, kwargs)
        args, kwargs = tuple(map(as_argument, args)), {name: as_argument(value) for name, value in kwargs.items()}
        if callable(kwargs.get("masking_method")) and not is_own_mask(kwargs["masking_method"]):
            kwargs["masking_method"] = MaskFunction(kwargs["masking_method"])
        for name in ("image_interpolation", "label_interpolation"):
            if kwargs.get(name) in tuple(NEAREST):
                kwargs[name] = nearest_known(name, kwargs[name])
        given = named_arguments(type(self), args, kwargs)
        by_image = given_by_image(type(self), given)
        with argument_errors():
            if by_image:
                each = arguments_of_each(given, by_image)
                args, kwargs = (), {n: v for n, v in given.items() if n in BASE} | next(iter(each.values()))
                object.__setattr__(
                    self, "each", {n: own_class(type(self))(**own, include=(n,)) for n, own in each.items()}
                )
            super().__init__(*args, **kwargs)
        for name, value in by_image.items():
            object.__setattr__(self, name, value)
        if isinstance(self, Group) and isinstance(vars(self).get("transforms"), tuple):
            object.__setattr__(self, "transforms", Members(self.members))
        if label_keys is not None:
            object.__setattr__(self, "label_keys", tuple(label_keys))

    @property
    def looks(self) -> bool:
        """Whether it has a body in torch: of the user's, or one that must see a subject to know what it does."""
        cls: Any = type(self)
        return self.each is not None or cls.apply_transform is not Bridge.apply_transform

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        register(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an argument, checked as when it is built, or an attribute of a subclass of the user's."""
        known = {f.name: f.metadata.get("convert") for f in fields(cast(Any, self))}
        if self.each is not None and name in known and name not in BASE:
            raise ArgumentError(f"{name} was given by image, or beside what was: make a new {type(self).__name__}")
        convert = known.get(name)
        if name == "transforms" and isinstance(self, Group):
            value, convert = Members(as_members(value)), None
        object.__setattr__(self, name, value if convert is None else convert(name, value))

    def __call__(self: Any, x: Any, key: Any = None, *, labels: Any = ()) -> Any:
        if self.looks:
            return users.Transform.__call__(self, x)
        return self.compiled(x, key, labels or self.label_keys or ())

    def compiled(self: Any, x: Any, key: Any = None, labels: Any = ()) -> Any:
        """The call itself, of what is not written in torch; steps in torch between."""
        if has_torch(self):
            subject, back = users.parsed(x, self.include, labels)
            words = np.ravel(keys.words_of(keys.as_key(as_key(key)))) if key is not None else draw_key()
            return back(run(steps_of(self), [subject], [words], one_by_one)[0])
        if not is_known(x):
            subject, back = users.parsed(x, self.include, labels)
            return back(self.compiled(subject, key))
        inner, back = to_medjax(x, labels)
        key = self.key_for(key)
        with argument_errors():
            result = back(forked.run(compute, self, inner, key, labels))
        return noted(result, x, self, key, inner) if isinstance(key, np.ndarray | None) else result

    def apply_transform(self: Any, subject: Any) -> Any:
        """What it does to a subject, whatever p: for a subclass of the user's to call."""
        if self.each is not None:
            return applied_to_each(self.each, subject, self.include, self.exclude)
        made = copy.copy(self)
        object.__setattr__(made, "p", 1.0)
        return made.compiled(subject)

    def batch(self: Any, batch: Any, key: Any = None, *, labels: Any = ()) -> Any:
        """Transform a batch, every element by its own key: (B,) keys, or one that its place is folded into."""
        inner, back = to_medjax(batch, labels)
        return back(forked.run(compute_batch, self, inner, self.key_for(key), labels))

    def key_for(self: Any, key: Any) -> Any:
        """The key that is given, or one that is drawn if it is needed."""
        return draw_key() if key is None and is_random(self) else as_key(key)

    def to_hydra_config(self) -> dict[str, Any]:
        """What Hydra makes the transform of again: `_target_` and its arguments."""
        return hydra_config(self)

    def is_invertible(self: Any) -> bool:
        """Whether `inverse()` gives the way back: nothing is drawn, and no shape changes; of a Compose, of all members.

        What was drawn is undone by `subject.apply_inverse_transform()`.
        """
        if is_group_class(type(self)):
            return not self.chooses and all(member.is_invertible() for member in self.members)
        if self.each is not None:
            return all(t.is_invertible() for t in self.each.values())
        return not is_random(self) and is_invertible(self) and not getattr(self, "reshapes", False)

    def inverse(self: Any, warn: bool = True) -> Any:
        """The transform the other way; of a Compose what can be of its members, the last first, with a warning.

        Raises RuntimeError if there is none.
        """
        if is_group_class(type(self)) and not self.chooses:
            found = [m.inverse() for m in reversed(self.members) if can_invert(m, warn)]
            if warn and not found:
                warnings.warn("No invertible transforms found", RuntimeWarning, stacklevel=2)
            return Composed(found)
        if not self.is_invertible():
            raise RuntimeError(
                f"{self.name} is not invertible; subject.apply_inverse_transform() undoes what was drawn"
            )
        if self.each is not None:
            return Composed([t.inverse() for t in self.each.values()])
        return lambda x: self.invert(x, self.sample(None, x), like=x)

    def sample(self: Any, key: Any, subject: Any) -> Any:
        """All that is drawn for a subject, the coin of p too; reads geometry, never voxels."""
        return forked.run(mj.Transform.sample, self, as_key(key), to_medjax(subject)[0])

    def apply(self: Any, subject: Any, params: Any) -> Any:
        """What a call with these params does, exactly."""
        inner, back = to_medjax(subject)
        return back(forked.run(compute_apply, self, inner, params))

    def invert(self: Any, x: Any, params: Any, *, like: Any, interpolation: str | None = None) -> Any:
        """Take back what a call with these params did, to the grids of `like`; see `medjax.Transform.invert`."""
        inner, back = to_medjax(x)
        return back(forked.run(compute_inverse, self, inner, params, to_medjax(like)[0], interpolation))


def as_argument(value: Any) -> Any:
    """An argument as medjax takes it: images of the bridge are its own."""
    return value.as_medjax() if isinstance(value, Image) else value


def own_class(cls: type) -> Any:
    """The bridge's own class of a transform that may be a subclass of the user's."""
    return next(each for each in cls.__mro__ if Bridge in each.__bases__)


def applied_to_each(each: Mapping[str, Any], subject: Subject, include: Any, exclude: Any) -> Subject:
    """A subject with each scalar image transformed by the transform of its name; raises ArgumentError without one."""
    for name in subject.get_images_dict(True, include, exclude):
        if name not in each:
            raise ArgumentError(
                f"arguments are given for {', '.join(each)}, and not for image {name!r}: add it, or exclude it"
            )
        subject = each[name](subject)
    return subject


def can_invert(t: Any, warn: bool) -> bool:
    """Whether a member is invertible; warns if not."""
    if warn and not t.is_invertible():
        warnings.warn(f"Skipping {t.name} as it is not invertible", RuntimeWarning, stacklevel=3)
    return t.is_invertible()


def is_group_class(cls: type) -> bool:
    """Whether transforms of this class stand for their members."""
    return issubclass(cls, Group)


def with_members(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a group, in which whatever is written in torch is a step in torch."""
    if args:
        return (as_members(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "transforms": as_members(kwargs.get("transforms", ()))}


def as_members(transforms: Any) -> Any:
    """Transforms in a sequence, as values of a dictionary by name, or as keys of one with weights."""
    if isinstance(transforms, Mapping):
        named = all(isinstance(key, str) for key in transforms)
        return {k: as_member(t) for k, t in transforms.items()} if named else {
            as_member(t): weight for t, weight in transforms.items()
        }  # fmt: skip
    is_sequence = isinstance(transforms, Sequence | set | frozenset) or hasattr(transforms, "__iter__")
    return [as_member(t) for t in transforms] if is_sequence and not isinstance(transforms, str) else transforms


class Members(list):
    """The members of a group, in a list that may be changed: what is put in becomes a member."""

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, as_members(value) if isinstance(index, slice) else as_member(value))

    def __iadd__(self, values: Any) -> "Members":
        self.extend(values)
        return self

    def append(self, value: Any) -> None:
        """Put a member at the end."""
        super().append(as_member(value))

    def insert(self, index: Any, value: Any) -> None:
        """Put a member before the one of this number."""
        super().insert(index, as_member(value))

    def extend(self, values: Any) -> None:
        """Put members at the end."""
        super().extend(as_members(values))


jax.tree_util.register_pytree_node(Members, lambda each: (tuple(each), None), lambda _, each: Members(each))


def as_member(t: Any) -> Any:
    """A member: itself, or a step in torch. Raises TypeError for what cannot be called."""
    if not callable(t) or isinstance(t, type):
        raise ArgumentError(f"members of a Compose are transforms or functions of a Subject, got {t!r}")
    compiles = isinstance(t, mj.Transform) and not is_written_in_torch(t)
    return t if compiles else TorchStep(t)


def is_written_in_torch(t: Any) -> bool:
    """Whether a transform of the bridge has a body in torch."""
    return isinstance(t, Bridge) and (t.looks or type(t).__call__ is not Bridge.__call__)


def is_own_mask(function: Any) -> bool:
    """Whether a masking function is medjax's, which traces."""
    return isinstance(function, MaskFunction) or getattr(function, "__module__", "").partition(".")[0] == "medjax"


def is_known(x: Any) -> bool:
    """Whether `to_medjax` takes it."""
    if type(x).__module__.partition(".")[0] in ("SimpleITK", "nibabel"):
        return False
    if not isinstance(x, dict) or isinstance(x, Items | Image):
        return True
    return all(isinstance(value, torch.Tensor | np.ndarray | jax.Array) for value in x.values())


def one_by_one(t: Any, subjects: list[Subject], seeds: list[Any]) -> list[Subject]:
    """A compiled pipeline on several subjects, one after the other."""
    return [compiled_one(t, subject, seed) for subject, seed in zip(subjects, seeds, strict=True)]


def compiled_one(t: mj.Transform, subject: Subject, key: Any) -> Subject:
    """A compiled pipeline on a subject."""
    inner, back = to_medjax(subject)
    key = key if is_random(t) else None
    return noted(back(forked.run(compute, t, inner, key)), subject, t, key, inner)


def compute_apply(t: mj.Transform, x: Any, params: Any) -> Any:
    """medjax's own `apply`, waited for."""
    return jax.block_until_ready(mj.Transform.apply(t, x, params))


def compute_inverse(t: mj.Transform, x: Any, params: Any, like: Any, interpolation: str | None) -> Any:
    """medjax's own `invert`, waited for."""
    return jax.block_until_ready(mj.Transform.invert(t, x, params, like=like, interpolation=interpolation))
