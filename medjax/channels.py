"""Channels of images: several images as one, and the axis on which networks take them."""

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax import geometry
from medjax.image import Image
from medjax.io.affines import ONE_GRID
from medjax.subject import Subject


def concat_channels(subject: Subject, names: list[str], name: str) -> Subject:
    """One image `name` with the channels of the images `names`, which it replaces, on the one grid they share.

    Raises ValueError if they differ in kind, or if the corners of their grids lie more than a
    twentieth of a voxel apart. Under a trace shapes alone are compared.
    """
    images = [subject[n] for n in names]
    kinds = {other: type(image).__name__ for other, image in zip(names, images, strict=True)}
    if len(set(kinds.values())) > 1:
        raise ValueError(f"concat_channels joins images of one kind, got {kinds}")
    grids = {other: geometry.Grid(i.affine, i.spatial_shape) for other, i in zip(names, images, strict=True)}
    geometry.check_same_grid(grids, "concat_channels", ONE_GRID)
    arrays = [image.data for image in images]
    xp = geometry.namespace(*arrays)
    first = images[0]
    metadata = copy.copy(first.metadata)
    joined = type(first).of(xp.concatenate(arrays), first.affine, metadata=metadata, assumed=first.assumed)
    rest = {n: item for n, item in subject.items() if n not in names}
    return Subject({name: joined, **rest} if name not in rest else {**rest, name: joined})


def channels_last(array: Any) -> Any:
    """(..., C, I, J, K) of an array or an image to an array (..., I, J, K, C), as flax's convolutions take it."""
    array = array.data if isinstance(array, Image) else array
    return jnp.moveaxis(array, -4, -1) if isinstance(array, jax.Array) else np.moveaxis(array, -4, -1)
