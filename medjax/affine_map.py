"""The affine map of angles, scales, shifts and shears, about the world's axes or those of a slice."""

from functools import partial
from typing import Any

from medjax.geometry import (
    Grid,
    Linear,
    center,
    homogeneous,
    inverse,
    matmul,
    namespace,
    own_axes,
    traced_once,
    transform_vector,
)


def about_axes(radians: Any) -> tuple[Any, Any, Any]:
    """Rx, Ry and Rz (3, 3), right-handed."""
    xp = namespace(radians)
    one, zero = xp.ones_like(radians[0]), xp.zeros_like(radians[0])
    (cx, cy, cz), (sx, sy, sz) = xp.cos(radians), xp.sin(radians)
    about_x = xp.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx]).reshape(3, 3)
    about_y = xp.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy]).reshape(3, 3)
    about_z = xp.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one]).reshape(3, 3)
    return about_x, about_y, about_z


def rotation(radians: Any) -> Any:
    """Rz Rx Ry (3, 3), right-handed about the RAS axes."""
    about_x, about_y, about_z = about_axes(radians)
    return matmul(about_z, about_x, about_y)


def shearing(factors: Any, flat: Any) -> Any:
    """The (3, 3) matrix with ones on its diagonal and xy, xz, yx, yz, zx, zy beside it, 0 along `flat` axes (3,)."""
    xp = namespace(factors)
    one, zero = xp.ones_like(factors[0]), xp.zeros_like(factors[0])
    xy, xz, yx, yz, zx, zy = factors
    matrix = xp.stack([one, xy, xz, yx, one, yz, zx, zy, one]).reshape(3, 3)
    return xp.where((flat[:, None] | flat[None, :]) & (matrix != one), zero, matrix)


def affine_map(params: Any, reference: Grid, about: str, order: str) -> Linear:
    """Output world to input world: p_in = c + H^-1 R^T (S^-1 (p_out - c) - t), or c + S^-1 H^-1 R^T (p_out - c - t).

    A slice is moved within itself: angles, scales and shifts are along its own axes instead of the world's, nothing is
    scaled, sheared or shifted along its normal, and the only rotation is about it.
    """
    xp = namespace(reference.affine)
    dtype = reference.affine.dtype
    drawn = [xp.asarray(params[name]).astype(dtype) for name in ("scales", "degrees", "translation", "shears")]
    middle = center(reference) if about == "image" else xp.zeros(3, dtype)
    by_order = affine_in_world if order == "world" else affine_in_object
    return Linear(by_order(*drawn, *own_axes(reference), middle))


def affine_matrix(
    order: str, scales: Any, degrees: Any, shift: Any, shears: Any, own: Any, flat: Any, middle: Any
) -> Any:
    """The matrix (4, 4) of `affine_map`, from arrays of three alone, shears six; own, flat: of `own_axes`."""
    xp, dtype = namespace(middle, scales), middle.dtype
    others = xp.stack([flat[1] | flat[2], flat[0] | flat[2], flat[0] | flat[1]])
    scales, shift = xp.where(flat, 1, scales).astype(dtype), xp.where(flat, 0, shift).astype(dtype)
    sheared = shearing(shears, flat)
    upright = inverse(homogeneous(sheared, xp.zeros(3, dtype)))[:3, :3]
    turned = matmul(upright, rotation(xp.deg2rad(xp.where(others, 0, degrees).astype(dtype))).T)
    linear = turned / (scales[None, :] if order == "world" else scales[:, None])
    shifted = transform_vector(own, transform_vector(turned if order == "world" else linear, shift))
    linear = matmul(own, linear, own.T)
    return homogeneous(linear, middle - transform_vector(linear, middle) - shifted)


affine_in_world = traced_once(partial(affine_matrix, "world"))
affine_in_object = traced_once(partial(affine_matrix, "object"))
