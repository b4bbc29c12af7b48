"""Arguments as TorchIO's users write them: errors that their scripts catch, names that are not here, configurations."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

BASE = ("p", "include", "exclude", "keep", "copy", "keys", "parse_input", "label_keys")
"""Arguments that every transform has."""
NEAREST = {
    "gaussian": "linear",
    "label_gaussian": "nearest",
    **dict.fromkeys(("hamming", "cosine", "welch", "lanczos", "blackman"), "cubic"),
}
"""Interpolations of ITK's that there are not here, and the nearest that there are."""


class ArgumentError(TypeError, ValueError, RuntimeError):
    """A wrong argument, or one that does not fit the subject.

    TorchIO raises one of the three, by transform and argument; whichever of them a script catches, it catches this.
    """


@contextmanager
def argument_errors() -> Iterator[None]:
    """Raise errors of arguments as `ArgumentError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise ArgumentError(str(error)) from error


def nearest_known(name: str, value: str) -> str:
    """The nearest interpolation that there is; says so."""
    warnings.warn(f"{name}={value!r} is not here: {NEAREST[value]!r} is taken for it", UserWarning, stacklevel=4)
    return NEAREST[value]


def hydra_config(t: Any) -> dict[str, Any]:
    """What Hydra makes the transform of again: `_target_` and its arguments, tuples as lists."""
    given = {name: getattr(t, name) for name in (*t.args_names, "p", "include", "exclude", "keep", "label_keys")}
    cls = type(t)
    return {"_target_": f"{cls.__module__}.{cls.__qualname__}", **{name: plain(v) for name, v in given.items()}}


def plain(value: Any) -> Any:
    """A value made of dictionaries, lists, numbers and texts; members of a group as their configurations."""
    if hasattr(value, "to_hydra_config"):
        return value.to_hydra_config()
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic | torch.Tensor) or hasattr(value, "__jax_array__"):
        return np.asarray(value).tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
