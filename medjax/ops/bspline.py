"""Displacement fields from cubic B-spline control points.

d(u) = sum over j of B3(u0 - j0) B3(u1 - j1) B3(u2 - j2) c[j0, j1, j2], coefficients used as they are (approximating),
u the coordinate in the control grid.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.ops import passes
from medjax.ops.warp import Coordinates, cubic, indices, map_coordinates
from medjax.typing import Shape3

HIGHEST = jax.lax.Precision.HIGHEST


def basis(u: Float[Array, "N"], size: int) -> Float[Array, "M N"]:
    """Weights of `size` coefficients at each coordinate."""
    return cubic(jnp.abs(u[None, :] - jnp.arange(size, dtype=u.dtype)[:, None]))


def is_aligned(matrix: Float[Array, "4 4"], shape: Shape3) -> Array:
    """Whether a map from voxels to control coordinates takes each voxel axis to one control axis (to 1e-4 over it)."""
    reach = jnp.abs(matrix[:3, :3]) * jnp.asarray(shape, matrix.dtype)[None, :]
    return (jnp.sum(reach > 1e-4, axis=0) <= 1).all() & (jnp.sum(reach > 1e-4, axis=1) <= 1).all()


def halves(
    control: Float[Array, "D n0 n1 n2"], matrix: Float[Array, "4 4"], shape: Shape3
) -> tuple[Float[Array, "D N I J"], Float[Array, "N K"]]:
    """The field on a whole grid whose axes run along the control axes, in any order, as what is left of a product.

    matrix: voxel index to control coordinate. The sum over N of one with the other is the field: two small products
    are done, and the third, along the last axis, may be part of whatever reads the field.
    """
    size = max(control.shape[1:])
    cube = jnp.pad(control, [(0, 0), *((0, size - n) for n in control.shape[1:])])
    strides = jnp.array([size * size, size, 1], jnp.int32)
    linear = matrix[:3, :3]
    axes = jnp.argmax(jnp.abs(linear), axis=0)
    j = [jax.lax.broadcasted_iota(jnp.int32, (size,) * 3, a) * strides[axes[a]] for a in range(3)]
    field = cube.reshape(cube.shape[0], -1)[:, j[0] + j[1] + j[2]]

    def weights(axis: int) -> Array:
        u = linear[axes[axis], axis] * jnp.arange(shape[axis], dtype=matrix.dtype) + matrix[axes[axis], 3]
        return basis(u, size).astype(field.dtype)

    for axis in range(2):
        field = jnp.tensordot(field, weights(axis), (1, 0), precision=HIGHEST)  # the new axis goes to the end
    return field, weights(2)


def field_aligned(
    control: Float[Array, "D n0 n1 n2"], matrix: Float[Array, "4 4"], shape: Shape3
) -> Float[Array, "D I J K"]:
    """The field on a whole grid whose axes run along the control axes: three small products."""
    half, weights = halves(control, matrix, shape)
    return jnp.tensordot(half, weights, (1, 0), precision=HIGHEST)


def field_at(control: Float[Array, "D n0 n1 n2"], coordinates: Coordinates) -> Float[Array, "D I J K"]:
    """The field at any control coordinates, three arrays (I, J, K): 64 taps a point, zero beyond the control grid."""
    return passes.by_slabs(partial(taps, control), coordinates)


def field_on(
    control: Float[Array, "D n0 n1 n2"], matrix: Float[Array, "4 4"], shape: Shape3
) -> Float[Array, "D I J K"]:
    """The field on the voxels of a grid of `shape`; by products where its axes run along those of the control grid.

    matrix: voxel index to control coordinate.
    """
    return jax.lax.cond(
        is_aligned(matrix, shape),
        lambda: field_aligned(control, matrix, shape),
        lambda: field_turned(control, matrix, shape),
    )


def field_turned(
    control: Float[Array, "D n0 n1 n2"], matrix: Float[Array, "4 4"], shape: Shape3
) -> Float[Array, "D I J K"]:
    """`field_on` for a grid whose axes run anyhow."""

    def slab(i: Array) -> Array:
        _, j, k = indices((1, *shape[1:]), matrix.dtype)
        return taps(control, map_coordinates(matrix, (i[:, None, None].astype(matrix.dtype), j, k)))

    return passes.by_slabs(slab, jnp.arange(shape[0], dtype=jnp.int32))


def taps(control: Float[Array, "D n0 n1 n2"], coordinates: tuple[Array, Array, Array]) -> Float[Array, "D ..."]:
    """The sum over the 64 coefficients around each point."""
    padded = jnp.pad(control, [(0, 0), *(((2, 2),) * 3)])
    last = [n - 2 for n in control.shape[1:]]
    first = [jnp.clip(jnp.floor(u).astype(jnp.int32) - 1, -2, n) for u, n in zip(coordinates, last, strict=True)]
    flat = padded.reshape(control.shape[0], -1)
    rows, columns = padded.shape[2:]
    base = ((first[0] + 2) * rows + first[1] + 2) * columns + first[2] + 2
    place = {"first": first, "coordinates": coordinates, "base": base, "strides": (rows, columns)}
    return passes.over_planes(lambda flat, a: taps_of_plane(flat, jnp.int32(a), **place), flat)


@partial(jax.jit, static_argnames="strides")  # traced once for all planes
def taps_of_plane(
    flat: Float[Array, "N"],
    a: Array,
    first: Sequence[Array],
    coordinates: Coordinates,
    base: Array,
    strides: tuple[int, int],
) -> Array:
    """The 16 taps of `taps` in one plane; base: of the first tap; strides: rows and columns of the coefficients."""
    rows, columns = strides

    def weight(axis: int, tap: Array | int) -> Array:
        distance = jnp.abs(coordinates[axis] - (first[axis] + tap).astype(coordinates[axis].dtype))
        return cubic(distance).astype(flat.dtype)

    def line(b: int) -> Array:
        start = base + (a * rows + b) * columns
        return sum(weight(2, c) * passes.at(flat, start + c) for c in range(4))

    return weight(0, a) * sum(weight(1, b) * line(b) for b in range(4))
