"""Linear operators along one axis of a volume, built from traced numbers."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from medjax.typing import Volume

HIGHEST = jax.lax.Precision.HIGHEST
NARROW = 8  # radius up to which shifting and adding beats a matrix product (on a CPU: up to 16)
LONGEST = 1024  # voxels; the longest radius of a Gaussian


def correlate(x: Float[Array, "*shape"], axis: int, matrix: Float[Array, "M N"]) -> Float[Array, "*out"]:
    """Multiply along an axis: y[.., m, ..] = sum over n of matrix[m, n] x[.., n, ..], in full precision."""
    axis %= x.ndim
    if axis == x.ndim - 1:
        return jnp.tensordot(x, matrix, (axis, 1), precision=HIGHEST)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    product = jnp.einsum("mn,bna->bma", matrix, x.reshape(-1, x.shape[axis], math.prod(after)), precision=HIGHEST)
    return product.reshape(*before, len(matrix), *after)


def gaussian_blur(x: Volume, sigma: Float[Array, "3"], *, extent: ArrayLike) -> Volume:
    """Convolve each channel with a Gaussian of standard deviation `sigma` in voxels, below 256 on each axis.

    Weights exp(-r^2 / 2 sigma^2) for whole |r| <= floor(4 sigma + 0.5), of sum 1; the volume is mirrored about the
    outer faces of its edge voxels, as often as it takes. So sigma < 1/8 changes nothing, exactly.
    Source: `scipy.ndimage.gaussian_filter`.

    extent: (3,) int32, how much of the grid is real: edges lie there, what is beyond is not read and has no meaning after.
    """
    end = jnp.asarray(extent, jnp.int32)
    for axis in (2, 1, 0):  # along memory first: measured
        x = blur_axis(x, axis + 1, sigma[axis], end[axis])
    return x


def blur_axis(x: Volume, axis: int, sigma: Float[Array, ""], extent: Int[Array, ""]) -> Volume:
    """`gaussian_blur` along one axis: nothing, a few shifts, or a matrix, by the radius."""
    size = x.shape[axis]
    index = jnp.arange(size, dtype=jnp.int32)
    reach = min(NARROW, size - 1)
    along = [size if a == axis else 1 for a in range(4)]

    def real(x: Volume) -> Volume:
        return jnp.where((index < extent).reshape(along), x, 0)

    @jax.checkpoint
    def shifts(x: Volume, sigma: Array) -> Volume:
        steps = jnp.arange(-reach, reach + 1, dtype=jnp.int32)
        band = reflected_gaussian(sigma, index[None], index[None] + steps[:, None], extent, size)
        padded = jnp.pad(real(x), [(reach, reach) if a == axis else (0, 0) for a in range(4)])
        moved = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(2 * reach + 1))
        return sum(weights.reshape(along) * values for weights, values in zip(band, moved, strict=True))

    def product(x: Volume, sigma: Array) -> Volume:
        return correlate(real(x), axis, reflected_gaussian(sigma, index[:, None], index[None], extent, size))

    span = radius(sigma)
    branch = (span > 0).astype(jnp.int32) + (span > NARROW).astype(jnp.int32)
    return jax.lax.switch(branch, (lambda x, sigma: x, shifts, product), x, sigma)


def radius(sigma: Float[Array, ""]) -> Int[Array, ""]:
    """Where the Gaussian is cut off, in voxels."""
    return jnp.floor(4 * sigma + 0.5).astype(jnp.int32)


def reflected_gaussian(
    sigma: Float[Array, ""], i: Int[Array, "#M #N"], j: Int[Array, "#M #N"], extent: Int[Array, ""], size: int
) -> Float[Array, "M N"]:
    """Weight of voxel j in the blurred voxel i, where the edges mirror; 0 for voxels that are not real.

    Mirroring makes the line periodic: voxel j is seen at j and at -1 - j, and again every 2 extent voxels.
    """
    step = jnp.arange(-LONGEST, LONGEST + 1, dtype=jnp.int32)
    ratio = step.astype(sigma.dtype) / jnp.maximum(sigma, 0.125)
    weights = jnp.where(jnp.abs(step) <= radius(sigma), jnp.exp(-0.5 * ratio**2), 0)
    period = 2 * extent
    folded = jnp.zeros(2 * size, sigma.dtype).at[step % period].add(weights / weights.sum())
    seen = folded[(i - j) % period] + folded[(i + j + 1) % period]
    return jnp.where((i < extent) & (j >= 0) & (j < extent), seen, 0)
