"""Which images each subject of a batch has, and zeros in place of those that it lacks."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from medjax.image import Image
from medjax.typing import Coin

PRESENT = "present"


class Present(Mapping[str, Any]):
    """For each image by name whether a subject has it: bool (), or (B,) in a batch; an immutable pytree of leaves."""

    __slots__ = ("_flags",)
    _flags: dict[str, Coin]

    def __init__(self, flags: Mapping[str, Coin]):
        self._flags = dict(flags)

    def __getitem__(self, name: str) -> Coin:
        return self._flags[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._flags)

    def __len__(self) -> int:
        return len(self._flags)

    def __repr__(self) -> str:
        return f"Present({self._flags})"

    def element(self, i: int) -> "Present":
        """That of element i of a batch."""
        return Present({name: flag[i] for name, flag in self.items()})

    def absent(self) -> set[str]:
        """The names of what a subject lacks; on the host."""
        return {name for name, flag in self.items() if not flag}


def flatten_with_keys(present: Present) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Flags with their names, and the names."""
    return tuple((jax.tree_util.DictKey(name), flag) for name, flag in present.items()), tuple(present)


jax.tree_util.register_pytree_with_keys(
    Present,
    flatten_with_keys,
    lambda names, flags: Present(dict(zip(names, flags, strict=True))),
    lambda present: (tuple(present.values()), tuple(present)),
)


def filled(
    subjects: Sequence[Mapping[str, Image]], padded: Collection[str], known: Mapping[str, Image]
) -> list[dict[str, Image]]:
    """The images of subjects, with zeros for those that others have, in the order of the subject that has most.

    padded: names of images whose shapes may differ.  known: images that all are to have beside, in their order.
    """
    by_count = sorted(subjects, key=lambda images: -len(images))
    names = dict.fromkeys(name for images in (known, *by_count) for name in images)
    subjects = [{name: images[name] for name in names if name in images} for images in subjects]
    donors = {name: next(images for images in (*subjects, known) if name in images) for name in names}
    return [
        {name: images[name] if name in images else zeros(name, donors[name], images, name in padded) for name in names}
        for images in subjects
    ]


def zeros(name: str, donor: Mapping[str, Image], images: Mapping[str, Image], padded: bool) -> Image:
    """An image of zeros of the type and channels of a donor's.

    On the grid of the first of the subject's own images, if that is of the donor's shape, or, where shapes differ, if
    the donor's image is of the shape of its first: then images of one subject share a grid. Else on the donor's.
    """
    like = donor[name]
    own, other = (next(iter(found.values()), like) for found in (images, donor))
    alike = other if padded else own
    grid = own if like.spatial_shape == alike.spatial_shape else like
    data = np.zeros((like.shape[0], *grid.spatial_shape), like.dtype)
    return type(like).of(data, grid.affine, grid.extent)
