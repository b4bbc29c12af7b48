"""Label maps: which values they hold, which voxels touch another value, which hang together.

A label map is (C, I, J, K) of any dtype, every channel on its own; 0 is the background.
"""

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from medjax.errors import needs_extra
from medjax.ops.statistics import within

Labels = Num[Array, "C I J K"]
CONNECTIVITIES = {1: 6, 2: 18, 3: 26}
"""How many neighbours a voxel has: those that share a face; an edge too; a corner too."""
OPERATIONS = ("dilation", "erosion", "opening", "closing")
FAR = 2**13
"""A square beyond that of any ball, in half voxels; three more of them still fit 16 bits."""
TABLE = 2**16  # labels that differ by less are found by one pass


def holds(dtype: Any, value: int) -> bool:
    """Whether a type has this whole number, and can tell it from its neighbours."""
    if jnp.issubdtype(dtype, jnp.bool_):
        return value in (0, 1)
    if jnp.issubdtype(dtype, jnp.integer):
        return bool(jnp.iinfo(dtype).min <= value <= jnp.iinfo(dtype).max)
    return abs(value) <= 2 ** (jnp.finfo(dtype).nmant + 1)


def remap(x: Labels, pairs: Iterable[tuple[int, int]], mask: Bool[Array, "_ I J K"] | None = None) -> Labels:
    """Every key becomes its value, all at once, inside the mask (1 or C, I, J, K).

    The dtype must hold the values; a key that it cannot hold is nowhere. A chain of comparisons, which XLA fuses into
    one pass: a hundred cost 5 ms for 8.5 million uint8.
    """
    new = x
    for key, value in pairs:
        if holds(x.dtype, key):
            new = jnp.where(x == jnp.asarray(key, x.dtype), jnp.asarray(value, x.dtype), new)
    return new if mask is None else jnp.where(mask, new, x)


def one_hot(x: Num[Array, "1 I J K"], num_classes: int) -> Num[Array, "N I J K"]:
    """1 in the channel whose number a voxel has, else 0, in the dtype of x; a value that is no channel gives zeros."""
    held = sum(holds(x.dtype, n) for n in range(num_classes))
    channels = x == jnp.arange(held, dtype=jnp.int32).astype(x.dtype)[:, None, None, None]
    return jnp.pad(channels.astype(x.dtype), ((0, num_classes - held), (0, 0), (0, 0), (0, 0)))


def few_values(dtype: Any) -> bool:
    """Whether a table holds all values of a type."""
    return bool(jnp.issubdtype(dtype, jnp.integer)) and dtype.itemsize <= 2


def close(low: Array, high: Array) -> Bool[Array, ""]:
    """Whether a table holds all whole numbers from low to high; half of it is for what float32 rounds off."""
    return high.astype(jnp.float32) - low.astype(jnp.float32) < TABLE // 2


def all_whole(x: Array) -> Bool[Array, ""]:
    """Whether all are whole numbers."""
    return jnp.ones_like(x, bool, ()) if jnp.issubdtype(x.dtype, jnp.integer) else (x == jnp.floor(x)).all()


def present(x: Labels, mask: Bool[Array, "_ I J K"] | None, size: int) -> tuple[Num[Array, "N"], Int[Array, ""]]:
    """The values inside the mask, sorted, (size,), the last repeated up to the end, and how many there are.

    If there are more than `size`, the first of them, and a larger number. One pass that marks a table, for types of 8
    and 16 bits and where all values lie close together; else a pass for each value.
    """
    if x.dtype == bool:
        labels, count = present(x.astype(jnp.uint8), mask, size)
        return labels.astype(bool), count
    if few_values(x.dtype):
        low = jnp.asarray(jnp.iinfo(x.dtype).min, jnp.int32)
        return marked(x.astype(jnp.int32), low, mask, 2 ** (8 * x.dtype.itemsize), size, x.dtype)
    limits = (jnp.iinfo if jnp.issubdtype(x.dtype, jnp.integer) else jnp.finfo)(x.dtype)
    low, high = within(x, mask, limits.max).min(), within(x, mask, limits.min).max()
    return jax.lax.cond(
        close(low, high) & all_whole(within(x, mask, 0)),
        lambda: marked(x, low, mask, TABLE, size, x.dtype),
        lambda: stepped(within(x, mask, high), low, high, size),
    )


def marked(x: Array, low: Array, mask: Bool[Array, "_ I J K"] | None, span: int, size: int, dtype: Any):
    """`present` where all values are whole numbers from low to low + span - 1."""
    place = (x - low).astype(jnp.int32)
    place = place if mask is None else jnp.where(mask, place, span)
    found = jnp.zeros(span, bool).at[place.ravel()].set(True, mode="drop")
    last = span - 1 - jnp.argmax(found[::-1])
    places = jnp.nonzero(found, size=size, fill_value=last)[0]
    return (places.astype(x.dtype) + low).astype(dtype), found.sum(dtype=jnp.int32)


def stepped(x: Labels, low: Array, high: Array, size: int) -> tuple[Num[Array, "N"], Int[Array, ""]]:
    """`present` of any values from low to high: from one to the least above it."""

    def above(state: tuple) -> tuple:
        count, value, labels = state
        value = jnp.where(x > value, x, high).min()
        return count + 1, value, labels.at[count].set(value, mode="drop")

    def more(state: tuple) -> Array:
        return (state[1] < high) & (state[0] <= size)

    count, _, labels = jax.lax.while_loop(more, above, (jnp.int32(1), low, jnp.full(size, high).at[0].set(low)))
    return labels, count


def rank(x: Labels, labels: Num[Array, "N"]) -> Labels:
    """The place of each voxel's value among sorted labels, in the dtype of x."""
    if x.dtype == bool:
        return rank(x.astype(jnp.uint8), labels.astype(jnp.uint8)).astype(bool)
    if few_values(x.dtype):
        low = jnp.asarray(jnp.iinfo(x.dtype).min, jnp.int32)
        return looked_up(x.astype(jnp.int32), labels.astype(jnp.int32), low, 2 ** (8 * x.dtype.itemsize)).astype(
            x.dtype
        )
    return jax.lax.cond(
        close(labels[0], labels[-1]) & all_whole(labels),
        lambda: looked_up(x, labels, labels[0], TABLE),
        lambda: jnp.searchsorted(labels, x, method="scan_unrolled").astype(jnp.int32),
    ).astype(x.dtype)


def looked_up(x: Array, labels: Array, low: Array, span: int) -> Int[Array, "C I J K"]:
    """`rank` of whole numbers from low to low + span - 1."""
    places = jnp.searchsorted(labels, jnp.arange(span, dtype=jnp.int32).astype(x.dtype) + low).astype(jnp.int32)
    return places.at[(x - low).astype(jnp.int32)].get(mode="clip")


def neighbours(connectivity: int) -> list[tuple[int, int, int]]:
    """Steps to the neighbours of a voxel."""
    steps = product((-1, 0, 1), repeat=3)
    return [(i, j, k) for i, j, k in steps if 0 < abs(i) + abs(j) + abs(k) <= connectivity]


def border(x: Labels, connectivity: int, real: Bool[Array, "1 I J K"] | None = None) -> Bool[Array, "C I J K"]:
    """Voxels with a neighbour of another value; what lies outside of the volume, or is not real, is no neighbour."""
    shape = x.shape[1:]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    known = jnp.pad(jnp.ones(shape, bool) if real is None else real[0], 1)
    found = jnp.zeros(x.shape, bool)
    for step in neighbours(connectivity):
        window = tuple(slice(1 + s, 1 + s + n) for s, n in zip(step, shape, strict=True))
        found |= (padded[(slice(None), *window)] != x) & known[window][None]
    return found


def largest_components(x: Labels, connectivity: int, per_label: bool) -> Bool[Array, "C I J K"]:
    """The voxels of the largest connected component of each label, or of all that is not 0.

    Of components of one size it is that whose first voxel comes first. Labelled on the host by connected-components-3d
    (a callback: no gradient, no export, under `vmap` one after the other).
    """
    x = jax.lax.stop_gradient(x)
    if not per_label:
        x = x.astype(bool)
    elif jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4:
        x = x.astype(jnp.float32)
    kept = jax.ShapeDtypeStruct(x.shape, bool)
    return jax.pure_callback(partial(largest_on_host, CONNECTIVITIES[connectivity]), kept, x, vmap_method="sequential")


def labeller(purpose: str = "KeepLargestComponent") -> Any:
    """The module that labels components; raises ImportError if it is not installed."""
    try:
        import cc3d
    except ImportError:
        needs_extra("connected-components-3d", "morphology", purpose)
    return cc3d


def largest_on_host(neighbours: int, x: Any) -> np.ndarray:
    """`largest_components` of an array on the host."""
    x = np.asarray(x)
    kept = np.array(x != 0)
    for channel, all_kept in zip(np.array(x), kept, strict=True):  # a copy: the labeller refuses what is read-only
        drop_islands(neighbours, channel, all_kept)
    return kept


def drop_islands(neighbours: int, x: np.ndarray, kept: np.ndarray) -> None:
    """Set `kept` to False in all but the largest component of each label of one channel."""
    found = components(neighbours, x)
    labels = x.ravel()[found.first]
    order = np.lexsort((found.first, -found.sizes, labels))
    dropped = np.ones(found.sizes.size, bool)
    dropped[order[np.unique(labels[order], return_index=True)[1]]] = False
    clear(kept, found, dropped)


class Components(NamedTuple):
    """The components of a channel, number 0 the background: where they begin, their sizes, their runs in memory.

    first, sizes: of each component. starts, lengths, of: of each run, and the component that it belongs to. Runs are
    far fewer than voxels.
    """

    first: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    of: np.ndarray


def components(neighbours: int, x: np.ndarray) -> Components:
    """The connected components of each label of one channel (I, J, K)."""
    found, count = labeller().connected_components(x, connectivity=neighbours, return_N=True)
    flat = found.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths, of = np.diff(starts, append=flat.size), flat[starts]
    first = np.zeros(count + 1, np.intp)
    first[of[::-1]] = starts[::-1]  # the last to be written is the first run
    return Components(first, np.bincount(of, lengths, count + 1), starts, lengths, of)


def clear(kept: np.ndarray, found: Components, dropped: np.ndarray) -> None:
    """Set `kept` to False in the components for which `dropped` is true."""
    runs = dropped[found.of]
    starts, lengths = found.starts[runs], found.lengths[runs]
    within_run = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept.reshape(-1)[np.repeat(starts, lengths) + within_run] = False


def components_but_one(
    x: Labels, labels: Sequence[int], place: Array, most: Array, count: Array, connectivity: int
) -> Bool[Array, "C I J K"]:
    """All voxels but one component of each of `labels`: number floor(place n) of the n that hold few enough.

    place: (L,), below 0 for a label that keeps all. Few enough is less than most count voxels; count: of the volume.
    Labelled on the host, as `largest_components`.
    """
    x, place, most = jax.lax.stop_gradient((x, place, most))
    if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4:
        x = x.astype(jnp.float32)
    run = partial(but_one_on_host, CONNECTIVITIES[connectivity], tuple(labels))
    return jax.pure_callback(run, jax.ShapeDtypeStruct(x.shape, bool), x, place, most, count, vmap_method="sequential")


def but_one_on_host(neighbours: int, labels: tuple[int, ...], x: Any, place: Any, most: Any, count: Any) -> np.ndarray:
    """`components_but_one` of an array on the host."""
    x, place = np.array(x), np.asarray(place)
    kept = np.ones(x.shape, bool)
    for channel, all_kept in zip(x, kept, strict=True):
        found = components(neighbours, channel)
        of = channel.ravel()[found.first]
        dropped = np.zeros(found.sizes.size, bool)
        for label, where in zip(labels, place, strict=True):
            small = np.flatnonzero((of == label) & (found.sizes < float(most) * int(count)))
            if where >= 0 and small.size:
                small = small[np.argsort(found.first[small])]
                dropped[small[min(int(where * small.size), small.size - 1)]] = True
        clear(all_kept, found, dropped)
    return kept


def operate(
    x: Bool[Array, "C I J K"], operation: Array, radius: Array, reach: int, real: Bool[Array, "1 I J K"] | None = None
) -> Bool[Array, "C I J K"]:
    """One of `OPERATIONS`, by its number, by a ball of radius <= reach; what is outside or not real has no influence.

    Erosion is the dilation of what is left.
    """
    opens, closes = operation == OPERATIONS.index("opening"), operation == OPERATIONS.index("closing")
    erodes = opens | (operation == OPERATIONS.index("erosion"))
    once = dilated(x ^ erodes, radius, reach, real) ^ erodes
    return jax.lax.cond(
        opens | closes, lambda: dilated(once ^ closes, radius, reach, real, mirrored=True) ^ closes, lambda: once
    )


def dilated(
    x: Bool[Array, "C I J K"], radius: Array, reach: int, real: Bool[Array, "1 I J K"] | None, *, mirrored: bool = False
) -> Bool[Array, "C I J K"]:
    """Where a ball of m + 1 voxels across, m = floor(2 radius), holds a voxel of x.

    It holds the offsets d with |2 d - m % 2| <= m, for an odd m about a point half a voxel up; mirrored, half a voxel
    down. Exact: the least square is found along one axis after the other.
    """
    x = x if real is None else x & real
    across = jnp.floor(2 * jax.lax.stop_gradient(radius)).astype(jnp.int16)
    shift = across % 2 * (-1 if mirrored else 1)
    square = jnp.where(x, 0, FAR).astype(jnp.int16)
    for axis in (1, 2, 3):
        padded = jnp.pad(square, [(reach, reach) if a == axis else (0, 0) for a in range(4)], constant_values=FAR)
        shifted = (
            jax.lax.slice_in_dim(padded, reach + d, reach + d + x.shape[axis], axis=axis) + (2 * d - shift) ** 2
            for d in range(-reach, reach + 1)
        )
        square = reduce(jnp.minimum, shifted)
    return square <= across**2
