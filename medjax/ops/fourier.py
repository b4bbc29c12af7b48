"""Changes to the spectrum of a volume that need no 3-D transform, exact for sizes that are known only when traced.

A spectrum is shifted: a line of n voxels has its frequency 0 at index n // 2. Factors for the planes across one axis
leave the other two axes as they are, so they are a circulant matrix along that axis; a product with it takes no longer
than a transform and back, and its real part needs no complex number. One point of the spectrum is a plane wave.

`extent` is how many voxels are real, of an axis () or of the grid (3,), int32; what lies beyond must be 0, and is.
"""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from medjax.ops import axis as linear
from medjax.typing import Shape3, Volume

Size = Int[Array, ""]
Number = Float[Array, ""]


def filter_planes(x: Volume, axis: int, factors: Float[Array, "N"], *, extent: Size, magnitude: bool = False) -> Volume:
    """Multiply the planes of the spectrum across an axis (1, 2, 3) by real factors; the real part, or the magnitude."""
    real, imaginary = circulant(factors - 1, extent)
    y = multiply(x, axis, real + jnp.diag(within(factors.shape[0], extent).astype(x.dtype)))
    return modulus(y, multiply(x, axis, imaginary)) if magnitude else y


def circulant(factors: Float[Array, "N"], extent: Size) -> tuple[Float[Array, "N N"], Float[Array, "N N"]]:
    """Real and imaginary part of F^-1 diag(factors) F, F the shifted transform of a line."""
    index = jnp.arange(factors.shape[0], dtype=jnp.int32)
    kept = jnp.where(index < extent, factors, 0) / extent.astype(factors.dtype)
    angles = phase((index - extent // 2)[None], index[:, None], extent, factors.dtype)
    first = [(wave(angles) * kept[None]).sum(1) for wave in (jnp.cos, jnp.sin)]
    real = within(factors.shape[0], extent)[:, None] & within(factors.shape[0], extent)[None]
    distance = (index[:, None] - index[None]) % extent
    cosine, sine = (jnp.where(real, column[distance], 0) for column in first)
    return cosine, sine


def multiply(x: Volume, axis: int, matrix: Float[Array, "M N"]) -> Volume:
    """`ops.axis.correlate`, but without the batched products that XLA is slow at on a CPU, by a factor of two."""
    if axis == 1 and len(x) == 1:
        return jnp.tensordot(matrix, x[0], 1, precision=jax.lax.Precision.HIGHEST)[None]
    if axis == 2:
        return jax.lax.platform_dependent(x, matrix, cpu=by_plane, default=lambda x, m: linear.correlate(x, 2, m))
    return linear.correlate(x, axis, matrix)


def by_plane(x: Volume, matrix: Float[Array, "M N"]) -> Volume:
    """Multiply along axis 2, one plane after the other."""
    planes = x.reshape(-1, *x.shape[2:])
    product = jax.lax.map(lambda plane: jnp.matmul(matrix, plane, precision=jax.lax.Precision.HIGHEST), planes)
    return product.reshape(*x.shape[:2], *product.shape[1:])


def centre(size: int, extent: Size, width: Size) -> Bool[Array, "{size}"]:
    """The `width` planes about frequency 0: from n // 2 - width // 2 on, so that an odd width is symmetric."""
    index, first = jnp.arange(size, dtype=jnp.int32), extent // 2 - width // 2
    return (index >= first) & (index < first + width)


def ghost_factors(
    size: int, extent: Size, count: Size, intensity: Number, restore: Number | None
) -> Float[Array, "{size}"]:
    """1 - intensity at the planes 0, count, 2 count, ... but for those about frequency 0 that are restored, else 1.

    restore: the share of planes, of which round(restore n) are restored; None: plane n // 2 alone. count = 0: all 1.
    """
    index = jnp.arange(size, dtype=jnp.int32)
    one = jnp.ones((), jnp.int32)
    width = one if restore is None else jnp.round(restore * extent.astype(restore.dtype)).astype(jnp.int32)
    hit = (count > 0) & (index % jnp.maximum(count, 1) == 0) & ~centre(size, extent, width)
    return 1 - jnp.where(hit, intensity, 0)


def low_pass(size: int, extent: Size, cutoff: Number, dtype: DTypeLike) -> Float[Array, "{size}"]:
    """1 at the planes of frequencies |f| <= floor(cutoff n / 2), in cycles per line, and 0 beyond."""
    reach = jnp.floor(cutoff * extent.astype(cutoff.dtype) / 2).astype(jnp.int32)
    frequency = jnp.arange(size, dtype=jnp.int32) - extent // 2
    return (jnp.abs(frequency) <= reach).astype(dtype)


def plane_waves(
    index: Int[Array, "M 3"], heights: Float[Array, "C M"], shape: Shape3, *, extent: Int[Array, "3"]
) -> tuple[Volume, Volume]:
    """Real and imaginary part of the volume whose shifted spectrum is `heights` at the points `index`, else 0.

    A wave is a product of three lines; the last of them is summed over the points as a product of matrices.
    """
    dtype, lines = heights.dtype, []
    for n, size, point in zip(extent, shape, index.T, strict=True):
        voxel = jnp.arange(size, dtype=jnp.int32)
        angles = phase((point - n // 2)[:, None], voxel[None], n, dtype)
        real = within(size, n).astype(dtype)[None]
        lines.append((jnp.cos(angles) * real, jnp.sin(angles) * real))
    (ci, si), (cj, sj), (ck, sk) = lines
    ci, si, cj, sj = ci[:, :, None], si[:, :, None], cj[:, None], sj[:, None]
    plane = jnp.concatenate([ci * cj - si * sj, ci * sj + si * cj])
    weights = (heights / jnp.prod(extent.astype(dtype)))[:, :, None]

    def summed(cosine: Array, sine: Array) -> Volume:
        ends = jnp.concatenate([weights * cosine[None], weights * sine[None]], 1)
        return jnp.einsum("mij,cmk->cijk", plane, ends, precision=jax.lax.Precision.HIGHEST)

    return summed(ck, -sk), summed(sk, ck)


def peak(x: Volume, *, extent: Int[Array, "3"] | None = None) -> Float[Array, "C"]:
    """Greatest magnitude in the spectrum of each channel.

    Where no voxel differs in sign from another it is |sum of x|, at frequency 0, by the triangle inequality; only other
    images are transformed: padded ones by matrices.
    """
    axes = (1, 2, 3)

    def transformed() -> Float[Array, "C"]:
        found = jnp.fft.rfftn(x, axes=axes) if extent is None else half_spectrum(x, extent)
        return jnp.abs(found).max(axes)

    return jax.lax.cond((x >= 0).all() | (x <= 0).all(), lambda: jnp.abs(x.sum(axes)), transformed)


def accumulated(
    x: Volume, index: Int[Array, "M 3"], factors: Float[Array, "M"], *, extent: Int[Array, "3"], padded: bool
) -> Float[Array, "C M"]:
    """The heights of spikes that are added one after the other, each `factors` times the peak that it finds.

    index: points of the shifted spectrum. Only these points change, so the peak is the greater of the largest magnitude
    elsewhere and of those that have come to be at the points.
    """
    axes = (1, 2, 3)
    spectrum = spectrum_of(x, extent, x.shape[3]) if padded else jnp.fft.fftn(x, axes=axes)
    i, j, k = ((index - extent[None] // 2) % extent[None]).T
    there = spectrum[:, i, j, k]
    magnitude = modulus(spectrum.real, spectrum.imag).at[:, i, j, k].set(0)
    rest = magnitude.max(axes)
    same = (index[:, None] == index[None]).all(-1).astype(x.dtype)

    def add(real: Float[Array, "C M"], operands: tuple[Array, Array]) -> tuple[Array, Array]:
        factor, here = operands
        height = factor * jnp.maximum(rest, modulus(real, there.imag).max(1, initial=0))
        return real + height[:, None] * here[None], height

    return jax.lax.scan(add, there.real, (factors, same))[1].T


def half_spectrum(x: Volume, extent: Int[Array, "3"]) -> Array:
    """The spectrum of the real part of a padded volume, not shifted, without the mirrored half; 0 beyond."""
    return spectrum_of(x, extent, x.shape[3] // 2 + 1)


def spectrum_of(x: Volume, extent: Int[Array, "3"], size: int) -> Array:
    """The first `size` frequencies along the last axis, and all along the others, of a padded volume; 0 beyond."""
    cosine, sine = transform_matrix(size, x.shape[3], extent[2], x.dtype)
    spectrum = jax.lax.complex(linear.correlate(x, 3, cosine), linear.correlate(x, 3, sine))
    for axis in (2, 1):
        n = x.shape[axis]
        spectrum = linear.correlate(spectrum, axis, jax.lax.complex(*transform_matrix(n, n, extent[axis - 1], x.dtype)))
    return spectrum


def transform_matrix(rows: int, columns: int, extent: Size, dtype: DTypeLike) -> tuple[Array, Array]:
    """Real and imaginary part of exp(-2 pi i k j / n), 0 where k or j is not below n."""
    k, j = (jnp.arange(size, dtype=jnp.int32) for size in (rows, columns))
    k, j = k[:, None], j[None]
    angles, real = phase(-k, j, extent, dtype), (k < extent) & (j < extent)
    return jnp.where(real, jnp.cos(angles), 0), jnp.where(real, jnp.sin(angles), 0)


def phase(frequency: Int[Array, "..."], voxel: Int[Array, "..."], extent: Size, dtype: DTypeLike) -> Array:
    """2 pi f v / n, from the whole number f v modulo n, so that it is as exact for the last voxel as for the first."""
    return (frequency * voxel % extent).astype(dtype) * (2 * jnp.pi / extent.astype(dtype))


def within(size: int, extent: Size) -> Bool[Array, "{size}"]:
    """Which voxels of a line are real."""
    return jnp.arange(size, dtype=jnp.int32) < extent


def modulus(real: Array, imaginary: Array) -> Array:
    """|real + i imaginary|, with gradient 0 where it is 0."""
    square = real**2 + imaginary**2
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
