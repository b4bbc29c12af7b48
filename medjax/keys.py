"""Every key of medjax is derived here, by folding in what is asked and never where it stands.

A member of a Compose folds in its path of indices, a parameter its name, an image its name, an element of a
batch its place and one of a loader its epoch and index in the data set. So adding an image or a parameter
changes no other draw, and the coin, the angle and the noise of a transform never share bits.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from medjax.typing import Key


def as_key(key: object) -> Key:
    """A typed key from a typed key or a raw `PRNGKey` array; raises TypeError for anything else, or for many."""
    if isinstance(key, (jax.Array, np.ndarray)):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.ndim == 0:
                return key
            raise TypeError(
                f"one key is due, got an array of keys of shape {key.shape}; use pipeline.batch or jax.vmap"
            )
        if key.dtype == np.uint32 and key.ndim == 1 and key.shape[0] in (2, 4):
            return random.wrap_key_data(jnp.asarray(key), impl="threefry2x32" if key.shape[0] == 2 else "rbg")
    raise TypeError(f"key must be one key, as jax.random.key(0) makes, got {describe(key)}")


def as_keys(key: object, size: int) -> Key:
    """The keys of a batch of `size`: (B,) keys as they are, one key folded with each element's place."""
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1:
        if key.shape[0] != size:
            raise TypeError(f"key holds {key.shape[0]} keys for a batch of {size}")
        return key
    if isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32 and key.ndim == 2:
        return as_keys(jax.vmap(as_key)(jnp.asarray(key)), size)
    return jax.vmap(random.fold_in, (None, 0))(as_key(key), jnp.arange(size, dtype=jnp.uint32))


def for_step(key: Key, index: int) -> Key:
    """Key of member `index` of a Compose."""
    return random.fold_in(key, index)


def for_name(key: Key, name: str) -> Key:
    """Key of the parameter called `name`."""
    return random.fold_in(key, zlib.crc32(name.encode()))


def for_image(key: Key, name: str) -> Key:
    """Key of the image called `name`, wherever it stands in the subject."""
    return for_name(key, f"image:{name}")


def for_element(key: Key, epoch: int, index: int) -> Key:
    """Key of element `index` of a data set in an epoch, whatever batch it lands in."""
    return random.fold_in(random.fold_in(key, epoch), index)


def coin(key: Key, p: jax.Array | np.ndarray) -> jax.Array:
    """True with probability p."""
    return random.uniform(for_name(key, "coin"), (), jnp.asarray(p).dtype) < p


def describe(value: object) -> str:
    """A short text for a value in an error: its type, with dtype and shape if it is an array."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of {value.dtype} and shape {value.shape}"
    return f"{type(value).__name__} {value!r}"
