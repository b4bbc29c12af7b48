"""What intensity transforms draw for each channel or for all, and the channels that a coin leaves out.

Numbers of a transform are () or (1,) for all channels, or (C,); `p_per_channel` is the coin of each channel.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from medjax import keys, ranges
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import passes, statistics
from medjax.typing import Key, Params


def shape_for(per_channel: bool, grid: Grid) -> tuple[int, ...]:
    """The shape of a number that is drawn for each channel, or once."""
    return (grid.channels,) if per_channel else ()


def coins(key: Key, p: ArrayLike, grid: Grid) -> Bool[Array, "C"]:
    """Which channels are changed: a coin for each."""
    return ranges.coin(keys.for_name(key, "p_per_channel"), p, (grid.channels,))


def fitted(values: Array, count: int) -> Array:
    """Numbers of each channel for `count` channels, or for all: the first of them, or the last once more.

    With shared=True they were drawn for the channels of the first image, and others may have more or fewer.
    """
    return values if len(values) in (1, count) else values[np.minimum(np.arange(count), len(values) - 1)]


def laid(values: ArrayLike, image: Image) -> Array:
    """Numbers () or (C,) as (1 or C, 1, 1, 1), in the type of the voxels."""
    flat = fitted(jnp.asarray(values).reshape(-1), image.shape[0])
    return flat.astype(image.data.dtype).reshape(-1, 1, 1, 1)


def rows(values: ArrayLike, image: Image, size: int) -> Array:
    """Vectors (size,) or (C, size), as (1 or C, size) in the type of the voxels."""
    return fitted(jnp.asarray(values).reshape(-1, size), image.shape[0]).astype(image.data.dtype)


def limited(data: Array, image: Image, params: Params) -> Image:
    """The image with new voxels, in the channels whose coin says so."""
    if "channels" not in params:
        return image.replace(data=data)
    chosen = fitted(jnp.asarray(params["channels"]), image.shape[0]).reshape(-1, 1, 1, 1)
    return image.replace(data=jnp.where(chosen, data, image.data))


def means(x: Array, mask: Array | None) -> Array:
    """The mean of the real voxels of each channel, (C, 1, 1, 1); summed line by line, which float32 needs."""
    total = statistics.within(x, mask, 0).sum(3, keepdims=True).sum((1, 2), keepdims=True)
    count = jnp.asarray(x[0].size, jnp.int32) if mask is None else statistics.count(mask)
    return total / jnp.maximum(count, 1).astype(x.dtype)


def least(x: Array, mask: Array | None) -> Array:
    """The smallest real voxel of each channel, (C, 1, 1, 1)."""
    return statistics.within(x, mask, jnp.inf).min((1, 2, 3), keepdims=True)


def greatest(x: Array, mask: Array | None) -> Array:
    """The largest real voxel of each channel, (C, 1, 1, 1)."""
    return statistics.within(x, mask, -jnp.inf).max((1, 2, 3), keepdims=True)


def deviations(x: Array, mean: Array, mask: Array | None) -> Array:
    """The standard deviation of the real voxels of each channel about `mean`; where it is 0, so is its gradient."""
    square = means((x - mean) ** 2, mask)
    varies = square > 0
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, square, 1)), 0)


def each(function: Any, x: Array, *numbers: Array) -> Array:
    """`function(channel, *its numbers)` of each channel (1, I, J, K); numbers (1 or C, ...).

    Of all channels at once where the numbers are the same for all.
    """
    if all(len(n) == 1 for n in numbers):
        return function(x, *(n[0] for n in numbers))
    numbers = tuple(jnp.broadcast_to(n, (len(x), *n.shape[1:])) for n in numbers)
    return passes.one_by_one(lambda each: function(each[0][None], *each[1:])[0], (x, *numbers))
