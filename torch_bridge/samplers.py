"""Random patches of subjects."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import jax
import numpy as np
import torch

import medjax as mj
from medjax import keys
from medjax.patches.samplers import Sampler as MedjaxSampler
from torch_bridge import forked
from torch_bridge.bridge import as_key, draw_key
from torch_bridge.constants import LOCATION
from torch_bridge.image import Image
from torch_bridge.lending import subject_to_medjax
from torch_bridge.store import blank
from torch_bridge.subject import Subject, own


def compute_patches(sampler: MedjaxSampler, x: mj.Subject, key: Any, first: int, count: int) -> mj.Subject:
    """A batch of patches, each by the key and its number, waited for."""
    key = keys.for_name(keys.as_key(key), "patch")
    many = jax.numpy.stack([keys.for_step(key, number) for number in range(first, first + count)])
    return jax.block_until_ready(MedjaxSampler.batch(sampler, x, many, count))


def patches(sampler: Any, subject: Subject, key: Any, first: int, count: int, device: Any = None) -> list[Subject]:
    """Patches number `first` on of a subject by a key, each in memory of its own, with its location."""
    inner, back = subject_to_medjax(subject)
    result = forked.run(compute_patches, sampler, inner, key, first, count)
    locations = torch.from_numpy(np.array(result[LOCATION], np.int64))
    images = result.images
    batch = back(mj.Subject(images), device)
    made = []
    for i in range(count):
        items: dict[str, Any] = {}
        for name, item in subject.items():
            if isinstance(item, Image):
                several = batch[name]
                items[name] = item.like(several.data[i].clone(), several.affine[i])
            else:
                items[name] = own(item)
        items[LOCATION] = locations[i].clone()
        made.append(subject._with(items))
    return made


class Endless(Subject):
    """A patch that a sampler gave; `next` and `for` give it, and more of its subject, without end."""

    _more: Iterator[Subject]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Subject:
        return next(self._more)

    def _with(self, items: dict[str, Any]) -> Any:
        made = blank(Subject)
        made.__dict__.update({**self.__dict__, "_items": items, "_pending": None, "_more": None})
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_more": None}


def endless(sampler: Any, subject: Subject, key: Any, at_once: int = 8) -> Endless:
    """The first patch of a subject by a key, from which the others follow."""
    first = patches(sampler, subject, key, 0, 1)[0]

    def more() -> Iterator[Subject]:
        yield Subject(first._items)
        for number in count(1, at_once):
            yield from patches(sampler, subject, key, number, at_once)

    made = blank(Endless)
    made.__dict__.update({**first.__dict__, "_items": dict(first._items), "_more": more()})
    return made


class PatchSampler(MedjaxSampler):
    """Abstract. `sampler(subject)` is a patch, `sampler(subject, n)` an iterator over n of them.

    `next(sampler(subject))` is a patch too, and `for patch in sampler(subject)` has no end, as in TorchIO. A patch is a
    Subject; `patch[tio.LOCATION]`, (6,) int64, holds its first voxel and the one after its last. Without `key` it draws
    one from torch's default generator; a key is a `jax.random.key`, or an integer as a seed.
    """

    def __call__(self, subject: Any, num_patches: int | None = None, *, key: Any = None) -> Any:
        key = draw_key() if key is None else as_key(key)
        if num_patches is None:
            return endless(self, subject, key)
        return iter(patches(self, subject, key, 0, num_patches))


class RandomSampler(PatchSampler):
    """Abstract. One whose patches lie where a key says."""


class UniformSampler(RandomSampler, mj.UniformSampler):
    """Patches anywhere, each place that fits equally likely, those at the border included. See `PatchSampler`."""


class WeightedSampler(RandomSampler, mj.WeightedSampler):
    """Patches whose centres are drawn in proportion to an image; see `PatchSampler` and `medjax.WeightedSampler`.

    probability_map: name of the image; what is 0 there is never a centre.
    """


class LabelSampler(RandomSampler, mj.LabelSampler):
    """Patches whose centres are voxels of a label map; see `PatchSampler` and `medjax.LabelSampler`.

    label_name: the label map; None for the first.  label_probabilities: {label: weight}; None for any that is not 0.
    """
