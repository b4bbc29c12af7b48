"""The shapes to which the images of a batch are padded, where they differ: as few as can be, for each is a program."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from medjax.subject import Subject
from medjax.transforms import buckets
from medjax.typing import Shape3

Shapes: TypeAlias = dict[str, tuple[int, ...] | None]
"""Shapes (C, I, J, K) of a subject's images, by name; None where only voxels tell."""
Padding: TypeAlias = dict[str, Shape3 | None]
"""The largest shape (I, J, K) of images whose shape varies, by name; None where it is not known without reading."""


def largest_shapes(names: Iterable[str], found: Sequence[Shapes]) -> Padding:
    """The largest shape of each image whose shape varies over the subjects of a data set."""
    padding: Padding = {}
    for name in names:
        known = {shape and shape[1:] for shapes in found for key, shape in shapes.items() if key == name}
        if None in known or not known:  # not known: the head of the pipeline has made it
            padding[name] = None
        elif len(known) > 1:
            i, j, k = (max(sizes) for sizes in zip(*known, strict=True))
            padding[name] = (i, j, k)
    return padding


def with_zeros(found: Sequence[Shapes]) -> list[Shapes]:
    """The shapes of the images of subjects, and of zeros that take the grid of a subject's first (`present.zeros`)."""

    firsts = [next(iter(shapes.values()), None) for shapes in found]
    each = [(name, shape, first) for shapes, first in zip(found, firsts, strict=True) for name, shape in shapes.items()]
    alike = {name for name, shape, first in each if (shape and shape[1:]) == (first and first[1:])}
    return [dict.fromkeys(alike, first) | shapes for shapes, first in zip(found, firsts, strict=True)]


def padded_shapes(padding: Padding, subjects: Sequence[Subject]) -> dict[str, Shape3]:
    """The shape that each image which needs it is padded to, for the subjects of a batch.

    The largest of the data set, so that there is one program, unless that is more than twice what this batch needs in
    its bucket.
    """
    shapes = {}
    for name, most in padding.items():
        found = [subject.images[name].spatial_shape for subject in subjects if name in subject.images]
        if not found:
            continue
        need = buckets.bucket(tuple(max(sizes) for sizes in zip(*found, strict=True)))
        if most is not None:
            need = tuple(min(n, m) for n, m in zip(need, most, strict=True))
            need = most if 2 * np.prod(need) >= np.prod(most) else need
        shapes[name] = need
    return shapes
