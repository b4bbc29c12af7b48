"""What an entry of a cache is found by: digests of all that it was made of, or the reason why there is none."""

import hashlib
import json
import sys
from dataclasses import is_dataclass
from typing import Any

import jax
import numpy as np

from medjax.config import FUNCTION, reference, to_config
from medjax.geometry import is_traced
from medjax.image import Image, wide
from medjax.io.signature import signature_of
from medjax.subject import Subject

FORMAT = 2
"""Of entries; another one, and those that there are are not found any more."""
OWN = ("medjax.", "torch_bridge.")


class Unkeyed(Exception):
    """Nothing tells whether this is still what it was; says why."""


def key_of(subject: Subject, head: Any, *, dtype: Any, door: str) -> str:
    """32 letters for a subject that is not read yet, and what is done to it.

    head: what `described` says of each step.  dtype: in which fractions are kept.  door: who reads and computes,
    medjax or torch_bridge, which keep whole numbers in other types.
    Raises Unkeyed.
    """
    parts = {
        "format": FORMAT,
        "versions": [sys.modules["medjax"].__version__, jax.__version__, wide()],
        "door": door,
        "dtype": str(dtype),
        "head": head,
        "images": [[name, *_of_image(name, image)] for name, image in subject.images.items()],
        "annotations": [
            [name, type(item).__name__, np.asarray(item.xyz).shape, np.asarray(item.xyz).tobytes().hex()]
            for name, item in subject.annotations.items()
        ],
    }
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def described(t: Any) -> Any:
    """A step of a pipeline as text: its configuration, and the files that define what is not medjax's own.

    A function is text, too, as far as `medjax.config.reference` finds it again.

    Raises Unkeyed for numbers that are traced and functions that nothing finds again.
    """
    name = getattr(t, "__name__", type(t).__name__)
    if is_traced(*jax.tree.leaves(t)):
        raise Unkeyed(f"{name} has traced arguments")
    try:
        config = to_config(t) if is_dataclass(t) else {FUNCTION: reference(name, t, None)}
        modules = {*_modules_in(config), *([type(t).__module__] if is_dataclass(t) else [])}
        code = [_source(module) for module in sorted(modules) if not module.startswith(OWN)]
        return json.loads(json.dumps([config, code]))
    except (TypeError, ValueError, OSError) as error:
        raise Unkeyed(f"{name}: {error}") from None


def _modules_in(config: Any) -> list[str]:
    """The modules of the functions in a configuration."""
    if isinstance(config, dict):
        if set(config) == {FUNCTION}:
            return [config[FUNCTION].partition(":")[0]]
        config = list(config.values())
    return [module for item in config for module in _modules_in(item)] if isinstance(config, list) else []


def _source(module: str) -> list[str]:
    """A module and a digest of its file: a function is the same as long as the file that defines it is."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:
        raise ValueError(f"the module {module!r}, in which a part of it is defined, is no file")
    with open(path, "rb") as file:
        return [module, hashlib.blake2b(file.read(), digest_size=16).hexdigest()]


def _of_image(name: str, image: Image) -> list[Any]:
    """What an image in files is made of; of its own metadata, which stay with the subject, the names."""
    data, affine, *_ = image.held()
    paths = image.path if isinstance(image.path, list) else [image.path]
    if data is not None or paths == [None]:
        raise Unkeyed(f"the image {name!r} is no file, but an array in memory")
    try:
        function, series = image.read_by
        reader = function and [reference("reader", function, None), _source(function.__module__)]
        files = [signature_of(path) for path in paths]
        return [type(image).__name__, files, series, reader, _given(image, affine), sorted(image.metadata)]
    except (OSError, ValueError) as error:
        raise Unkeyed(f"the image {name!r}: {error}") from None


def _given(image: Image, affine: Any) -> Any:
    """The affine that was given instead of the file's, if one was; a header that was looked at has left the file's."""
    if affine is None or (image.read_by[0] is None and np.array_equal(affine, image.replace(affine=None).affine)):
        return None
    return np.asarray(affine, np.float64).tolist()
