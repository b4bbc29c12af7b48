"""Linear operators along one axis of a volume, built from traced numbers."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from medjax.typing import Shape3, Volume

NARROW = 8  # voxels; up to this radius adding shifted volumes beats a product with a matrix
LONGEST = 1024  # voxels; the longest radius of a Gaussian
KERNELS = ("scipy", "nnunet")


def correlate(x: Float[Array, "*shape"], axis: int, matrix: Float[Array, "M N"]) -> Float[Array, "*result"]:
    """Multiply along an axis: y[.., m, ..] = sum over n of matrix[m, n] x[.., n, ..], in full precision."""
    axis %= x.ndim
    if axis == x.ndim - 1:
        return jnp.tensordot(x, matrix, (axis, 1), precision=jax.lax.Precision.HIGHEST)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    flat = x.reshape(math.prod(before), x.shape[axis], math.prod(after))
    product = jnp.einsum("mn,bna->bma", matrix, flat, precision=jax.lax.Precision.HIGHEST)
    return product.reshape(*before, matrix.shape[0], *after)


def correlate_near(x: Volume, axis: int, band: Float[Array, "N W"]) -> Volume:
    """Multiply along an axis by a band: y[.., n, ..] = sum of band[n, R + r] x[.., n + r, ..], |r| <= R, W = 2R + 1."""
    size, width = band.shape
    reach = width // 2
    # Without the barrier XLA would pad again at every read.
    padded = jax.lax.optimization_barrier(jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)]))
    shifted = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in range(width))
    return sum(along(axis, weights) * values for weights, values in zip(band.T, shifted, strict=True))


def gaussian_blur(x: Volume, sigma: Float[Array, "3"], *, extent: ArrayLike | Shape3, kernel: str = "scipy") -> Volume:
    """Convolve each channel with a Gaussian of standard deviation `sigma`, voxels, below 256 on each axis.

    Weights exp(-r^2 / 2 sigma^2) for whole |r| <= floor(4 sigma + 0.5), of sum 1; the volume is mirrored about the
    outer faces of its edge voxels, as often as it takes. So sigma < 1/8 changes nothing, exactly.
    Source: `scipy.ndimage.gaussian_filter`.

    extent: (3,) int32, how much of the grid is real: edges lie there, and what is beyond is not read; 0 after.
    kernel: 'nnunet' takes |r| <= floor(3 sigma + 1/4) and mirrors about the centres of the edge voxels, as
    batchgeneratorsv2 does.
    """
    end = jnp.asarray(extent, jnp.int32)

    def blur(narrow: bool, x: Volume, sigma: Array) -> Volume:
        for axis in (3, 2, 1):  # memory order first
            x = blur_axis(x, sigma[axis - 1], end[axis - 1], axis, narrow, kernel)
        return x

    near = jnp.all(radius(sigma, kernel) <= NARROW)
    return jax.lax.cond(near, partial(blur, True), partial(blur, False), x, sigma)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def blur_axis(
    x: Volume, sigma: Float[Array, ""], extent: Int[Array, ""], axis: int, narrow: bool, kernel: str = "scipy"
) -> Volume:
    """`gaussian_blur` along one axis; `narrow` promises a radius up to NARROW."""
    weights = mirrored_gaussian(sigma, extent, x.shape[axis], narrow, kernel)
    return correlate_real(x, weights, extent, axis, narrow)


@partial(blur_axis.defjvp, symbolic_zeros=True)
def _(axis: int, narrow: bool, kernel: str, primals: tuple, tangents: tuple) -> tuple[Volume, Volume]:
    """The slope along sigma is one more blur; through the weights it would be a sum over the volume for each."""
    (x, sigma, extent), (dx, dsigma, _) = primals, tangents
    weights, slope = jax.jvp(
        lambda sigma: mirrored_gaussian(sigma, extent, x.shape[axis], narrow, kernel), (sigma,), (jnp.ones_like(sigma),)
    )
    change = jnp.zeros_like(x)
    if not isinstance(dx, SymbolicZero):
        change += correlate_real(dx, weights, extent, axis, narrow)
    if not isinstance(dsigma, SymbolicZero):
        change += dsigma * correlate_real(x, slope, extent, axis, narrow)
    return correlate_real(x, weights, extent, axis, narrow), change


def correlate_real(x: Volume, weights: Float[Array, "N M"], extent: Int[Array, ""], axis: int, narrow: bool) -> Volume:
    """Multiply along an axis by a matrix or, if `narrow`, a band; zeros are read beyond the extent."""
    real = along(axis, jnp.arange(x.shape[axis], dtype=jnp.int32) < extent)
    return (correlate_near if narrow else correlate)(jnp.where(real, x, 0), axis, weights)


def mirrored_gaussian(
    sigma: Float[Array, ""], extent: Int[Array, ""], size: int, narrow: bool, kernel: str = "scipy"
) -> Float[Array, "{size} M"]:
    """The matrix of the blur along one axis, or its band; 0 for whatever is not real.

    Mirroring makes the line periodic: voxel j is seen at j and at -1 - j, and every 2 extent voxels from either. About
    the centres of the edge voxels it is seen at j and, if it is not an edge voxel, at -j, every 2 (extent - 1) voxels.
    """
    step = jnp.arange(-LONGEST, LONGEST + 1, dtype=jnp.int32)
    ratio = step.astype(sigma.dtype) / jnp.maximum(sigma, 0.125)
    weights = jnp.where(jnp.abs(step) <= radius(sigma, kernel), jnp.exp(-0.5 * ratio**2), 0)
    centred = kernel == "nnunet"
    period = jnp.maximum(2 * (extent - 1), 1) if centred else 2 * extent
    folded = jnp.zeros(2 * size, sigma.dtype).at[step % period].add(weights / weights.sum())

    i = jnp.arange(size, dtype=jnp.int32)[:, None]
    reach = min(NARROW, size - 1)
    j = i + jnp.arange(-reach, reach + 1, dtype=jnp.int32)[None] if narrow else i.T
    mirrored = folded[(i + j) % period] if centred else folded[(i + j + 1) % period]
    seen = folded[(i - j) % period] + jnp.where((j > 0) & (j < extent - 1) | (not centred), mirrored, 0)
    return jnp.where((i < extent) & (j >= 0) & (j < extent), seen, 0)


def spline_coefficients(x: Volume, extent: ArrayLike | Shape3) -> Volume:
    """Coefficients of the cubic B-spline through the voxels of each channel, mirrored about the edge voxels.

    The inverse of the filter (1/6, 2/3, 1/6) is sqrt(3) z^|d|, z = sqrt(3) - 2 (Unser, 1999), folded at the edges.
    extent: (3,) int32, how much of the grid is real; 0 beyond.
    """
    end = jnp.asarray(extent, jnp.int32)
    for axis in (3, 2, 1):
        x = correlate_real(x, spline_inverse(end[axis - 1], x.shape[axis], x.dtype), end[axis - 1], axis, False)
    return x


def spline_inverse(extent: Int[Array, ""], size: int, dtype: DTypeLike) -> Float[Array, "{size} {size}"]:
    """The matrix of `spline_coefficients` along one axis; 0 for whatever is not real."""
    reach = np.arange(-40, 41)
    weights = jnp.asarray(np.sqrt(3) * (np.sqrt(3) - 2) ** np.abs(reach), dtype)
    period = jnp.maximum(2 * (extent - 1), 1)
    folded = jnp.zeros(2 * size, dtype).at[jnp.asarray(reach, jnp.int32) % period].add(weights)
    i = jnp.arange(size, dtype=jnp.int32)[:, None]
    j = i.T
    inner = (j > 0) & (j < extent - 1)  # the voxels that the mirror shows twice
    seen = folded[(i - j) % period] + jnp.where(inner, folded[(i + j) % period], 0)
    return jnp.where((i < extent) & (j < extent), seen, 0)


def radius(sigma: Float[Array, "..."], kernel: str = "scipy") -> Int[Array, "..."]:
    """Where a Gaussian is cut off, in voxels."""
    return jnp.floor(3 * sigma + 0.25 if kernel == "nnunet" else 4 * sigma + 0.5).astype(jnp.int32)


def along(axis: int, values: Shaped[Array, "N"]) -> Shaped[Array, "..."]:
    """A vector laid along one axis of a volume."""
    return values.reshape([-1 if a == axis else 1 for a in range(4)])
