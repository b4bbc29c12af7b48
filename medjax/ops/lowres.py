"""Fewer samples along the axes of a volume and back: thick slices and low resolution, of sizes that may be traced.

A line of `extent` voxels is sampled at `count` places, `factor` voxels apart about its middle, each by its nearest
voxel (ties go up); voxel i is then read between the samples, at (i - (extent - 1) / 2) / factor + (count - 1) / 2, and
beyond the ends the outermost samples are repeated. Both steps are one operator from voxels to voxels along an axis.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from medjax.ops.axis import along, correlate
from medjax.ops.warp import cubic
from medjax.typing import Volume

SLACK = 2.0**-12  # voxels; below the distance of a quotient of sizes from a tie, above the rounding of float32
REACH = 12  # samples by which a cubic line is continued: what is beyond weighs below 2e-7
POLE = np.sqrt(3) - 2


class Sampling(NamedTuple):
    """How one axis is sampled."""

    extent: Int[Array, ""]
    count: Int[Array, ""]
    factor: Float[Array, ""]


Samplings = Sequence[Sampling | None]
"""How the three axes are sampled; an axis of None is left alone."""


def voxel_of(sample: Float[Array, "N"], s: Sampling) -> Int[Array, "N"]:
    """The voxel that a sample copies."""
    middle, last = ((n - 1).astype(sample.dtype) / 2 for n in (s.extent, s.count))
    at = middle + (sample - last) * s.factor
    return jnp.clip(jnp.floor(at + (0.5 + SLACK)).astype(jnp.int32), 0, s.extent - 1)


def place_of(size: int, s: Sampling) -> Float[Array, "N"]:
    """Where each of `size` voxels is read among the samples."""
    middle, last = ((n - 1).astype(s.factor.dtype) / 2 for n in (s.extent, s.count))
    return (jnp.arange(size, dtype=s.factor.dtype) - middle) / s.factor + last


def sample_below(at: Float[Array, "N"], s: Sampling) -> Float[Array, "N"]:
    """The lower of the two samples between which places are read.

    XLA may work a place out once for the sample and once for its weight. With the slack it falls between the same two
    samples however it was rounded; without it, one that is nearly whole would be read a whole sample away.
    """
    return jnp.minimum(jnp.floor(at + SLACK), jnp.maximum((s.count - 2).astype(at.dtype), 0))


def nearest(x: Num[Array, "C I J K"], samplings: Samplings) -> Num[Array, "C I J K"]:
    """Each voxel becomes a copy of its nearest sample, of any dtype."""
    for axis in (3, 2, 1):
        s = samplings[axis - 1]
        if s is not None:
            sample = jnp.floor(place_of(x.shape[axis], s) + (0.5 + SLACK))
            voxel = voxel_of(jnp.clip(sample, 0, (s.count - 1).astype(sample.dtype)), s)
            x = jnp.take(x, jax.lax.optimization_barrier(voxel), axis, mode="clip")
    return x


def linear(x: Volume, samplings: Samplings) -> Volume:
    """Each voxel is read linearly between its two samples, along one axis after the other."""
    for axis in (3, 2, 1):  # memory order first
        s = samplings[axis - 1]
        if s is None:
            continue
        last = (s.count - 1).astype(s.factor.dtype)
        at = jnp.clip(place_of(x.shape[axis], s), 0, last)
        below = sample_below(at, s)
        taps = voxel_of(below, s), voxel_of(jnp.minimum(below + 1, last), s), at - below
        # Without the barriers XLA would work them out again for each voxel, and each axis for all reads of the next.
        low, high, weight = jax.lax.optimization_barrier(taps)
        one, other = (jnp.take(x, index, axis, mode="clip") for index in (low, high))
        weight = along(axis, weight)
        x = jax.lax.optimization_barrier(one * (1 - weight) + other * weight)
    return x


def spline(x: Volume, samplings: Samplings) -> Volume:
    """Each voxel is read by the cubic B-splines through the samples, continued by the outermost.

    Source: `scipy.ndimage.zoom`, order 3, mode 'nearest', grid_mode.
    """
    first, *rest = (None if s is None else spline_matrix(n, s) for n, s in zip(x.shape[1:], samplings, strict=True))

    def slab(values: Float[Array, "C J K"]) -> Float[Array, "C J K"]:
        for axis, matrix in zip((2, 1), rest[::-1], strict=True):
            values = values if matrix is None else correlate(values, axis, matrix)
        return values

    def whole(x: Volume) -> Volume:
        for axis, matrix in zip((3, 2), rest[::-1], strict=True):
            x = x if matrix is None else correlate(x, axis, matrix)
        return x

    if any(matrix is not None for matrix in rest):
        x = jax.lax.platform_dependent(
            x, cpu=lambda x: jnp.moveaxis(jax.lax.map(slab, jnp.moveaxis(x, 1, 0)), 0, 1), default=whole
        )
    return x if first is None else correlate(x, 1, first)


def spline_matrix(size: int, s: Sampling) -> Float[Array, "{size} {size}"]:
    """The matrix of `spline` along one axis."""
    at = place_of(size, s)
    samples = jnp.arange(-REACH, size + REACH, dtype=at.dtype)
    last = (s.count - 1).astype(at.dtype)
    weights = jnp.where((samples <= last + REACH)[None], cardinal(at[:, None] - samples[None]), 0)
    return jnp.zeros((size, size), at.dtype).at[:, voxel_of(jnp.clip(samples, 0, last), s)].add(weights)


def cardinal(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """The cubic spline that is 1 at 0 and 0 at every other whole number: sum over k of sqrt(3) z^|k| B3(t - k)."""
    first = jnp.floor(t)
    total = jnp.zeros_like(t)
    for tap in (-1, 0, 1, 2):
        k = jnp.abs(first + tap)
        sign = 1 - 2 * (k % 2)
        total = total + sign * jnp.exp(k * np.log(-POLE)) * cubic(jnp.abs(t - first - tap))
    return np.sqrt(3) * total


def picked(size: int, s: Sampling) -> Bool[Array, "{size}"]:
    """Which voxels are samples."""
    samples = jnp.arange(size, dtype=s.factor.dtype)
    voxel = jnp.where(samples < s.count.astype(samples.dtype), voxel_of(samples, s), size)
    return jnp.zeros(size, bool).at[voxel].set(True, mode="drop")
