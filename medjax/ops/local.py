"""What is local: Gaussian bumps on a grid, the Laplacian, and the median of a neighbourhood."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from medjax.ops.axis import along
from medjax.ops.statistics import ordinal
from medjax.typing import Shape3, Volume

T = TypeVar("T")
UNROLLED = 4  # voxels; up to this size of a cube all its voxels are looked at in one pass


def laplacian(x: Volume, extent: ArrayLike | Shape3) -> Volume:
    """The sum over the six face neighbours of what the voxel exceeds them by; a neighbour outside equals the voxel.

    extent: (3,) int32, how much of the grid is real.
    """
    end = jnp.asarray(extent, jnp.int32)
    # Without the barrier XLA would pad again at every read.
    padded = jax.lax.optimization_barrier(jnp.pad(x, [(0, 0), (1, 1), (1, 1), (1, 1)]))

    def neighbour(axis: int, step: int) -> Array:
        start = [0, *(1 + step * (a == axis) for a in (1, 2, 3))]
        return jax.lax.slice(padded, start, [s + n for s, n in zip(start, x.shape, strict=True)])

    total = jnp.zeros_like(x)
    for axis in (1, 2, 3):
        index = jnp.arange(x.shape[axis], dtype=jnp.int32)
        inner = (along(axis, index > 0), along(axis, index < end[axis - 1] - 1))
        for step, has in zip((-1, 1), inner, strict=True):
            total = total + jnp.where(has, x - neighbour(axis, step), 0)
    return total


def gaussian_bump(
    center: Float[Array, "R 3"],
    scale: Float[Array, "R 3"],
    shape: Shape3,
    *,
    extent: ArrayLike | Shape3,
    offset: ArrayLike | Shape3 = (0, 0, 0),
) -> tuple[Float[Array, "R I J K"], Float[Array, "R 1 1 1"]]:
    """The mass of a Gaussian in each voxel, scaled to go from 0 to 1 over the grid, and its mean over the grid.

    It is a product of a line for each axis, each with one peak, so the least, the greatest and the mean are those of
    the lines. 0 where all voxels have the same mass.

    center: index of the peak, which may lie outside. scale: standard deviation in voxels, > 0.
    shape: static, of the array. extent: (3,) int32, the whole grid. offset: (3,) int32, index of the first voxel in it.
    Source: `LocalTransform` of batchgenerators.
    """
    whole, first = jnp.asarray(extent, jnp.int32), jnp.asarray(offset, jnp.int32)
    one = jnp.ones((len(center), 1), center.dtype)
    values, least, mean = one.reshape(-1, 1, 1, 1), one, one
    for axis, size in enumerate(shape):
        last = (whole[axis] - 1).astype(center.dtype)
        middle, width = center[:, axis, None], scale[:, axis, None]
        index = (first[axis] + jnp.arange(size, dtype=jnp.int32)).astype(center.dtype)[None]
        peak = mass(jnp.clip(jnp.round(middle), 0, last), middle, width)
        ends = jnp.minimum(mass(jnp.zeros_like(middle), middle, width), mass(last + 0 * middle, middle, width))
        total = between(-0.5, last + 0.5, middle, width)
        peak = jnp.where(peak > 0, peak, 1)  # a bump so far away that nothing of it is left
        # Without the barrier XLA would work the lines out again for each voxel.
        line = jax.lax.optimization_barrier(mass(index, middle, width) / peak)
        values = values * line.reshape([len(center), *(size if a == axis else 1 for a in range(3))])
        least = least * (ends / peak)
        mean = mean * (total / peak / (last + 1))
    width = 1 - least
    wide = width > 1e-6
    scaled = [(v - least.reshape(-1, 1, 1, 1)) / jnp.where(wide, width, 1).reshape(-1, 1, 1, 1)
              for v in (values, mean.reshape(-1, 1, 1, 1))]  # fmt: skip
    found = wide.reshape(-1, 1, 1, 1)
    return jnp.where(found, scaled[0], 0), jnp.where(found, scaled[1], 0)


def mass(index: Array, center: Array, scale: Array) -> Array:
    """The mass of a Gaussian in the voxel of an index."""
    return between(index - 0.5, index + 0.5, center, scale)


def between(low: ArrayLike, high: ArrayLike, center: Array, scale: Array) -> Array:
    """The mass of a Gaussian between two places, from the side on which its tail is small, for the sake of float32."""
    first, second = (low - center) / scale, (high - center) / scale
    side = jnp.where(first + second > 0, -1, 1)
    return jnp.abs(ndtr(side * second) - ndtr(side * first))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def median(x: Volume, extent: Int[Array, "3"], size: int) -> Volume:
    """The median over a cube of `size` voxels, mirrored about the outer faces of the edge voxels.

    The cube of an even size reaches one voxel further down, and the median of an even number of voxels is the upper of
    the two in the middle: `scipy.ndimage.median_filter`. The gradient is shared by the voxels equal to the median.

    The floats are numbered in order, and the numbers bisected from the least and the greatest of a cube until the
    median is left, counting in each step how many voxels of the cube do not lie above: a plane of the volume after
    another, so that little is kept.
    extent: (3,) int32, how much of the grid is real; anything beyond. size: static, at least 1.
    """
    wide = mirrored(ordinal(x), extent, size)

    def plane(i: Array) -> Array:
        return bisected(jax.lax.dynamic_slice_in_dim(wide, i, size, 1), size)

    found = jax.lax.map(plane, jnp.arange(x.shape[1], dtype=jnp.int32))
    return from_ordinal(jnp.moveaxis(found, 0, 1), x.dtype)


@median.defjvp
def _(size: int, primals: tuple, tangents: tuple) -> tuple[Volume, Volume]:
    (x, extent), (dx, _) = primals, tangents
    y = median(x, extent, size)
    wide, dwide = mirrored(x, extent, size), mirrored(dx, extent, size)

    def add(n: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        zero = jnp.zeros((), jnp.int32)
        start = (zero, n // size**2, n // size % size, n % size)
        value, slope = (jax.lax.dynamic_slice(v, start, y.shape) for v in (wide, dwide))
        equal, change = state
        return equal + (value == y).astype(y.dtype), change + jnp.where(value == y, slope, 0)

    start = jnp.zeros_like(y), jnp.zeros_like(y)
    neighbours = jnp.arange(size**3, dtype=jnp.int32)
    equal, change = jax.lax.scan(lambda state, n: (add(n, state), None), start, neighbours)[0]
    return y, change / jnp.maximum(equal, 1)


def mirrored(x: Shaped[Array, "C I J K"], extent: Int[Array, "3"], size: int) -> Shaped[Array, "C L M N"]:
    """The volume with `size // 2` voxels more below and `(size - 1) // 2` more above on each axis, mirrored."""
    for axis in (1, 2, 3):
        index = jnp.arange(x.shape[axis] + size - 1, dtype=jnp.int32) - size // 2
        inside = jnp.mod(index, 2 * extent[axis - 1])
        x = jnp.take(x, jnp.minimum(inside, 2 * extent[axis - 1] - 1 - inside), axis, mode="clip")
    return x


def bisected(window: Int[Array, "C S M N"], size: int) -> Int[Array, "C J K"]:
    """The whole number of rank size^3 // 2 in the cube about each voxel of a plane."""
    rows, columns = (n - size + 1 for n in window.shape[2:])

    def over_cube(start: T, step: Callable[[T, Array], T]) -> T:
        """Take a step for each neighbour: of a small cube all in one pass, of a larger one a plane in a pass."""

        def over_plane(state: T, plane: Array) -> tuple[T, None]:
            for j, k in product(range(size), repeat=2):
                state = step(state, plane[:, j : j + rows, k : k + columns])
            return state, None

        if size > UNROLLED:
            return jax.lax.scan(over_plane, start, jnp.moveaxis(window, 1, 0))[0]
        for i in range(size):
            start = over_plane(start, window[:, i])[0]
        return start

    first = window[:, 0, :rows, :columns]
    low, high = over_cube((first, first), lambda ends, n: (jnp.minimum(ends[0], n), jnp.maximum(ends[1], n)))

    def cut(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        none = jnp.zeros_like(low, jnp.int32)
        count = over_cube(none, lambda count, n: count + (n <= middle).astype(jnp.int32))
        enough = count > size**3 // 2
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    return jax.lax.while_loop(lambda ends: (ends[0] < ends[1]).any(), cut, (low, high))[0]


def from_ordinal(number: Int[Array, "..."], dtype: DTypeLike) -> Float[Array, "..."]:
    """The float of a number that `ordinal` gave."""
    size = jnp.abs(number) + (2 ** jnp.finfo(dtype).nmant - 1)
    value = jax.lax.bitcast_convert_type(size, dtype)
    return jnp.where(number == 0, 0, jnp.where(number < 0, -value, value)).astype(dtype)
