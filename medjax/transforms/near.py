"""Subjects far from the world's origin, brought near it for as long as a program runs.

A program computes with float32 affines, which hold a position to 1e-7 of its distance from the origin: of stage
coordinates, of a metre in steps of micrometres, half a voxel is lost. What transforms do does not depend on where the
origin is, so the host moves it, in float64, to the middle of the reference grid, and afterwards back. Near the origin
nothing is done, so that a program of the user's own, to which affines come as they are, gives the same bits.
"""

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from medjax import geometry
from medjax.annotations import Points
from medjax.geometry import Space
from medjax.subject import Subject
from medjax.transforms.place import is_spatial
from medjax.transforms.program import flatten

if TYPE_CHECKING:  # transforms are called through this
    from medjax.transforms.transform import Transform

T = TypeVar("T", bound="Transform")
FAR = 2**12
"""From how many voxels on a distance costs precision: 1e-7 of it is more than the rounding of the maps themselves."""
Offset = Float[np.ndarray, "*B 3"] | None
"""How far, mm, a subject was moved, or each of a batch."""


def brought_near(t: T, subject: Subject) -> tuple[T, Subject, Offset]:
    """A pipeline and a subject, or batch, with the world's origin in the middle of the first image, and how far it was.

    A grid that the pipeline goes to is its middle instead, for all of a batch. None if nothing is far or moves, or if a
    member depends on where the origin is.
    """
    transforms = [step.transform for step in flatten(t)]
    if not any(map(is_spatial, transforms)) or any(inner.absolute for inner in transforms):
        return t, subject, None
    first = next(iter(subject.images.values()))
    affine = np.asarray(first.affine, np.float64)
    shape = np.asarray(first.size)
    spaces = [leaf for leaf in jax.tree.leaves(t, is_leaf=is_space) if is_space(leaf)]
    if spaces:
        offset = middle(np.asarray(spaces[0].affine, np.float64), spaces[0].shape)
        offset = np.broadcast_to(offset, (*affine.shape[:-2], 3))
    else:
        offset = middle(affine, shape)
    far = np.any(np.abs(offset).max(-1) > FAR * geometry.spacing(affine).min(-1))
    if not far:
        return t, subject, None
    moved = jax.tree.map(
        lambda leaf: leaf.moved(-offset.reshape(-1, 3)[0]) if is_space(leaf) else leaf, t, is_leaf=is_space
    )
    return moved, shifted(subject, -offset), offset


def taken_back(subject: Subject, offset: Offset) -> Subject:
    """A subject, or batch, where it was before it was brought near."""
    return subject if offset is None else shifted(subject, offset)


def shifted(subject: Subject, offset: Float[np.ndarray, "*B 3"]) -> Subject:
    """A subject, or batch, moved in the world: its grids and points; directions stay."""
    by = np.zeros((*offset.shape[:-1], 4, 4))
    by[..., :3, 3] = offset
    images = {n: image.replace(affine=np.asarray(image.affine, np.float64) + by) for n, image in subject.images.items()}
    points = {
        name: item.replace(xyz=(np.asarray(item.xyz, np.float64) + offset[..., None, :]).astype(np.float32))
        for name, item in subject.annotations.items()
        if isinstance(item, Points)
    }
    return subject.replace(**images, **points)


def middle(affine: Float[np.ndarray, "*B 4 4"], shape: Any) -> Float[np.ndarray, "*B 3"]:
    """World positions of the middle of grids, mm."""
    half = (np.asarray(shape, np.float64) - 1) / 2
    return (affine[..., :3, :3] * half[..., None, :]).sum(-1) + affine[..., :3, 3]


def is_space(value: Any) -> bool:
    """Whether part of a transform is a grid in the world."""
    return isinstance(value, Space)
