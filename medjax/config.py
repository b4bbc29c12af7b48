"""Transforms as plain dictionaries, which JSON and YAML can hold, and back.

A configuration is data: reading one imports nothing and calls nothing but the transforms that it names. A function in
it is a name, which whoever reads it must give a meaning.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from medjax.distributions import DISTRIBUTIONS, Distribution
from medjax.errors import near
from medjax.transforms.masking import above_mean
from medjax.transforms.transform import REGISTRY, Transform

NAME, FUNCTION = "name", "function"
DEEPEST, MOST = 64, 10**6
"""How deep a configuration may be nested, and how many values it may hold."""
OWN = {f"{above_mean.__module__}:{above_mean.__qualname__}": above_mean}
"""Functions that come with transforms: `ZNormalization.mean`."""
Functions = Mapping[str, Callable[..., Any]] | None


def to_config(transform: Transform, functions: Functions = None) -> dict[str, Any]:
    """`{"name": "RandomNoise", "std": [0.0, 0.1], ...}` of a transform, its members included.

    A function is written as `{"function": name}`: the name that `functions` has for it, else `module:name`.
    Raises ValueError for a function without a name of its own (a lambda, say) that `functions` does not have.
    """
    arguments = {f.name: encode(f.name, getattr(transform, f.name), functions) for f in fields(transform)}
    return {NAME: type(transform).__name__, **arguments}


def from_config(config: dict[str, Any], functions: Functions = None) -> Transform:
    """The transform of a dictionary.

    functions: what the names of functions in it stand for; no other function is called, and nothing is imported.
    Raises ValueError for unknown names and arguments, with those that are near, for functions that are not given, for
    what is no data, and for what is nested too deep or holds itself.

    >>> config = mj.to_config(mj.Lambda(jnp.tanh))
    >>> again = mj.from_config(config, functions={"jax.numpy:tanh": jnp.tanh})
    """
    known = {**OWN, **(functions or {})}
    due = sorted(set(functions_in(config)) - set(known))
    if due:
        given = f"; given are {', '.join(map(repr, functions))}" if functions else ""
        raise ValueError(
            f"the configuration names the functions {', '.join(map(repr, due))}, which are not given{given}: pass what "
            f"they stand for, from_config(config, functions={{{due[0]!r}: ...}})"
        )
    return build(config, known)


def functions_in(config: Any) -> Iterator[str]:
    """The names of the functions in a configuration, all of which is seen; raises ValueError for what is no data."""
    waiting, count = [(config, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEEPEST or count > MOST:
            raise ValueError(
                f"a configuration may be nested {DEEPEST} deep and hold {MOST} values; this one goes beyond, or holds "
                "itself"
            )
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str):
                    raise ValueError(f"names in a configuration are strings, got {name!r}")
            if set(value) == {FUNCTION}:
                if not isinstance(value[FUNCTION], str):
                    raise ValueError(f"a function in a configuration is a name, got a {type(value[FUNCTION]).__name__}")
                yield value[FUNCTION]
            waiting += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, (list, tuple)):
            waiting += [(v, depth + 1) for v in value]
        elif isinstance(value, int):
            if value.bit_length() > 64:
                raise ValueError(
                    f"a whole number in a configuration has at most 64 bits, got one of {value.bit_length()}"
                )
        elif value is not None and not isinstance(value, (str, float)):
            raise ValueError(
                f"a configuration holds dictionaries, lists, texts and numbers, got a {type(value).__name__}"
            )


def build(config: Any, functions: Mapping[str, Any], known_as: Mapping[str, Any] = REGISTRY) -> Any:
    """`from_config`, of what has been looked through; known_as: the classes that it may name."""
    if not isinstance(config, dict) or NAME not in config:
        raise ValueError(f"a transform's configuration is a dictionary with {NAME!r}, got {short(config)}")
    name = config[NAME]
    if not isinstance(name, str) or name not in known_as:
        raise ValueError(f"there is no transform {short(name)}.{near(name, known_as) if isinstance(name, str) else ''}")
    cls = known_as[name]
    known = [f.name for f in fields(cls)]
    for argument in config:
        if argument not in (*known, NAME):
            raise ValueError(
                f"{name} has no argument {short(argument)}; it has {', '.join(known)}.{near(argument[:80], known)}"
            )
    arguments = {argument: decode(value, functions) for argument, value in config.items() if argument != NAME}
    try:
        return cls(**arguments)
    except Exception as error:  # data of the wrong kind fails in as many ways as there are arguments
        raise ValueError(f"{name}: {error}") from error


def short(value: Any) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def encode(argument: str, value: Any, functions: Functions) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Transform):
        return to_config(value, functions)
    if isinstance(value, Distribution):
        return {
            NAME: type(value).__name__,
            **{f.name: encode(f.name, getattr(value, f.name), None) for f in fields(value)},
        }
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return np.asarray(value).tolist()
    if isinstance(value, (list, tuple)):
        return [encode(argument, v, functions) for v in value]
    if isinstance(value, dict):
        return {str(k): encode(argument, v, functions) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {k: encode(argument, v, functions) for k, v in asdict(value).items()}
    if callable(value):
        return {FUNCTION: reference(argument, value, functions)}
    return value


def reference(argument: str, function: Any, functions: Functions) -> str:
    """The name of a function: the one it was given, or `module:name` where that finds it again."""
    for name, known in (functions or {}).items():
        if known is function:
            return name
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not path or found is not function:
        raise ValueError(
            f"{argument} holds {function!r}, which is not found by module and name; define it in a module, or name it: "
            "to_config(transform, functions={name: function})"
        )
    return f"{module}:{path}"


def decode(value: Any, functions: Mapping[str, Any]) -> Any:
    """A value of a configuration as an argument."""
    if isinstance(value, dict) and NAME in value:
        return build(value, functions, {**REGISTRY, **DISTRIBUTIONS})
    if isinstance(value, dict) and set(value) == {FUNCTION}:
        return functions[value[FUNCTION]]
    if isinstance(value, (list, tuple)):
        return [decode(v, functions) for v in value]
    return value
