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
from torch_bridge.arguments import argument_errors
from torch_bridge.bridge import as_key, draw_key
from torch_bridge.constants import LOCATION
from torch_bridge.image import Image, LabelMap
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
    with argument_errors():
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

    def crop(self, subject: Subject, index_ini: Any, patch_size: Any) -> Subject:
        """The box of a subject that begins at a voxel (3,), in memory of its own, with its location."""
        first, size = np.array(index_ini, int).ravel(), np.broadcast_to(np.array(patch_size, int), 3)
        if len(first) != 3:
            raise ValueError(f"index_ini must be three whole numbers, got {index_ini!r}")
        patch = subject[tuple(slice(int(a), int(b)) for a, b in zip(first, first + size, strict=True))]
        patch[LOCATION] = torch.from_numpy(np.concatenate([first, first + size]).astype(np.int64))
        return patch

    def extract_patch(self, subject: Subject, index_ini: Any) -> Subject:
        """The patch that begins at a voxel (3,)."""
        return self.crop(subject, index_ini, self.patch_size)


class RandomSampler(PatchSampler):
    """Abstract. One whose patches lie where a key says, each centre in proportion to `get_probability_map`."""

    def __call__(self, subject: Any, num_patches: int | None = None, *, key: Any = None) -> Any:
        if type(self) is RandomSampler:
            raise NotImplementedError("RandomSampler is abstract: take UniformSampler, WeightedSampler or LabelSampler")
        return super().__call__(subject, num_patches, key=key)

    def get_probability_map(self, subject: Subject) -> torch.Tensor:
        """How likely each voxel is to be a centre, up to a factor, (1, I, J, K) float32."""
        raise NotImplementedError(f"{type(self).__name__} must define get_probability_map")

    def inside(self, shape: Any) -> torch.Tensor:
        """The voxels that a patch can be centred on, in a mask (1, I, J, K)."""
        mask, size = torch.zeros((1, *shape), dtype=torch.bool), np.array(self.patch_size)
        low, high = size // 2, np.array(shape) - (size - size // 2 - 1)
        mask[:, *(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] = True
        return mask


class UniformSampler(RandomSampler, mj.UniformSampler):
    """Patches anywhere, each place that fits equally likely, those at the border included. See `PatchSampler`."""

    def get_probability_map(self, subject: Subject) -> torch.Tensor:
        """One everywhere."""
        return torch.ones(1, *subject.spatial_shape)


class WeightedSampler(RandomSampler, mj.WeightedSampler):
    """Patches whose centres are drawn in proportion to an image; see `PatchSampler` and `medjax.WeightedSampler`.

    probability_map: name of the image; what is 0 there is never a centre.
    """

    def get_probability_map(self, subject: Subject) -> torch.Tensor:
        """The image, at the border too, where no patch is centred."""
        return subject.get_image(self.probability_map).data[:1].float()


class LabelSampler(RandomSampler, mj.LabelSampler):
    """Patches whose centres are voxels of a label map; see `PatchSampler` and `medjax.LabelSampler`.

    label_name: the label map; None for the first.  label_probabilities: {label: weight}; None for any that is not 0.
    """

    def get_probability_map(self, subject: Subject) -> torch.Tensor:
        """The weight of each label spread over its voxels on which a patch can be centred; 1 for any label."""
        image = next(i for n, i in subject.items() if isinstance(i, LabelMap) and self.label_name in (None, n))
        inside, weights = self.inside(image.spatial_shape), self.label_probabilities
        if weights is None:
            return (image.data > 0).any(0, keepdim=True).float()
        total, found = sum(weight for _, weight in weights), torch.zeros(1, *image.spatial_shape)
        for label, weight in weights:
            if len(image.data) > 1:
                own = (image.data[label : label + 1] * inside).float()
            else:
                own = ((image.data == label) & inside).float()
            if own.any():
                found += weight / total * own / own.sum()
        return found
