"""How the arguments of a transform become numbers: one rule for each kind of field, one place where they are drawn.

A range may be a `Distribution` instead. The rules for ranges are TorchIO's.
With `per_axis`, x is (c - x, c + x) about the field's centre c (0 for degrees, 1 for scales)
or (0, x) where there is none, a pair is the range of every axis, three numbers are one x an axis, six a range an axis.
Without, x is (c - x, c + x), or (low, x) where the field has a least value and no centre, and a pair is the range.
Whatever the form, what is kept is a float32 array of the field's one shape: NumPy, unless a JAX array was given.
"""

from dataclasses import MISSING, field
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jax.typing import ArrayLike

from medjax import keys
from medjax.arguments import Convert, as_floats, broadcast, check, maybe, real, traced
from medjax.distributions import Distribution
from medjax.typing import Key

Range: TypeAlias = Any
"""A number, a pair, three or six numbers, (2,) or (3, 2) float32 once the transform is built; or a `Distribution`."""
Either: TypeAlias = Any
"""A number, a pair or two pairs, (2, 2) float32 once the transform is built: two ranges, each drawn from half the time;
or a `Distribution`."""


# -- fields


def leaf(*, default: Any = MISSING, convert: Convert, kw_only: Any = MISSING) -> Any:
    """A dataclass field whose value becomes a leaf: `convert(name, value)` checks and expands it when built."""
    return field(default=default, kw_only=kw_only, metadata={"convert": convert})


def number(
    *, default: Any, low: float | None = None, high: float | None = None, shape: tuple[int, ...] = (), kw_only=MISSING
) -> Any:
    """A field of one number, or of an array of fixed shape to which one number is broadcast."""
    return leaf(default=default, convert=real(low=low, high=high, shape=shape), kw_only=kw_only)


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
    return leaf(default=default, convert=span(around=around, per_axis=per_axis, low=low, high=high), kw_only=kw_only)


def either(*, default: Any, low: float | None = None, kw_only: Any = False) -> Any:
    """A field drawn uniformly from a range or, on a fair coin, from one of two; one number stands for itself."""
    convert = maybe(two_spans(low)) if default is None else two_spans(low)
    return leaf(default=default, convert=convert, kw_only=kw_only)


# -- what a range may be


def span(
    *,
    around: float | None = None,
    per_axis: bool = False,
    low: float | None = None,
    high: float | None = None,
    whole: bool = False,
) -> Convert:
    """The converter of a range, (2,) or (3, 2) float32; whole: of whole numbers."""

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, Distribution) and not whole:
            return within(name, value, low, high, (3,) if per_axis else ())
        expanded = expand(name, as_floats(name, value), around, per_axis, low)
        check(name, expanded, low, high, whole)
        return ascending(name, expanded)

    return convert


def limits(*, low: float | None = None, high: float | None = None) -> Convert:
    """The converter of an interval from which nothing is drawn, so of no distribution, (2,) float32."""
    convert = span(low=low, high=high)

    def converted(name: str, value: Any) -> Any:
        if isinstance(value, Distribution):
            raise TypeError(f"{name} must be a number or a pair, for nothing is drawn from it, got {value!r}")
        return convert(name, value)

    return converted


def two_spans(low: float | None) -> Convert:
    """The converter of two ranges, (2, 2) float32, from two pairs, one or a number."""

    def convert(name: str, value: Any) -> Any:
        if isinstance(value, Distribution):
            return within(name, value, low, None, ())
        array = as_floats(name, value)
        if array.shape not in ((), (2,), (2, 2)):
            raise ValueError(f"{name} must be a number, a pair or two pairs, got shape {array.shape}")
        check(name, array, low)
        return ascending(name, broadcast(array, (2, 2)))

    return convert


def within(name: str, given: Distribution, low: float | None, high: float | None, shape: tuple[int, ...]) -> Any:
    """A distribution in the shape of its field; raises a ValueError for one that reaches beyond the field's bounds."""
    if given.shape not in ((), shape):
        raise ValueError(f"{name} is one number, not one for each axis, got {given!r}")
    least, greatest = given.support()
    if not traced(least) and low is not None and np.min(least) < low:
        raise ValueError(f"{name} must be at least {low:g}, but {given!r} reaches below: give it low={low:g}")
    if not traced(greatest) and high is not None and np.max(greatest) > high:
        raise ValueError(f"{name} must be at most {high:g}, but {given!r} reaches above: give it high={high:g}")
    return jax.tree.map(lambda leaf: broadcast(leaf, shape), given)


def support(values: Any) -> Any:
    """The least and the greatest number that may be drawn, as a range (..., 2), of a range or a distribution."""
    if not isinstance(values, Distribution):
        return values
    least, greatest = values.support()
    return (jnp if traced(least) or traced(greatest) else np).stack([least, greatest], -1)


def ascending(name: str, pairs: Any) -> Any:
    """Ranges (..., 2); raises a ValueError for a low end above its high end."""
    if not traced(pairs) and np.any(pairs[..., 0] > pairs[..., 1]):
        raise ValueError(f"{name} has low > high: {np.asarray(pairs).tolist()}")
    return pairs


def expand(name: str, array: Any, around: float | None, per_axis: bool, low: float | None) -> Any:
    """The (2,) or (3, 2) range that a number, pair, triple, sextet or ready range stands for."""
    xp = jnp if isinstance(array, jax.Array) else np
    signed = around is not None or (low is None and not per_axis)
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


# -- what is drawn


def draw(key: Key, values: jax.Array | np.ndarray | Distribution, shape: tuple[int, ...] = ()) -> jax.Array:
    """From a distribution, or uniform between low and high, the last axis of `values`; `shape` comes before the rest.

    low + (high - low) u, as four products of 12 bits by 12. They are exact, so that it makes no difference whether a
    compiler contracts a product and a sum: every program draws the same bits.
    """
    if isinstance(values, Distribution):
        return values.sample(key, (*shape, *values.shape))
    return between(key, *ends(values, shape))


@jax.jit  # traced once for all draws of a shape
def between(key: Key, low: jax.Array, high: jax.Array) -> jax.Array:
    """`draw` from uniform ranges."""
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


def draw_either(key: Key, values: ArrayLike | Distribution, shape: tuple[int, ...] = ()) -> jax.Array:
    """Numbers of an `either` field, each with a coin of its own."""
    if isinstance(values, Distribution):
        return draw(key, values, shape)
    pairs = jnp.asarray(values)
    heads = coin(keys.for_name(key, "side"), jnp.asarray(0.5, pairs.dtype), shape)
    chosen = jnp.where(heads[..., None], *(jnp.broadcast_to(pair, (*shape, 2)) for pair in pairs))
    return draw(keys.for_name(key, "place"), chosen)


def draw_normal(key: Key, std: ArrayLike, shape: tuple[int, ...] = ()) -> jax.Array:
    """Normal numbers of mean 0; `std` broadcasts to `shape`.

    The barriers keep compilers from joining the products with others, so that every program draws the same bits.
    """
    std = jnp.asarray(std)
    unit = jax.lax.optimization_barrier(random.normal(key, shape, std.dtype))
    return jax.lax.optimization_barrier(unit * jnp.broadcast_to(std, shape))


def coin(key: Key, p: ArrayLike, shape: tuple[int, ...] = ()) -> jax.Array:
    """Truth values, each True with probability p."""
    p = jnp.asarray(p)
    return random.uniform(key, shape, p.dtype) < p


def ends(values: jax.Array | np.ndarray, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The low and the high ends of a range, in the shape of a draw."""
    values = jnp.asarray(values)
    low, high = (jnp.broadcast_to(values[..., end], shape + values.shape[:-1]) for end in (0, 1))
    return low, high
