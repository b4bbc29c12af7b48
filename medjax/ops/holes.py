"""Holes of labels, found on the host by connected components."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from medjax.ops.morphology import CONNECTIVITIES, Labels, labeller

Box = tuple[slice, ...]


def filled(x: Labels, size: Int[Array, "3"], labels: Sequence[int] | None, connectivity: int) -> Labels:
    """The labels, or all but 0 of them, with the background in their holes as they are; see `FillHoles`.

    size: how many voxels of each axis are real. A callback: no gradient, no export, under `vmap` one after the other.
    """
    x = jax.lax.stop_gradient(x)
    run = partial(filled_on_host, CONNECTIVITIES[connectivity], labels)
    return jax.pure_callback(run, jax.ShapeDtypeStruct(x.shape, x.dtype), x, size, vmap_method="sequential")


def filled_on_host(neighbours: int, labels: Sequence[int] | None, x: Any, size: Any) -> np.ndarray:
    """`filled` of an array on the host."""
    result = np.array(x)
    real = result[(slice(None), *(slice(int(n)) for n in np.asarray(size)))]
    for channel in real:
        known = np.unique(channel[channel != 0])
        # Of the hole that each voxel is in, so far; of holes one within the other the innermost is the smallest.
        smallest = np.where(channel == 0, channel.size + 1, 0)
        for label in known if labels is None else known[np.isin(known, labels)]:
            box, sizes = hole_sizes(channel == label, neighbours)
            within = sizes < smallest[box]
            smallest[box][within], channel[box][within] = sizes[within], label
    return result


def hole_sizes(mask: np.ndarray, neighbours: int) -> tuple[Box, np.ndarray]:
    """How large the hole is that each voxel of a box is in, beyond which a mask (I, J, K) has none.

    More than a volume holds where there is no hole.
    """
    box = box_of(mask)
    found, count = labeller().connected_components(~mask[box], connectivity=neighbours, return_N=True)
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    sizes[0] = mask.size + 1
    for axis in (axis for axis in range(3) if mask.shape[axis] > 1):
        sizes[np.take(found, (0, -1), axis)] = mask.size + 1  # it reaches the border, or leads there
    return box, sizes[found]


def box_of(mask: np.ndarray) -> Box:
    """The smallest box that holds a mask (I, J, K)."""
    along = (np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3))
    return tuple(slice(int(index[0]), int(index[-1]) + 1) for index in along)
