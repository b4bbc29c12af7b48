"""An image made of a label map: each class its own Gaussian intensities."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys, ranges
from medjax.arguments import as_floats, check, entries, flag, label_values, maybe, seed_value, text, traced, vector
from medjax.errors import shown
from medjax.geometry import Grid
from medjax.image import Image, LabelMap
from medjax.ops import noise
from medjax.ops.statistics import within
from medjax.ranges import Range, ascending, leaf, number, uniform
from medjax.subject import Subject
from medjax.transforms.transform import IntensityTransform, abstract, certain, static, transform
from medjax.typing import Key, Params


def ends_of(name: str, value: Any) -> Any:
    """A range (2,) for each label, (N, 2), from a sequence of numbers or of pairs."""
    found = entries(value)
    if found is None:
        raise TypeError(f"{name} must be a sequence of numbers or of pairs, one for each label, got {shown(value)}")
    ends = [as_floats(name, each) for each in found]
    if any(each.shape not in ((), (2,)) for each in ends):
        raise ValueError(f"{name} must hold a number or a pair for each label, got {shown(value)}")
    array = np.array([np.broadcast_to(each, 2) for each in ends], np.float32).reshape(-1, 2)
    check(name, array)
    return ascending(name, array)


LARGEST = 65535
"""The largest label that a table of all labels is made for."""


def painted(image: Image, params: Params, labels: Sequence[int]) -> Image:
    """The image of a label map of one channel, each voxel by its label, or of one channel for each label, by shares."""
    data, shape = image.data, image.spatial_shape
    mean, std = (jnp.asarray(params[name]).astype(data.dtype) for name in ("mean", "std"))
    offset = image.origin_in_whole
    if data.shape[0] == 1:
        table = np.full(max(labels) + 2, len(labels), np.int32)  # labels beyond the table, and others, are painted 0
        table[list(labels)] = np.arange(len(labels))
        known = jnp.where(data < 0, len(table) - 1, jnp.minimum(data, len(table) - 1)).astype(jnp.int32)
        at = jnp.asarray(table)[known]
        mean, std = (jnp.append(values, jnp.zeros((), data.dtype))[at] for values in (mean, std))
        value = mean + std * noise.normal(params["key"], data.shape, offset=offset, dtype=data.dtype)
    else:
        field = noise.normal(params["key"], (len(labels), *shape), offset=offset, dtype=data.dtype)
        value = mean[:, None, None, None] + std[:, None, None, None] * field
        value = (data[np.asarray(labels)] * value).sum(0, keepdims=True)
    return image.replace(data=within(value, image.real, 0))


@abstract
class PaintedLabels(IntensityTransform):
    """Abstract. Makes the image `image_key` of the label map `label_key`."""

    label_key: str = static(default="label", convert=text)
    p: float = static(default=1.0, convert=certain, kw_only=True)

    image_key = ""  # fields of both, in their places among the others: not annotated here
    used_labels = (1,)
    synthesises = True

    def __post_init__(self):
        object.__setattr__(self, "include", (text("image_key", self.image_key),))
        super().__post_init__()

    @property
    def copies(self) -> tuple[tuple[str, str], ...]:
        """The label map, under the name of the image that is made of it."""
        return ((self.label_key, self.image_key),)

    def channels(self, count: int) -> int:
        return 1

    def check_subject(self, subject: Subject) -> None:
        name, labels, image = self.label_key, self.used_labels, subject.images.get(self.label_key)
        if min(labels) < 0 or max(labels) > LARGEST:
            raise ValueError(f"used_labels must be from 0 to {LARGEST}, got {list(labels)}")
        if not isinstance(image, LabelMap):
            maps = [n for n, i in subject.images.items() if i.is_label]
            raise ValueError(f"label_key={name!r} is no label map of the subject, which has {maps}")
        if image.shape[-4] > 1 and max(labels) >= image.shape[-4]:
            raise ValueError(f"used_labels={list(labels)} exceed the {image.shape[-4]} channels of {name!r}")


@transform
class LabelsToImage(PaintedLabels):
    """Make a scalar image of a label map: voxels of a label are mean + std n, n standard normal; others are 0.

    label_key: name of the label map; one channel of labels, or one channel for each label (partial volumes, whose
    shares weight the classes' intensities).
    used_labels: the labels that are painted (for partial volumes: channels).
    mean, std: one number for each of used_labels, std >= 0.
    image_key: name of the new image.
    seed: of the noise.

    p must be 1.  The subject gets a ScalarImage (1, I, J, K), float32, on the grid of the label map, which is left as
    it is.  Raises ValueError for means and stds that are not one for each label, and a label_key that is no label map.
    Source: TorchIO 1.2.1, where noise has no seed and the label map is overwritten.
    """

    mean: Any = leaf(default=(0.5,), convert=vector())
    std: Any = leaf(default=(0.0,), convert=vector())
    image_key: str = static(default="image_from_labels", convert=text)
    used_labels: Sequence[int] = static(default=(1,), convert=label_values)
    seed: int = static(default=0, convert=seed_value)

    def __post_init__(self):
        super().__post_init__()
        for name in ("mean", "std"):
            if getattr(self, name).shape != (len(self.used_labels),):
                raise ValueError(f"{name} must hold one number for each of used_labels={self.used_labels}")
        check("std", self.std, low=0.0)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"mean": jnp.asarray(self.mean), "std": jnp.asarray(self.std), "key": keys.of_seed(self.seed)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return painted(image, params, self.used_labels)


@transform
class RandomLabelsToImage(PaintedLabels):
    """`LabelsToImage` with a random mean and std for each label and subject.

    mean, std: for each of used_labels a number, or a pair drawn uniformly; None draws all uniformly from default_mean
    and default_std (a number x is that number).
    ignore_background: leave label 0 out.
    The rest as in `LabelsToImage`.

    classes: a whole number for each of used_labels; labels of one class, as left and right, share what is drawn, from
    the ranges of the first of them.
    p_black, p_dark: probabilities that label 0, with the labels of its class, is all 0, or is drawn from dark_mean and
    dark_std instead; at most 1 together.
    """

    used_labels: Sequence[int] = static(default=(1,), convert=label_values)
    image_key: str = static(default="image_from_labels", convert=text)
    mean: Any = leaf(default=None, convert=maybe(ends_of))
    std: Any = leaf(default=None, convert=maybe(ends_of))
    default_mean: Range = uniform(default=(0.1, 0.9))
    default_std: Range = uniform(default=(0.01, 0.1), low=0.0)
    ignore_background: bool = static(default=False, convert=flag)
    classes: Sequence[int] | None = static(default=None, convert=maybe(label_values), kw_only=True)
    p_black: float = number(default=0.0, low=0.0, high=1.0, kw_only=True)
    p_dark: float = number(default=0.0, low=0.0, high=1.0, kw_only=True)
    dark_mean: Range = uniform(default=(0.0, 15.0), kw_only=True)
    dark_std: Range = uniform(default=(0.0, 5.0), low=0.0, kw_only=True)

    random = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and value.shape != (len(self.used_labels), 2):
                raise ValueError(f"{name} must hold one number or pair for each of used_labels={self.used_labels}")
        if self.std is not None:
            check("std", self.std, low=0.0)
        if self.classes is not None and len(self.classes) != len(self.used_labels):
            raise ValueError(f"classes must hold one number for each of used_labels={self.used_labels}")
        if not traced(self.p_black) and not traced(self.p_dark) and self.p_black + self.p_dark > 1:
            raise ValueError(f"p_black + p_dark must be at most 1, got {self.p_black:g} + {self.p_dark:g}")

    def draw(self, key: Key, grid: Grid) -> Params:
        count = len(self.used_labels)
        of = np.arange(count) if self.classes is None else np.asarray(self.classes)
        _, first, member = np.unique(of, return_index=True, return_inverse=True)
        background = member == member[self.used_labels.index(0)] if 0 in self.used_labels else np.zeros(count, bool)
        p_black, p_dark = jnp.asarray(self.p_black), jnp.asarray(self.p_dark)
        unit = random.uniform(keys.for_name(key, "background"), (), p_black.dtype)
        black, dark = unit < p_black, (unit >= p_black) & (unit < p_black + p_dark)
        drawn = {}
        for name, given, default, low in (
            ("mean", self.mean, self.default_mean, self.dark_mean),
            ("std", self.std, self.default_std, self.dark_std),
        ):
            inner = keys.for_name(key, name)
            one = ranges.draw(inner, default, (len(first),)) if given is None else ranges.draw(inner, given[first])
            values = one[member]
            values = jnp.where(background & dark, ranges.draw(keys.for_name(key, f"dark_{name}"), low), values)
            drawn[name] = jnp.where(background & black, 0, values)
        return {**drawn, "key": keys.for_name(key, "noise")}

    def apply_to(self, image: Image, params: Params) -> Image:
        kept = [i for i, label in enumerate(self.used_labels) if label != 0 or not self.ignore_background]
        chosen = {**params, "mean": params["mean"][np.asarray(kept)], "std": params["std"][np.asarray(kept)]}
        return painted(image, chosen, [self.used_labels[i] for i in kept])
