"""Transforms as plain dictionaries, which JSON and YAML can hold, and back."""

import importlib
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from medjax.errors import near
from medjax.transforms.transform import REGISTRY, Transform

NAME, FUNCTION = "name", "function"


def to_config(transform: Transform) -> dict[str, Any]:
    """`{"name": "RandomNoise", "std": [0.0, 0.1], ...}` of a transform, its members included.

    Raises ValueError for a function that cannot be found again by module and name (a lambda, say).
    """
    arguments = {f.name: encode(f.name, getattr(transform, f.name)) for f in fields(transform)}
    return {NAME: type(transform).__name__, **arguments}


def from_config(config: dict[str, Any]) -> Transform:
    """The transform of a dictionary; raises ValueError for unknown names and arguments, with those that are near."""
    if not isinstance(config, dict) or NAME not in config:
        raise ValueError(f"a transform's configuration is a dictionary with {NAME!r}, got {config!r}")
    name = config[NAME]
    if name not in REGISTRY:
        raise ValueError(f"there is no transform {name!r}.{near(name, REGISTRY)}")
    cls = REGISTRY[name]
    known = [f.name for f in fields(cls)]
    for argument in config:
        if argument not in (*known, NAME):
            raise ValueError(f"{name} has no argument {argument!r}; it has {', '.join(known)}.{near(argument, known)}")
    return cls(**{argument: decode(value) for argument, value in config.items() if argument != NAME})


def encode(argument: str, value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Transform):
        return to_config(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return np.asarray(value).tolist()
    if isinstance(value, (list, tuple)):
        return [encode(argument, v) for v in value]
    if isinstance(value, dict):
        return {str(k): encode(argument, v) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {k: encode(argument, v) for k, v in asdict(value).items()}
    if callable(value):
        return {FUNCTION: reference(argument, value)}
    return value


def reference(argument: str, function: Any) -> str:
    """`module:name` of a function that can be imported again."""
    text = f"{function.__module__}:{function.__qualname__}"
    try:
        found = lookup(text)
    except (ImportError, AttributeError):
        found = None
    if found is not function:
        raise ValueError(f"{argument} holds {function!r}, which is not found by module and name; define it in a module")
    return text


def lookup(text: str) -> Any:
    """The object that `module:name` stands for."""
    module, _, path = text.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def decode(value: Any) -> Any:
    """A value of a configuration as an argument."""
    if isinstance(value, dict) and NAME in value:
        return from_config(value)
    if isinstance(value, dict) and set(value) == {FUNCTION}:
        return lookup(value[FUNCTION])
    if isinstance(value, list):
        return [decode(v) for v in value]
    return value
