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
        background = channel == 0
        known = np.unique(channel[~background])
        chosen = known if labels is None else known[np.isin(known, labels)]
        found = [(*hole, label) for label in chosen for hole in holes_of(channel == label, neighbours)]
        for _, box, hole, label in sorted(found, key=lambda hole: -hole[0]):  # the innermost is the smallest
            channel[box][hole & background[box]] = label
    return result


def holes_of(mask: np.ndarray, neighbours: int) -> list[tuple[int, Box, np.ndarray]]:
    """The holes of a mask (I, J, K) that is somewhere true: how large each is, and its mask in a box of the volume."""
    box = box_of(mask)  # no hole reaches beyond it
    found, count = labeller().connected_components(~mask[box], connectivity=neighbours, return_N=True)
    open_axes = [axis for axis in range(3) if mask.shape[axis] > 1]
    outer = np.unique([n for axis in open_axes for end in (0, -1) for n in np.unique(np.take(found, end, axis))])
    sizes = np.bincount(found.ravel(), minlength=count + 1)
    return [(int(sizes[n]), box, found == n) for n in np.setdiff1d(np.arange(1, count + 1), outer)]


def box_of(mask: np.ndarray) -> Box:
    """The smallest box that holds a mask (I, J, K)."""
    along = (np.flatnonzero(mask.any(tuple(a for a in range(3) if a != axis))) for axis in range(3))
    return tuple(slice(int(index[0]), int(index[-1]) + 1) for index in along)
