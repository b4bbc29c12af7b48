"""Distributions that a random argument may be given instead of a range, which stands for `Uniform`.

To add one: a frozen dataclass with `@distribution`, its numbers, `sample` and `support`. Every argument that takes a
range, but those of whole numbers, takes it, and so do configurations.
"""

from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float

from medjax.arguments import as_floats, traced
from medjax.typing import Key

T = TypeVar("T")
DISTRIBUTIONS: dict[str, type["Distribution"]] = {}


@dataclass_transform(frozen_default=True)
def distribution(cls: type[T]) -> type[T]:
    """Make a class a distribution: a frozen dataclass whose numbers are leaves, known by its name."""
    made: Any = dataclass(frozen=True, eq=False, repr=False)(cls)
    names = [f.name for f in fields(made)]

    def unflatten(_: None, children: Any) -> Any:
        """The distribution of these leaves, unchecked: they may be anything that JAX puts there."""
        new = object.__new__(made)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(new, name, child)
        return new

    jax.tree_util.register_pytree_node(made, lambda d: (tuple(getattr(d, n) for n in names), None), unflatten)
    DISTRIBUTIONS[made.__name__] = made
    return cast(type[T], made)


@dataclass(frozen=True, eq=False, repr=False)
class Distribution:
    """Abstract. Each number is one for all axes, or (3,), one for each, where the argument is drawn for each axis."""

    def __post_init__(self):
        for f in fields(self):
            object.__setattr__(self, f.name, as_floats(f.name, getattr(self, f.name)))
        for f in fields(self):
            values = getattr(self, f.name)
            if values.shape not in ((), (3,)):
                raise ValueError(f"{f.name} of {self!r} must be one number or three")
            # An end that is infinite when it is left out may be given so.
            if not traced(values) and not np.all(np.isfinite(values) | (values == f.default)):
                raise ValueError(f"{f.name} of {self!r} must be finite, as float32 too")
        self.check()

    def check(self) -> None:
        """Raise a ValueError for numbers that make no distribution."""

    def sample(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Numbers of this distribution, independent; `shape` ends in that of the distribution."""
        raise NotImplementedError(f"{type(self).__name__} must define sample")

    def support(self) -> tuple[Any, Any]:
        """The least and the greatest number that may be drawn; infinite where there is no such."""
        raise NotImplementedError(f"{type(self).__name__} must define support")

    @property
    def shape(self) -> tuple[int, ...]:
        """() or (3,)."""
        return np.broadcast_shapes(*(getattr(self, f.name).shape for f in fields(self)))

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        told = (f"{n}={v}" if traced(v) else f"{n}={np.asarray(v).tolist()}" for n, v in values.items())
        return f"{type(self).__name__}({', '.join(told)})"


@distribution
class Normal(Distribution):
    """A normal distribution, cut off where it must not reach.

    mean, std: in the unit of the argument, std >= 0.
    low, high: no number beyond is drawn; what is between keeps its proportions (a truncated normal distribution).

    Raises ValueError for std < 0 and low >= high.

    >>> blur = mj.RandomBlur(mj.Normal(1.0, 0.3, low=0.0, high=2.0))
    """

    mean: Any = 0.0
    std: Any = 1.0
    low: Any = -np.inf
    high: Any = np.inf

    def check(self) -> None:
        refuse(self, "std must be at least 0", lambda: np.any(np.asarray(self.std) < 0))
        refuse(self, "low must be below high", lambda: np.any(np.asarray(self.low) >= np.asarray(self.high)))

    def sample(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
        mean, std, low, high = numbers(self, shape)
        lower, upper = scaled(low, mean, std), scaled(high, mean, std)
        unit = random.truncated_normal(key, lower, upper, shape, mean.dtype)
        return jnp.clip(exactly(mean, std, unit), low, high)

    def support(self) -> tuple[Any, Any]:
        return self.low, self.high


@distribution
class LogNormal(Distribution):
    """exp of a normal distribution: positive numbers, halves as likely as doubles.

    mean, std: of the logarithm, std >= 0.
    low, high: no number beyond is drawn.

    Raises ValueError for std < 0, low < 0, low >= high and a mean whose exp float32 does not hold (beyond +-80).

    >>> scaled = mj.RandomAffine(scales=mj.LogNormal(0.0, 0.1, low=0.5, high=2.0))
    """

    mean: Any = 0.0
    std: Any = 1.0
    low: Any = 0.0
    high: Any = np.inf

    def check(self) -> None:
        refuse(self, "std must be at least 0", lambda: np.any(np.asarray(self.std) < 0))
        refuse(self, "mean must be from -80 to 80, being of the logarithm", lambda: np.any(np.abs(self.mean) > 80))
        refuse(self, "low must be at least 0", lambda: np.any(np.asarray(self.low) < 0))
        refuse(self, "low must be below high", lambda: np.any(np.asarray(self.low) >= np.asarray(self.high)))

    def sample(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
        mean, std, low, high = numbers(self, shape)
        lower, upper = scaled(jnp.log(low), mean, std), scaled(jnp.log(high), mean, std)
        unit = random.truncated_normal(key, lower, upper, shape, mean.dtype)
        return jnp.clip(jnp.exp(exactly(mean, std, unit)), low, high)

    def support(self) -> tuple[Any, Any]:
        return self.low, self.high


@distribution
class LogUniform(Distribution):
    """Numbers whose logarithm is uniform: as likely from 1 to 2 as from 2 to 4.

    low, high: the ends, 0 < low <= high.

    Raises ValueError for other ends.

    >>> coarser = mj.RandomAnisotropy(downsampling=mj.LogUniform(1.5, 6.0))
    """

    low: Any
    high: Any

    def check(self) -> None:
        refuse(self, "low must be above 0", lambda: np.any(np.asarray(self.low) <= 0))
        refuse(self, "low must not be above high", lambda: np.any(np.asarray(self.low) > np.asarray(self.high)))

    def sample(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
        low, high = numbers(self, shape)
        unit = random.uniform(key, shape, low.dtype)
        return jnp.clip(jnp.exp(exactly(jnp.log(low), jnp.log(high) - jnp.log(low), unit)), low, high)

    def support(self) -> tuple[Any, Any]:
        return self.low, self.high


def numbers(of: Distribution, shape: tuple[int, ...]) -> list[Array]:
    """The numbers of a distribution in the shape of a draw.

    Behind a barrier, or compilers compute with those that are constants in a program as no program does.
    """
    values = (jnp.broadcast_to(jnp.asarray(getattr(of, f.name)), shape) for f in fields(of))
    return jax.lax.optimization_barrier(list(values))


def scaled(end: Array, mean: Array, std: Array) -> Array:
    """An end in units of the deviation; an infinite one stays so, and has no derivative."""
    finite = jnp.isfinite(end)
    return jnp.where(finite, (jnp.where(finite, end, 0) - mean) / jnp.where(std > 0, std, 1), end)


def exactly(start: Array, width: Array, unit: Array) -> Array:
    """start + width unit; the barriers keep compilers from joining the two, so that every program draws the same."""
    return jax.lax.optimization_barrier(start + jax.lax.optimization_barrier(width * unit))


def refuse(of: Distribution, rule: str, broken: Any) -> None:
    """Raise a ValueError where a rule is broken, unless a number is traced."""
    if not any(traced(getattr(of, f.name)) for f in fields(of)) and broken():
        raise ValueError(f"{rule}: {of!r}")
