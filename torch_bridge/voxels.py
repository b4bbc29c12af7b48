"""What an image is given for voxels and affine, checked; and the outline that stands where a tensor holds them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch

from medjax import geometry
from medjax.io import native
from torch_bridge.constants import AFFINE, DATA, PATH, STEM, TYPE
from torch_bridge.dlpack import to_torch

NOTHING = np.zeros((), np.uint8)


def outline(shape: Sequence[int]) -> np.ndarray:
    """An array of this shape that takes no memory: it stands where a tensor holds the voxels."""
    return np.broadcast_to(NOTHING, tuple(shape))


def as_tensor(x: Any) -> torch.Tensor:
    """Voxels that were given as a tensor; raises TypeError for what holds none, ValueError for what is not real."""
    if not isinstance(x, torch.Tensor):
        if not isinstance(x, np.ndarray | jax.Array):
            raise TypeError(f"tensor must be a tensor or an array, got {type(x).__name__}")
        of_jax = isinstance(x, jax.Array)  # never shared: nobody may write to it
        x = to_torch(x if of_jax else native(np.asarray(x), "tensor"), copy=of_jax)
    if x.is_complex() or x.is_quantized or x.layout != torch.strided:
        raise ValueError(f"tensor must hold real numbers, densely, got {x.dtype} ({x.layout})")
    return x.to(torch.uint8) if x.dtype == torch.bool else x


def checked_affine(affine: Any) -> np.ndarray:
    """An affine of one image, (4, 4) float64, in memory of its own."""
    affine = affine.detach().cpu().numpy() if isinstance(affine, torch.Tensor) else affine
    return geometry.check_affine(np.array(affine, np.float64))


def cut(image: Any, index: Any) -> Any:
    """The box of an image that numbers and slices of its voxel axes say, where it lies in the world."""
    where, start = [slice(None)], np.zeros(3)
    index = index if isinstance(index, tuple) else (index,)
    if len(index) > 3:
        raise IndexError(f"an image has three axes of voxels, got {len(index)} indices")
    for axis, each in enumerate(index):
        if each is Ellipsis:
            raise NotImplementedError("an image is indexed by numbers and slices, got an Ellipsis")
        if not isinstance(each, slice | int):
            raise TypeError(f"an image is indexed by numbers and slices, got {each!r}")
        n = image.spatial_shape[axis]
        each = each if isinstance(each, slice) else slice(each % n, each % n + 1)
        begin, end, step = each.indices(n)
        if step != 1:
            raise ValueError(f"slices of images have a step of 1, got {step}: Resample changes the spacing")
        if begin >= end:
            raise ValueError(f"the slice {each} leaves none of {n} voxels")
        where.append(slice(begin, end))
        start[axis] = begin
    shift = np.eye(4)
    shift[:3, 3] = start
    return image.like(image.data[tuple(where)].clone(memory_format=torch.contiguous_format), image.affine @ shift)


def are_items(x: Any) -> bool:
    """Whether these are the items of an image, a mapping or pairs: libraries that map over dictionaries give them."""
    pairs = tuple(x.items()) if isinstance(x, Mapping) else x
    return isinstance(pairs, tuple) and len(pairs) > 1 and isinstance(pairs[0], tuple) and pairs[0][0] == DATA


def of_items(cls: Any, items: Any) -> Any:
    """The image of a class that holds these items, one or a batch; warns of an affine that was rounded."""
    items = dict(items)
    tensor, affine, path = items.pop(DATA), items.pop(AFFINE), items.pop(PATH)
    if affine.dtype not in (torch.float32, torch.float64):
        warnings.warn(
            f"affines were rounded to {affine.dtype}, as Lightning's 'true' precisions do with whatever is in a batch: "
            "take 'bf16-mixed', or augment and save by affines that were kept aside",
            stacklevel=4,
        )
    named = {name: value for name, value in items.items() if name not in (STEM, TYPE)}
    if tensor.ndim == 4:
        return cls.of(tensor, affine.cpu().double().numpy(), named={**named, PATH: path or None})
    named = {**{name: list(value) for name, value in named.items()}, PATH: [each or None for each in path]}
    return cls.of(tensor, affine.cpu().double().numpy(), ({},) * len(tensor), named=named)
