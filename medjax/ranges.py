"""How the arguments of a transform become numbers: one rule for each kind of field, one place where they are drawn.

The rules are TorchIO's. With `per_axis`, x is (c - x, c + x) about the field's centre c (0 for degrees, 1 for scales)
or (0, x) where there is none, a pair is the range of every axis, three numbers are one x an axis, six a range an axis.
Without, x is (-x, x), or (low, x) where the field has a least value, and a pair is the range.
Whatever the form, what is kept is a float32 array of the field's one shape: NumPy, unless a JAX array was given.
"""

from collections.abc import Callable
from dataclasses import MISSING, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from medjax.errors import in_range
from medjax.typing import Key, Tracer

Range: TypeAlias = Any
"""A number, a pair, three or six numbers; (2,) or (3, 2) float32 once the transform is built."""
Convert: TypeAlias = Callable[[str, Any], Any]


def leaf(*, default: Any = MISSING, convert: Convert, kw_only: Any = MISSING) -> Any:
    """A dataclass field whose value becomes a leaf: `convert(name, value)` checks and expands it when built."""
    return field(default=default, kw_only=kw_only, metadata={"convert": convert})


def number(
    *, default: Any, low: float | None = None, high: float | None = None, shape: tuple[int, ...] = (), kw_only=MISSING
) -> Any:
    """A field of one number, or of an array of fixed shape to which one number is broadcast."""

    def convert(name: str, value: Any) -> Any:
        array = as_floats(name, value)
        if array.ndim and array.shape != shape:
            raise ValueError(f"{name} must be {plural(shape)}, got shape {array.shape}")
        check(name, array, low, high)
        return broadcast(array, shape)

    return leaf(default=default, convert=convert, kw_only=kw_only)


def uniform(
    *,
    default: Any,
    around: float | None = None,
    per_axis: bool = False,
    low: float | None = None,
    high: float | None = None,
    kw_only=MISSING,
) -> Any:
    """A field drawn uniformly from a range, as the head of this file says."""

    def convert(name: str, value: Any) -> Any:
        array = as_floats(name, value)
        expanded = expand(name, array, around, per_axis, low)
        check(name, expanded, low, high)
        if not traced(expanded) and np.any(expanded[..., 0] > expanded[..., 1]):
            raise ValueError(f"{name} has low > high: {np.asarray(expanded).tolist()}")
        return expanded

    return leaf(default=default, convert=convert, kw_only=kw_only)


def expand(name: str, array: Any, around: float | None, per_axis: bool, low: float | None) -> Any:
    """The (2,) or (3, 2) range that a number, pair, triple, sextet or ready range stands for."""
    xp = jnp if isinstance(array, jax.Array) else np
    signed = low is None if not per_axis else around is not None
    centre = np.float32((around or 0.0) if signed or low is None else low)
    allowed = (0, 3) if per_axis else (0,)
    if array.ndim == 0 or (per_axis and array.shape == (3,)):
        if signed and not traced(array) and np.any(array < 0):
            raise ValueError(
                f"{name} must not be negative where it stands for a range, got {np.asarray(array).tolist()}"
            )
        pair = xp.stack(
            [centre - array if signed else xp.full_like(array, centre), centre + array if signed else array], -1
        )
    elif array.size == 6 and per_axis:
        pair = array.reshape(3, 2)
    elif array.shape == (2,):
        pair = array
    else:
        forms = "a number, a pair, three numbers or six" if len(allowed) == 2 else "a number or a pair"
        raise ValueError(f"{name} must be {forms}, got shape {array.shape}")
    return broadcast(pair, (3, 2)) if per_axis else pair


def draw(key: Key, values: jax.Array | np.ndarray, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform between low and high, the last axis of `values`; `shape` comes before the axes of the range.

    low + (high - low) u, as four products of 12 bits by 12. They are exact, so that it makes no difference whether a
    compiler contracts a product and a sum: every program draws the same bits.
    """
    low, high = ends(values, shape)
    unit = random.uniform(key, low.shape, low.dtype)
    coarse = jnp.floor(unit * 2**12) / 2**12
    width = high - low
    upper = jax.lax.stop_gradient(jax.lax.reduce_precision(width, 8, 11))
    total = low
    for part in (upper, width - upper):
        for digits in (coarse, unit - coarse):
            total = total + part * digits
    inside = jnp.clip(total, jnp.minimum(low, high), jnp.maximum(low, high))
    return total + jax.lax.stop_gradient(inside - total)


def draw_integer(key: Key, values: jax.Array | np.ndarray, shape: tuple[int, ...] = ()) -> jax.Array:
    """Integers, each from low to high with both ends, equally likely."""
    low, high = (jnp.round(end) for end in ends(values, shape))
    unit = random.uniform(key, low.shape, low.dtype)
    return jnp.minimum(low + jnp.floor((high - low + 1) * unit), high).astype(jnp.int32)


def ends(values: jax.Array | np.ndarray, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The low and the high ends of a range, in the shape of a draw."""
    values = jnp.asarray(values)
    low, high = (jnp.broadcast_to(values[..., end], shape + values.shape[:-1]) for end in (0, 1))
    return low, high


def as_floats(name: str, value: Any) -> Any:
    """A float32 array: NumPy, or JAX's if that was given."""
    if isinstance(value, jax.Array):
        return value.astype(jnp.float32)
    try:
        if isinstance(value, (list, tuple)) and any(isinstance(v, jax.Array) for v in jax.tree.leaves(value)):
            return jnp.asarray(value, jnp.float32)
        return np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be made of numbers, got {value!r}") from None


def optional(name: str, value: Any, low: float | None = None) -> Any:
    """None, or one number of at least `low`."""
    if value is None:
        return None
    array = as_floats(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be one number or None, got shape {array.shape}")
    check(name, array, low)
    return array


def broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    """`array` in the field's one shape, as an array of its own."""
    return jnp.broadcast_to(array, shape) if isinstance(array, jax.Array) else np.array(np.broadcast_to(array, shape))


def check(name: str, array: Any, low: float | None = None, high: float | None = None) -> None:
    """Raise a ValueError that names the argument; traced numbers cannot be looked at."""
    if not traced(array):
        in_range(name, np.asarray(array), low, high)


def traced(value: Any) -> bool:
    """Whether a number is known only while tracing."""
    return isinstance(value, Tracer)


def plural(shape: tuple[int, ...]) -> str:
    """How many numbers an array of a shape holds, in words."""
    return "one number" if not shape else f"one number or an array of shape {shape}"
