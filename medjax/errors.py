"""Checks whose messages say what was given, what is allowed and what to write instead."""

import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np

T = TypeVar("T")


def shown(value: Any) -> str:
    """A value as an error shows it."""
    try:
        text = repr(value)
    except Exception:  # a repr that fails, as that of a number of 5000 digits, must not hide what is wrong
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def near(value: object, allowed: Iterable[object]) -> str:
    """` Did you mean 'x'?`, or nothing if no allowed value is near."""
    match = difflib.get_close_matches(value, [str(a) for a in allowed], n=1) if isinstance(value, str) else []
    return f" Did you mean {match[0]!r}?" if match else ""


def one_of(name: str, value: T, allowed: Collection[object]) -> T:
    """Return `value`; if it is not in `allowed`, raise a ValueError that says what is."""
    try:
        known = value in allowed
    except (TypeError, ValueError):  # what cannot be hashed, or an array
        known = False
    if known:
        return value
    raise ValueError(f"{name}={shown(value)} is not one of {', '.join(map(repr, allowed))}.{near(value, allowed)}")


def in_range(name: str, value: np.ndarray, low: float | None = None, high: float | None = None) -> None:
    """Raise a ValueError unless every entry of `value` is finite and in [low, high]."""
    if not np.all(np.isfinite(value)):
        raise ValueError(f"{name} must be finite, got {np.asarray(value).tolist()}")
    if low is not None and np.any(value < low):
        raise ValueError(f"{name} must be at least {low}, got {np.asarray(value).tolist()}")
    if high is not None and np.any(value > high):
        raise ValueError(f"{name} must be at most {high}, got {np.asarray(value).tolist()}")


def needs_extra(package: str, extra: str, purpose: str) -> NoReturn:
    """Raise the ImportError of a missing optional package, with what to install."""
    raise ImportError(f"{purpose} needs {package}, which is not installed: pip install 'medjax[{extra}]'")


def needs_key(name: str, instead: str = "transform(subject, jax.random.key(0))") -> NoReturn:
    """Raise the TypeError of a random transform called without a key."""
    raise TypeError(f"{name} draws random numbers, so it needs a key: {instead}")


class UnknownShape(TypeError):
    """A shape depends on values that are known only when a program runs."""


def needs_concrete(what: str, instead: str) -> NoReturn:
    """Raise the error of a result whose shape depends on values that are traced."""
    raise UnknownShape(f"{what} depends on values that are not known while tracing (jit, vmap or batch): {instead}")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device has no memory left, for which XLA has no type but words."""
    return any(words in str(error).lower() for words in ("resource_exhausted", "out of memory"))


@contextmanager
def about(what: str) -> Iterator[None]:
    """Say of what an error is: it is raised again with `what` before its text.

    OSError, ValueError, TypeError, ImportError and MemoryError keep their type, and a device that has no memory left
    gives a MemoryError; others become RuntimeError (an IndexError would end a loop over a data set without a word).
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{what}: {error}") from error
        raise type(error)(error.errno, f"{what}: {error.strerror}", error.filename) from error
    except Exception as error:
        kinds = (ValueError, TypeError, ImportError, MemoryError)
        other = MemoryError if is_out_of_memory(error) else RuntimeError
        kind = next((kind for kind in kinds if isinstance(error, kind)), other)
        raise kind(f"{what}: {error}") from error
