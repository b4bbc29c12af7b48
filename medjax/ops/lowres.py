"""Fewer samples along the axes of a volume and back: thick slices and low resolution, of sizes that may be traced.

A line of `extent` voxels is sampled at `count` places, `factor` voxels apart about its middle, each by its nearest
voxel (ties go up); voxel i is then read between the samples, at (i - (extent - 1) / 2) / factor + (count - 1) / 2, and
beyond the ends the outermost samples are repeated. Both steps are one operator from voxels to voxels.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from medjax.ops.warp import cubic
from medjax.typing import Volume

SLACK = 2.0**-12  # voxels; below the distance of a quotient of sizes from a tie, above the rounding of float32
REACH = 12  # samples by which a cubic line is continued: what is beyond weighs below 2e-7
POLE = np.sqrt(3) - 2


class Sampling(NamedTuple):
    """How one axis is sampled; R is 1, or C for one sampling a channel."""

    extent: Int[Array, ""]
    count: Int[Array, "R"]
    factor: Float[Array, "R"]


def voxel_of(sample: Float[Array, "R N"], s: Sampling) -> Int[Array, "R N"]:
    """The voxel that a sample copies."""
    middle = (s.extent - 1).astype(sample.dtype) / 2
    last = (s.count - 1).astype(sample.dtype)[:, None] / 2
    at = middle + (sample - last) * s.factor[:, None]
    return jnp.clip(jnp.floor(at + (0.5 + SLACK)).astype(jnp.int32), 0, s.extent - 1)


def place_of(size: int, s: Sampling) -> Float[Array, "R N"]:
    """Where each of `size` voxels is read among the samples."""
    dtype = s.factor.dtype
    voxel = jnp.arange(size, dtype=dtype) - (s.extent - 1).astype(dtype) / 2
    return voxel[None] / s.factor[:, None] + (s.count - 1).astype(dtype)[:, None] / 2


def nearest(x: Num[Array, "C I J K"], samplings: Sequence[Sampling | None]) -> Num[Array, "C I J K"]:
    """Each voxel becomes a copy of its nearest sample; an axis whose sampling is None is left alone. Any dtype."""
    taps = [None if s is None else (voxel_of(nearest_sample(n, s), s),) for n, s in zip(x.shape[1:], samplings)]
    return gather(x, taps, [None if t is None else (None,) for t in taps])


def nearest_sample(size: int, s: Sampling) -> Float[Array, "R N"]:
    """The sample that each voxel is nearest to."""
    return jnp.clip(jnp.floor(place_of(size, s) + (0.5 + SLACK)), 0, (s.count - 1).astype(s.factor.dtype)[:, None])


def linear(x: Volume, samplings: Sequence[Sampling | None]) -> Volume:
    """Each voxel is read linearly between its samples, in one pass: up to eight flat gathers, which XLA fuses."""
    taps: list[tuple[Array, ...] | None] = []
    weights: list[tuple[Array | None, ...] | None] = []
    for size, s in zip(x.shape[1:], samplings, strict=True):
        if s is None:
            taps.append(None)
            weights.append(None)
            continue
        last = (s.count - 1).astype(s.factor.dtype)[:, None]
        at = jnp.clip(place_of(size, s), 0, last)
        below = jnp.minimum(jnp.floor(at), jnp.maximum(last - 1, 0))
        taps.append((voxel_of(below, s), voxel_of(jnp.minimum(below + 1, last), s)))
        weights.append((1 - (at - below), at - below))
    return gather(x, taps, weights)


def gather(x: Array, taps: Sequence[tuple[Array, ...] | None], weights: Sequence[tuple | None]) -> Array:
    """The sum over all combinations of taps along the axes; each tap (R, N) an index, with a weight (R, N) or None."""
    channels, *sizes = x.shape
    strides = (sizes[1] * sizes[2], sizes[2], 1)

    def laid(values: Array, axis: int) -> Array:
        return values.reshape([len(values), *(-1 if a == axis else 1 for a in range(3))])

    rows = jnp.arange(channels, dtype=jnp.int32)[:, None] * (sizes[0] * strides[0])
    own = [jnp.arange(n, dtype=jnp.int32)[None] for n in sizes]
    options = [[(own[a], None)] if t is None else list(zip(t, weights[a] or (), strict=True))
               for a, t in enumerate(taps)]  # fmt: skip
    flat, total = x.ravel(), None
    for combination in product(*options):
        index, weight = rows.reshape(-1, 1, 1, 1), None
        for axis, (tap, share) in enumerate(combination):
            index = index + laid(tap * strides[axis], axis)
            if share is not None:
                weight = laid(share, axis) if weight is None else weight * laid(share, axis)
        value = flat.at[index].get(mode="promise_in_bounds")
        value = value if weight is None else value * weight
        total = value if total is None else total + value
    return jnp.broadcast_to(total, x.shape)


def cubic_matrix(size: int, s: Sampling) -> Float[Array, "N N"]:
    """The matrix (size, size) that reads each voxel by the cubic B-spline through the samples; R must be 1.

    Through the samples continued by the outermost: `scipy.ndimage.zoom`, order 3, mode 'nearest', grid_mode.
    """
    at = place_of(size, s)[0]
    samples = jnp.arange(-REACH, size + REACH, dtype=at.dtype)
    weights = cardinal(at[:, None] - samples[None])
    last = (s.count - 1).astype(at.dtype)
    known = samples <= last + REACH
    voxels = voxel_of(jnp.clip(samples, 0, last)[None], s)[0]
    weights = jnp.where(known[None], weights, 0)
    return jnp.zeros((size, size), at.dtype).at[:, voxels].add(weights)


def cardinal(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """The cubic spline that is 1 at 0 and 0 at every other whole number: sum over k of sqrt(3) z^|k| B3(t - k)."""
    first = jnp.floor(t)
    total = jnp.zeros_like(t)
    for tap in (-1, 0, 1, 2):
        k = jnp.abs(first + tap)
        sign = 1 - 2 * (k % 2)
        total = total + sign * jnp.exp(k * np.log(-POLE)) * cubic(jnp.abs(t - first - tap))
    return np.sqrt(3) * total


def picked(size: int, s: Sampling) -> Bool[Array, "R N"]:
    """Which voxels are samples."""
    samples = jnp.arange(size, dtype=s.factor.dtype)[None]
    voxels = jnp.where(samples < s.count[:, None].astype(samples.dtype), voxel_of(samples, s), size)
    here = jnp.arange(size, dtype=jnp.int32)[None, :, None] == voxels[:, None, :]
    return here.any(2)
