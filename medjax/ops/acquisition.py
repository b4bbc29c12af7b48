"""How a coarser acquisition sees a line of voxels: a slice profile, samples, and back, one operator along each axis."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.ops import fourier
from medjax.ops.axis import NARROW, correlate_near, mirrored_gaussian
from medjax.ops.lowres import Sampling, place_of, sample_below, voxel_of
from medjax.typing import Volume


def acquire(x: Volume, axis: int, sigma: Float[Array, ""], s: Sampling) -> Volume:
    """Along axis 1, 2 or 3: blur by `sigma` voxels as `ops.axis.gaussian_blur`, sample, and read as `lowres.linear`.

    The product of the three, a matrix of which only the blur at the samples is needed, is applied in one pass: shifted
    volumes where nothing comes from more than NARROW voxels away, else a product. 0 beyond the extent.
    """
    size = x.shape[axis]
    last = (s.count - 1).astype(s.factor.dtype)
    at = jnp.clip(place_of(size, s), 0, last)
    below = sample_below(at, s)
    low, high = voxel_of(below, s), voxel_of(jnp.minimum(below + 1, last), s)
    weight = (at - below)[:, None]
    blur = mirrored_gaussian(sigma, s.extent, size, narrow=False)
    i = jnp.arange(size, dtype=jnp.int32)[:, None]
    matrix = jnp.where(i < s.extent, (1 - weight) * blur[low] + weight * blur[high], 0).astype(x.dtype)
    reach = min(NARROW, size - 1)
    away = jnp.abs(i - i.T)

    def near(x: Volume, matrix: Array) -> Volume:
        j = i + jnp.arange(-reach, reach + 1, dtype=jnp.int32)[None]
        band = jnp.take_along_axis(matrix, jnp.clip(j, 0, size - 1), 1)
        return correlate_near(x, axis, jnp.where((j >= 0) & (j < size), band, 0))

    def far(x: Volume, matrix: Array) -> Volume:
        return fourier.multiply(x, axis, matrix)

    real = jnp.arange(size, dtype=jnp.int32) < s.extent
    x = jnp.where(real.reshape([-1 if a == axis else 1 for a in range(4)]), x, 0)
    return jax.lax.cond(jnp.where(matrix != 0, away, 0).max() <= reach, near, far, x, matrix)
