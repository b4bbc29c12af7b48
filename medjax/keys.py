"""Every key of medjax is derived here, by folding in what is asked and never where it stands.

A member of a Compose folds in its path of indices, a parameter its name, an image its name, an element of a
batch its place and one of a loader its epoch and index in the data set. So adding an image or a parameter
changes no other draw, and the coin, the angle and the noise of a transform never share bits.
"""

import zlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from medjax.errors import shown
from medjax.typing import Key

IMPLEMENTATIONS = {2: ("threefry2x32",), 4: ("rbg", "unsafe_rbg")}
"""Which implementations have keys of so many words."""


def as_key(key: object) -> Key:
    """A typed key from a typed key or a raw `PRNGKey` array; raises TypeError for anything else, or for many."""
    if isinstance(key, (jax.Array, np.ndarray)):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            if key.ndim == 0:
                return key
            raise TypeError(
                f"one key is due, got an array of keys of shape {key.shape}; use pipeline.batch or jax.vmap"
            )
        if is_raw(key, 1):
            return typed(key)
    raise TypeError(f"key must be one key, as jax.random.key(0) makes, got {describe(key)}")


def as_keys(key: object, size: int) -> Key:
    """The keys of a batch of `size`: (B,) keys as they are, one key folded with each element's place."""
    if not are_many(key):
        return for_places(as_key(key), size)
    many = as_many(key)
    if many.shape[0] != size:
        raise TypeError(f"key holds {many.shape[0]} keys for a batch of {size}")
    return many


def as_many(key: Any) -> Key:
    """Typed keys (N,) from typed or raw ones; raises TypeError for anything else, or for one."""
    if not are_many(key):
        raise TypeError(f"keys must be several, as jax.random.split(key, 2) makes, got {describe(key)}")
    return typed(key) if is_raw(key, 2) else key


def alone_under_vmap(key: Key | None) -> bool:
    """Whether keys under `vmap` draw what each of them draws alone: threefry's do, those of XLA's generator do not."""
    return key is None or str(random.key_impl(key)) == "threefry2x32"


def are_many(key: object) -> bool:
    """Whether these are (N,) keys, typed or raw."""
    if not isinstance(key, (jax.Array, np.ndarray)):
        return False
    return is_raw(key, 2) or (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1)


@partial(jax.jit, static_argnums=1)
def for_places(key: Key, size: int) -> Key:
    """Keys of the elements of a batch of `size`, by their places; compiled, for it is slow outside of a program."""
    return for_each(key, jnp.arange(size, dtype=jnp.uint32))


def of_seed(seed: int) -> Key:
    """The key of a seed, of which 32 bits count; the same for every default implementation and on x64."""
    return random.key(np.uint32(seed % 2**32), impl="threefry2x32")


def is_raw(key: jax.Array | np.ndarray, ndim: int) -> bool:
    """Whether an array is one raw key, or with 2 axes many of them."""
    return key.dtype == np.uint32 and key.ndim == ndim and key.shape[-1] in IMPLEMENTATIONS


def typed(words: jax.Array | np.ndarray) -> Key:
    """Typed keys of raw ones, (..., words): as in JAX they are of the process's default implementation.

    Where that has another number of words they are of the first that has theirs. Never to be asked inside of a compiled
    function of medjax: JAX does not compile again for another default.
    """
    config: Any = jax.config
    fitting = IMPLEMENTATIONS[words.shape[-1]]
    impl = config.jax_default_prng_impl if config.jax_default_prng_impl in fitting else fitting[0]
    return random.wrap_key_data(jnp.asarray(words), impl=impl)


def words_of(key: Key) -> jax.Array:
    """The words of keys, (..., words) uint32, for what holds plain numbers alone; `of_words` is the way back."""
    return random.key_data(key)


def of_words(words: jax.Array | np.ndarray, like: Key) -> Key:
    """Keys of their words, which do not say it themselves: of the implementation of the key `like`."""
    return random.wrap_key_data(jnp.asarray(words), impl=random.key_impl(like))


def as_text(key: Key | None) -> list[Any] | None:
    """A key as JSON holds it: its implementation and its words; `of_text` is the way back."""
    return None if key is None else [str(random.key_impl(key)), np.asarray(random.key_data(key)).tolist()]


def of_text(text: list[Any] | None) -> Key | None:
    """The key of which `as_text` made this."""
    return None if text is None else random.wrap_key_data(jnp.asarray(text[1], jnp.uint32), impl=text[0])


def in_words(tree: Any) -> tuple[list[jax.Array], Callable[[Sequence[jax.Array]], Any]]:
    """The leaves of a tree as arrays of plain numbers, keys by their words, and the way back."""
    leaves, structure = jax.tree.flatten(tree)
    are_keys = [jnp.issubdtype(jax.typeof(leaf).dtype, jax.dtypes.prng_key) for leaf in leaves]
    implementations = [random.key_impl(leaf) if is_key else None for leaf, is_key in zip(leaves, are_keys, strict=True)]

    def restore(words: Sequence[jax.Array]) -> Any:
        pairs = zip(words, implementations, strict=True)
        return structure.unflatten([w if impl is None else random.wrap_key_data(w, impl=impl) for w, impl in pairs])

    plain = [words_of(leaf) if is_key else jnp.asarray(leaf) for leaf, is_key in zip(leaves, are_keys, strict=True)]
    return plain, restore


def for_step(key: Key, index: int) -> Key:
    """Key of member `index` of a Compose."""
    return random.fold_in(key, index)


def for_name(key: Key, name: str) -> Key:
    """Key of the parameter called `name`."""
    return random.fold_in(key, zlib.crc32(name.encode()))


def for_names(key: Key, names: Sequence[str]) -> Key:
    """The (N,) keys of what is called so, each that of `for_name`."""
    return for_each(key, np.array([zlib.crc32(name.encode()) for name in names], np.uint32))


@jax.jit
def for_each(key: Key, words: np.ndarray) -> Key:
    """The (N,) keys that fold in one of N words each; compiled, for it is slow outside of a program."""
    return jax.vmap(random.fold_in, (None, 0))(key, words)


def for_image(key: Key, name: str) -> Key:
    """Key of the image called `name`, wherever it stands in the subject."""
    return for_name(key, f"image:{name}")


def for_element(key: Key, epoch: int, index: int) -> Key:
    """Key of element `index` of a data set in an epoch, whatever batch it lands in."""
    return random.fold_in(random.fold_in(key, epoch), index)


def coin(key: Key, p: jax.Array | np.ndarray | float) -> jax.Array:
    """True with probability p. Drawn in float32 whatever p is, or the coins of a static p would hang on x64."""
    return random.uniform(for_name(key, "coin"), (), jnp.float32) < jnp.asarray(p, jnp.float32)


def describe(value: object) -> str:
    """A short text for a value in an error: its type, with dtype and shape if it is an array."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return f"an array of {value.dtype} and shape {value.shape}"
    return f"{type(value).__name__} {shown(value)}"
