"""The flow of a stationary velocity field: a displacement on a lattice, by scaling and squaring, and read anywhere.

A velocity is given at a few nodes, (3, n0, n1, n2); between them it is linear and beyond the last it stays. Node j of n
lies at j S / n of a lattice of S points, as in SynthSeg. Velocities, and displacements to be composed, are in steps of
the lattice.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from medjax.ops import warp
from medjax.ops.axis import along
from medjax.ops.warp import Coordinates
from medjax.typing import Shape3

SQUARINGS = 7
Field = Float[Array, "3 I J K"]


def flow(velocity: Float[Array, "3 n0 n1 n2"], lattice: Shape3) -> Field:
    """Where unit time takes each point of the lattice: the displacement u, from v / 128 by u <- u + u(x + u), 7 times.

    The negated velocity gives the inverse, to the accuracy of linear interpolation.
    """
    size = jnp.asarray(lattice, velocity.dtype)
    places = [n * jnp.arange(s, dtype=size.dtype) / s for n, s in zip(velocity.shape[1:], lattice, strict=True)]
    field = interpolated(velocity, places) / 2**SQUARINGS
    index, extent = warp.indices(lattice, field.dtype), jnp.asarray(lattice, jnp.int32)

    def squared(u: Field, _: None) -> tuple[Field, None]:
        x, y, z = (i + d for i, d in zip(index, u, strict=True))
        return u + warp.linear(u, (x, y, z), extent, u.dtype), None

    return jax.lax.scan(jax.checkpoint(squared), field, None, SQUARINGS)[0]


def interpolated(field: Field, places: list[Float[Array, "N"]]) -> Field:
    """The field at the products of three lists of lattice coordinates, linearly along one axis after the other."""
    for axis in (3, 2, 1):  # memory order first
        last = field.shape[axis] - 1
        at = jnp.clip(places[axis - 1], 0, last)
        below = jnp.minimum(jnp.floor(at), max(last - 1, 0))
        taps = below.astype(jnp.int32), jnp.minimum(below.astype(jnp.int32) + 1, last), (at - below).astype(field.dtype)
        low, high, weight = jax.lax.optimization_barrier(taps)  # else they are worked out again for each voxel
        one, other = (jnp.take(field, index, axis, mode="clip") for index in (low, high))
        field = jax.lax.optimization_barrier(one + along(axis, weight) * (other - one))
    return field


def field_at(field: Field, coordinates: Coordinates) -> Float[Array, "3 ..."]:
    """The field at any lattice coordinates."""
    return warp.linear(field, coordinates, jnp.asarray(field.shape[1:], jnp.int32), field.dtype)


def field_on(field: Field, matrix: Float[Array, "4 4"], shape: Shape3) -> Field:
    """The field on the voxels of a grid of `shape`; axis by axis where its axes run along those of the lattice.

    matrix: voxel index to lattice coordinate.
    """
    linear = matrix[:3, :3]
    reach = jnp.abs(linear) * jnp.asarray(shape, matrix.dtype)[None]
    aligned = (reach * (1 - jnp.eye(3, dtype=matrix.dtype)) < 1e-4).all()

    def by_axis() -> Field:
        places = [linear[a, a] * jnp.arange(n, dtype=matrix.dtype) + matrix[a, 3] for a, n in enumerate(shape)]
        return interpolated(field, places)

    return jax.lax.cond(
        aligned, by_axis, lambda: field_at(field, warp.map_coordinates(matrix, warp.indices(shape, jnp.int32)))
    )
