"""What an argument may be: converters `(name, value) -> value`, one for each kind, named where a field is declared.

A converter gives the argument in its one form. It raises a TypeError for a wrong type and a ValueError for a wrong
value, which say the name, what came and what is allowed. What it gives it also takes, so that `replace` and
configurations can hand it back.
"""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from medjax.errors import in_range, near, shown
from medjax.typing import Tracer

Convert: TypeAlias = Callable[[str, Any], Any]
MOST = 2**31 - 1
"""The largest count: kernels count in int32."""
LARGEST = float(np.finfo(np.float32).max)
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


# -- what came


def scalar(value: Any) -> int | float:
    """The Python number that a number or an array () is; raises TypeError for truth values, texts and tracers."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item") and not traced(value):
        value = None if is_key(value) else value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError
    return value if isinstance(value, int) else float(value)


def is_key(value: Any) -> bool:
    """Whether an array holds random keys, which are no numbers."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def entries(value: Any) -> tuple[Any, ...] | None:
    """The entries of a sequence or an array; None for one thing, and for sets, which have no order."""
    if isinstance(value, (str, bytes, Mapping, set, frozenset)) or getattr(value, "ndim", 1) == 0:
        return None
    try:
        return tuple(value)
    except TypeError:
        return None


def entries_or_one(value: Any) -> tuple[Any, ...]:
    """The entries of a sequence, or of a set in their order; one thing alone needs no tuple."""
    found = entries(sorted(value) if isinstance(value, (set, frozenset)) else value)
    return (value,) if found is None else found


def whole_number(value: Any, low: int | None = None, high: int | None = MOST) -> int:
    """The int that a whole number is, within bounds."""
    number = scalar(value)
    if isinstance(number, float) and not number.is_integer():
        raise ValueError
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError
    return int(number)


def spread(value: Any, count: int) -> tuple[Any, ...]:
    """`count` entries, from as many or from one."""
    found = entries_or_one(value)
    if len(found) not in (1, count):
        raise ValueError
    return found * count if len(found) == 1 else found


def stated(allowed: str, parse: Callable[[Any], Any]) -> Convert:
    """The converter of a function of the value alone, which raises TypeError or ValueError; allowed: in words."""

    def convert(name: str, value: Any) -> Any:
        try:
            return parse(value)
        except (TypeError, ValueError, OverflowError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} must be {allowed}, got {shown(value)}") from None

    return convert


def bounds(low: float | None, high: float | None) -> str:
    """` of at least 1`, ` from 1 to 3`, or nothing."""
    if low is None:
        return "" if high in (None, MOST) else f" of at most {high}"
    return f" of at least {low}" if high in (None, MOST) else f" from {low} to {high}"


# -- structure


def whole(*, low: int | None = None, high: int | None = MOST) -> Convert:
    """An int: a whole number, 2.0 being one."""
    return stated(f"a whole number{bounds(low, high)}", lambda value: whole_number(value, low, high))


def wholes(count: int = 3, *, low: int | None = None, high: int | None = MOST) -> Convert:
    """A tuple of `count` ints, from as many or from one."""
    return stated(
        f"one or {WORDS[count]} whole numbers{bounds(low, high)}",
        lambda value: tuple(whole_number(n, low, high) for n in spread(value, count)),
    )


def share(name: str, value: Any) -> tuple[int, int]:
    """(index, count) of one among those that share something."""

    def parse(value: Any) -> tuple[int, int]:
        index, count = (whole_number(n, 0) for n in entries(value) or ())
        if index >= count:
            raise ValueError
        return index, count

    return stated("a pair (index, count) of whole numbers with 0 <= index < count", parse)(name, value)


def interval(*, low: int = 0, start: int | None = None) -> Convert:
    """(least, greatest), two ints, from a pair; n is (n, n), or (start, n) if there is a start."""

    def parse(value: Any) -> tuple[int, int]:
        found = entries(value)
        least, greatest = (value if start is None else start, value) if found is None else found
        pair = whole_number(least, low), whole_number(greatest, low)
        if pair[0] > pair[1]:
            raise ValueError
        return pair

    return stated(f"a whole number of at least {low}, or a pair (low, high) of them, low <= high", parse)


def six(value: Any) -> tuple[int, ...]:
    """The six sides of a volume, i low, i high, j low, ..., from one number, three or six."""
    found = entries_or_one(value)
    found = tuple(n for n in found for _ in range(2)) if len(found) == 3 else spread(found, 6)
    return tuple(whole_number(n, 0) for n in found)


sizes = wholes(3, low=1)
sides = stated("one, three or six whole numbers of voxels >= 0", six)


def choice(*allowed: str | int | None, **aliases: str) -> Convert:
    """One of some words or numbers; aliases: other words for them."""
    known: dict[Any, Any] = {**{option: option for option in allowed}, **aliases}

    def convert(name: str, value: Any) -> Any:
        try:
            key = value if value is None or isinstance(value, str) else scalar(value)
        except TypeError:
            key = value
        else:
            if key in known:
                return known[key]
        alike = key is not value or any(type(key) is type(option) for option in allowed)
        kind = ValueError if alike else TypeError
        raise kind(f"{name}={shown(value)} is not one of {', '.join(map(repr, allowed))}.{near(key, known)}")

    return convert


def flag(name: str, value: Any) -> bool:
    """A truth value: True or False, and nothing that Python would take for one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """A name."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a name, got {shown(value)}")
    return str(value)


def names(name: str, value: Any) -> tuple[str, ...]:
    """A tuple of names; one name alone is a mistake, for its letters are a sequence too."""
    found = () if isinstance(value, (str, bytes)) else entries_or_one(value)
    if (not found and entries(value) is None) or not all(isinstance(v, str) for v in found):
        raise TypeError(f"{name} must be a sequence of image names, got {shown(value)}")
    return tuple(map(str, found))


def function_of(name: str, value: Any) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {shown(value)}")
    return value


def finite(low: float | None = None) -> Convert:
    """A float that float32 holds."""

    def parse(value: Any) -> float:
        found = float(scalar(value))
        if not abs(found) <= LARGEST or (low is not None and found < low):
            raise ValueError
        return found

    return stated(f"a finite number{bounds(low, None)}", parse)


def of_type(kind: type) -> Convert:
    """An instance of a class."""

    def convert(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {shown(value)}")
        return value

    return convert


UNITS = {"": 1, **{f"{unit}B": 1000**n for n, unit in enumerate(("", "k", "M", "G", "T"))},
         **{f"{unit}iB": 1024**n for n, unit in enumerate(("K", "M", "G", "T"), 1)}}  # fmt: skip


def parse_bytes(value: Any) -> int:
    """How many bytes a whole number, or a number with a unit, is."""
    if not isinstance(value, str):
        return whole_number(value, 0, 2**63 - 1)
    digits = value.rstrip("BkKMGTi ")
    unit = value[len(digits) :].strip()
    if unit not in UNITS or not 0 <= float(digits) * UNITS[unit] < 2**63:
        raise ValueError
    return int(float(digits) * UNITS[unit])


size_in_bytes = stated("a number of bytes, or a text as '200GB' or '500MiB'", parse_bytes)


def maybe(convert: Convert) -> Convert:
    """None, or what a converter takes."""
    return lambda name, value: None if value is None else convert(name, value)


def many(convert: Convert, *, least: int = 0, distinct: bool = False) -> Convert:
    """A tuple of what a converter takes, from a sequence or from one alone."""

    def converted(name: str, value: Any) -> tuple[Any, ...]:
        several = entries_or_one(value)
        found = tuple(convert(name if each is value else f"each of {name}", each) for each in several)
        if len(found) < least or (distinct and len(set(found)) != len(found)):
            what = f"at least {WORDS[least]}" if least else "some"
            raise ValueError(f"{name} must name {what}{', none twice' if distinct else ''}, got {shown(value)}")
        return found

    return converted


def pairs(key: Convert, item: Convert) -> Convert:
    """A tuple of pairs from a dictionary, or from pairs; as structure it must be hashable."""

    def converted(name: str, value: Any) -> tuple[tuple[Any, Any], ...]:
        try:
            found = dict(value)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be a dictionary, got {shown(value)}") from None
        made = {key(f"each key of {name}", k): item(f"each value of {name}", v) for k, v in found.items()}
        return tuple(made.items())

    return converted


seed_value = stated("a whole number", lambda value: whole_number(value, -(2**63), 2**64 - 1))
label_value = stated("a whole number", lambda value: whole_number(value, -(2**63), 2**63 - 1))
label_values = many(label_value, least=1)


def some_labels(name: str, value: Any) -> tuple[int, ...]:
    """Labels, at least one, none twice and none of them 0."""
    found = label_values(name, value)
    if 0 in found or len(set(found)) != len(found):
        raise ValueError(f"{name} must name labels other than 0, at least one, none twice, got {shown(value)}")
    return found


# -- numbers that are leaves


def as_numbers(name: str, value: Any) -> Any:
    """An array of real numbers, not of truth values or of texts: NumPy, or JAX's if that was given."""
    made: Any = None
    try:
        if isinstance(value, jax.Array):
            made = value
        elif isinstance(value, (list, tuple)) and any(isinstance(v, jax.Array) for v in jax.tree.leaves(value)):
            made = jnp.asarray(value)
        else:
            made = np.asarray(value)
    except (TypeError, ValueError, OverflowError):
        pass
    if made is None or not any(jnp.issubdtype(made.dtype, kind) for kind in (jnp.integer, jnp.floating)):
        raise TypeError(f"{name} must be made of numbers, got {shown(value)}")
    return made


def as_floats(name: str, value: Any) -> Any:
    """A float32 array of numbers: NumPy, or JAX's if that was given."""
    with np.errstate(over="ignore"):
        return as_numbers(name, value).astype(np.float32)


def real(
    *, low: float | None = None, high: float | None = None, shape: tuple[int, ...] = (), whole: bool = False
) -> Convert:
    """One number, or an array of fixed shape to which one number is broadcast; whole: though kept as floats."""

    def convert(name: str, value: Any) -> Any:
        array = as_floats(name, value)
        if array.ndim and array.shape != shape:
            raise ValueError(f"{name} must be {plural(shape)}, got shape {array.shape}")
        check(name, array, low, high, whole)
        return broadcast(array, shape)

    return convert


def vector(
    shape: tuple[int | None, ...] = (None,),
    *,
    low: float | None = None,
    high: float | None = None,
    least: int = 1,
    whole: bool = False,
) -> Convert:
    """An array of numbers whose axes are as long as `shape` says, and at least `least` where it says None."""
    axes = iter("nmk" if shape.count(None) < 3 else ("n0", "n1", "n2"))
    said = ", ".join(next(axes) if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "")

    def fits(array: Any) -> bool:
        if array.ndim != len(shape):
            return False
        return all(m >= least if n is None else m == n for n, m in zip(shape, array.shape, strict=True))

    def convert(name: str, value: Any) -> Any:
        array = as_floats(name, value)
        if array.size == 0 and least == 0:
            array = array.reshape(tuple(0 if n is None else n for n in shape))
        if not fits(array):
            many = f" with each n at least {least}" if least > 1 else ""
            raise ValueError(f"{name} must have shape ({said}){many}, got {array.shape}")
        check(name, array, low, high, whole)
        return array

    return convert


def check(name: str, array: Any, low: float | None = None, high: float | None = None, whole: bool = False) -> None:
    """Raise a ValueError that names the argument; traced numbers cannot be looked at."""
    if traced(array):
        return
    in_range(name, np.asarray(array), low, high)
    if whole and np.any(np.asarray(array) % 1):
        raise ValueError(f"{name} must be made of whole numbers, got {np.asarray(array).tolist()}")


def broadcast(array: Any, shape: tuple[int, ...]) -> Any:
    """`array` in the field's one shape, as an array of its own."""
    return jnp.broadcast_to(array, shape) if isinstance(array, jax.Array) else np.array(np.broadcast_to(array, shape))


def traced(value: Any) -> bool:
    """Whether a number is known only while tracing."""
    return isinstance(value, Tracer)


def plural(shape: tuple[int, ...]) -> str:
    """How many numbers an array of a shape holds, in words."""
    return "one number" if not shape else f"one number or an array of shape {shape}"
