"""Which voxels the statistics of a normalisation are taken from."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from medjax.errors import near
from medjax.geometry import world_axes
from medjax.image import Image, LabelMap
from medjax.ops import statistics
from medjax.subject import Subject

Masking: TypeAlias = str | Callable[[Any], Any] | tuple[int, ...] | None
"""None, the name of a label map, an anatomical half, a function of the voxels, or a border of voxels to leave out."""
HALVES = {"left": (0, False), "right": (0, True), "posterior": (1, False), "anterior": (1, True),
          "inferior": (2, False), "superior": (2, True)}  # fmt: skip


def above_mean(data: Array) -> Array:
    """Voxels above the mean of all: TorchIO's `ZNormalization.mean`."""
    return data > data.mean()


def masking(name: str, value: Any) -> Masking:
    """A checked masking method; a border is kept as six numbers."""
    if value is None or isinstance(value, str) or callable(value):
        return value
    sizes = np.atleast_1d(np.asarray(value))
    if sizes.size not in (1, 3, 6) or not np.issubdtype(sizes.dtype, np.integer) or (sizes < 0).any():
        raise ValueError(
            f"{name} must be None, the name of a label map, one of {', '.join(h.capitalize() for h in HALVES)}, a "
            f"function of the voxels, or 1, 3 or 6 whole numbers of voxels to leave out, got {value!r}"
        )
    border = np.broadcast_to(sizes, 6) if sizes.size == 1 else np.repeat(sizes, 2) if sizes.size == 3 else sizes
    return tuple(int(n) for n in border)


def check_masking(method: Masking, subject: Subject, argument: str = "masking_method") -> None:
    """Raise a ValueError if a mask is named that the subject does not have."""
    if (
        isinstance(method, str)
        and not isinstance(subject.images.get(method), LabelMap)
        and method.lower() not in HALVES
    ):
        maps = [name for name, image in subject.images.items() if isinstance(image, LabelMap)]
        known = ", ".join(map(repr, maps)) or "none"
        raise ValueError(f"{argument}={method!r} is no label map of the subject (it has {known}).{near(method, maps)}")


def mask_of(method: Masking, image: Image, subject: Subject) -> Bool[Array, "_ I J K"] | None:
    """The mask (1 or C, I, J, K) of an image, traced; None stands for all voxels. What is padded is never in it.

    A label map marks its nonzero voxels; 'Left', 'Right', ... the half of the image on that side of the world.
    Raises TypeError for a function on a padded image, whose padding it would see.
    """
    shape = image.spatial_shape
    extent = jnp.asarray(shape if image.extent is None else image.extent, jnp.int32)
    real = None if image.extent is None else statistics.extent_mask(shape, extent)[None]
    if method is None:
        return real
    if isinstance(method, str) and isinstance(subject.images.get(method), LabelMap):
        found = jnp.asarray(subject[method].data) != 0
        if found.shape[1:] != shape:
            raise ValueError(
                f"mask {method!r} has shape {found.shape[1:]}, the image {shape}: put them on one grid first"
            )
        found = found if found.shape[0] in (1, image.shape[0]) else found.any(0, keepdims=True)
    elif isinstance(method, str):
        found = half(method, image, extent)
    elif method is above_mean:
        found = image.data > statistics.mean_std(image.data, real)[0]
    elif callable(method):
        if real is not None:
            raise TypeError("a masking function would see the padding of this image; crop it to a fixed shape first")
        found = jnp.asarray(method(image.data), bool)
    else:
        low, high = jnp.asarray(method[0::2]), extent - jnp.asarray(method[1::2])
        index = jnp.meshgrid(*(jnp.arange(n) for n in shape), indexing="ij", sparse=True)
        inside = [(i >= a) & (i < b) for i, a, b in zip(index, low, high, strict=True)]
        found = (inside[0] & inside[1] & inside[2])[None]
    return found if real is None else found & real


def half(method: str, image: Image, extent: Array) -> Bool[Array, "1 I J K"]:
    """The half of a volume on one side: 'right' holds the middle slice of an odd number, as TorchIO's does."""
    world, upper = HALVES[method.lower()]
    axes, signs = world_axes(jnp.asarray(image.affine))
    index = jnp.stack(jnp.meshgrid(*(jnp.arange(n) for n in image.spatial_shape), indexing="ij"))[axes[world]]
    count = extent[axes[world]]
    along = jnp.where(signs[world] > 0, index, count - 1 - index)
    return (along >= count // 2)[None] if upper else (along < count // 2)[None]
