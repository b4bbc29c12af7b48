"""Which voxels the statistics of a normalisation are taken from."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from medjax.arguments import six, stated
from medjax.errors import near
from medjax.geometry import world_axes
from medjax.image import Image, LabelMap
from medjax.ops import statistics, warp
from medjax.subject import Subject

Masking: TypeAlias = str | Callable[[Any], Any] | tuple[int, ...] | None
"""None, the name of a label map, an anatomical half, a function of the voxels, or a border of voxels to leave out."""
HALVES = {"left": (0, False), "right": (0, True), "posterior": (1, False), "anterior": (1, True),
          "inferior": (2, False), "superior": (2, True)}  # fmt: skip
HALVES |= {name[0]: half for name, half in HALVES.items()}
"""The world axis of an anatomical half and whether it is the upper one, by its name or its first letter."""


BORDER = stated(
    f"None, the name of a label map, one of {', '.join(h.capitalize() for h in HALVES)}, a function of the voxels, or "
    "1, 3 or 6 whole numbers of voxels to leave out",
    six,
)


def above_mean(data: Array) -> Array:
    """Voxels above the mean of all: TorchIO's `ZNormalization.mean`."""
    return data > data.mean()


def masking(name: str, value: Any) -> Masking:
    """A checked masking method; a border is kept as six numbers."""
    if value is None or isinstance(value, str) or callable(value):
        return value
    return BORDER(name, value)


def check_masking(
    method: Masking, subject: Subject, argument: str = "masking_method", *, labels: Sequence[int] | None = None
) -> None:
    """Raise a ValueError if a mask is named that the subject does not have, or labels are given without a label map."""
    named = isinstance(method, str) and isinstance(subject.images.get(method), LabelMap)
    if labels is not None and not named:
        raise ValueError(f"labels={list(labels)} are those of a label map: {argument} must be its name, got {method!r}")
    if isinstance(method, str) and not named and method.lower() not in HALVES:
        maps = [name for name, image in subject.images.items() if image.is_label]
        known = ", ".join(map(repr, maps)) or "none"
        raise ValueError(f"{argument}={method!r} is no label map of the subject (it has {known}).{near(method, maps)}")


def mask_of(
    method: Masking, image: Image, subject: Subject, labels: Sequence[int] | None = None
) -> Bool[Array, "_ I J K"] | None:
    """The mask (1 or C, I, J, K) of an image, traced; None stands for all voxels. What is padded is never in it.

    A label map marks its nonzero voxels, or those that hold one of `labels`; 'Left', 'L', 'Right', ... the half of the
    image on that side of the world.
    Raises TypeError for a function on a padded image, whose padding it would see.
    """
    shape = image.spatial_shape
    extent, real = jnp.asarray(image.size, jnp.int32), image.real
    if method is None:
        return real
    if isinstance(method, str) and isinstance(subject.images.get(method), LabelMap):
        found = marked(jnp.asarray(subject[method].data), labels)
        if found.shape[1:] != shape:
            raise ValueError(
                f"mask {method!r} has shape {found.shape[1:]}, the image {shape}: put them on one grid first"
            )
        found = found if found.shape[0] in (1, image.shape[0]) else found.any(0, keepdims=True)
    elif isinstance(method, str):
        found = half(method, image, extent)
    elif method is above_mean:
        found = image.data > statistics.finite_only(statistics.mean_std, image.data, real)[0]
    elif callable(method):
        if real is not None:
            raise TypeError("a masking function would see the padding of this image; crop it to a fixed shape first")
        found = jnp.asarray(method(image.data), bool)
    else:
        low, high = jnp.asarray(method[0::2], jnp.int32), extent - jnp.asarray(method[1::2], jnp.int32)
        index = warp.indices(shape, jnp.int32)
        inside = [(i >= a) & (i < b) for i, a, b in zip(index, low, high, strict=True)]
        found = (inside[0] & inside[1] & inside[2])[None]
    return found if real is None else found & real


def marked(data: Array, labels: Sequence[int] | None) -> Bool[Array, "C I J K"]:
    """Where a label map holds one of the labels, or any but 0; labels that its type cannot hold are nowhere."""
    if labels is None:
        return data != 0
    if not jnp.issubdtype(data.dtype, jnp.floating):
        limits = np.iinfo(np.uint8 if data.dtype == bool else data.dtype)
        labels = tuple(v for v in labels if limits.min <= v <= limits.max)
    found = jnp.zeros(data.shape, bool)
    for label in labels:
        found = found | (data == jnp.asarray(label, data.dtype))
    return found


def box_of(mask: Bool[Array, "I J K"]) -> dict[str, Array]:
    """The smallest box [low, high) (3,) int32 that holds a mask, and whether it is anywhere; without, the whole."""
    low, high = [], []
    for axis in range(3):
        along = mask.any(tuple(a for a in range(3) if a != axis))
        low.append(jnp.argmax(along).astype(jnp.int32))
        high.append(along.size - jnp.argmax(along[::-1]).astype(jnp.int32))
    return {"low": jnp.stack(low), "high": jnp.stack(high), "found": mask.any()}


def shown(values: Array, image: Image) -> Array:
    """The part of values (_, I, J, K) of a whole grid that an image shows; beyond the grid its edge goes on."""
    if image.offset is None:
        return values
    for axis, size in enumerate(image.spatial_shape):
        index = jnp.clip(image.offset[axis] + jnp.arange(size, dtype=jnp.int32), 0, values.shape[axis + 1] - 1)
        values = jnp.take(values, index, axis=axis + 1)
    return values


def half(method: str, image: Image, extent: Array) -> Bool[Array, "1 I J K"]:
    """The half of a volume on one side: 'right' holds the middle slice of an odd number, as TorchIO's does."""
    world, upper = HALVES[method.lower()]
    axes, signs = world_axes(jnp.asarray(image.affine))
    index = jnp.stack(warp.indices(image.spatial_shape, jnp.int32))[axes[world]]
    count = extent[axes[world]]
    along = jnp.where(signs[world] > 0, index, count - 1 - index)
    return (along >= count // 2)[None] if upper else (along < count // 2)[None]
