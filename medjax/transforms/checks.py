"""What is checked on the host before anything is computed, from names, shapes, dtypes and grids, and after it."""

import warnings
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from medjax.geometry import Grid, check_overlap, check_same_grid
from medjax.image import Image
from medjax.subject import Subject
from medjax.transforms import buckets
from medjax.transforms.place import Measured, Record, Step, Turn, included, is_spatial
from medjax.transforms.program import Places, Run, asked_of, flatten, is_traced, reads, runs_of
from medjax.transforms.read import dtype_after
from medjax.transforms.run import copied
from medjax.transforms.sampling import check_fill
from medjax.typing import wider

if TYPE_CHECKING:  # transforms are called through what is built on this
    from medjax.transforms.transform import Transform


def check_subject(t: "Transform", subject: Subject, names: Collection[str] = ()) -> None:
    """Raise a ValueError for what a subject lacks, or has already, before anything is computed.

    names: of what the user has beside images.
    """
    steps = flatten(t)
    moved = dict.fromkeys(list(subject.images)[:1])
    kinds, taken, made = kinds_of(subject), {*subject, *names}, {}
    given: set[str] = set()
    for name, image in subject.images.items():
        buckets.check_count(image.spatial_shape, f"image {name!r}")
    for step in steps:
        inner = step.transform
        for old, new in inner.copies:
            if new in taken:
                raise ValueError(f"{type(inner).__name__} makes an image {new!r}, a name that the subject has already")
            if made.setdefault(new, old) != old:
                raise ValueError(f"the name {new!r} is given to copies of both {made[new]!r} and {old!r}")
        for name in (*(inner.include or ()), *(inner.exclude or ()), *(old for old, _ in inner.copies)):
            if name not in subject.images and name not in made:
                known = ", ".join(subject.images)
                raise ValueError(f"{type(inner).__name__} names image {name!r}; the subject has {known}")
        subject = subject.replace(**{new: copied(subject[old], inner) for old, new in inner.copies})
        inner.check_subject(subject)
        if is_spatial(inner):
            here = [n for n, image in subject.images.items() if included(inner, n, image.is_label)]
            moved |= dict.fromkeys(here)
            given |= set(here) if inner.relabels else set()
    for run in runs_of(steps):
        check_fills(steps, run, kinds)
        kinds = kinds_after(steps, run, kinds)
    images = {name: subject[name] for name in moved}
    if len(images) > 1 and not is_traced([image.affine for image in images.values()]):
        warn_of_assumed(images, given)
        check_overlap({n: Grid(i.affine, i.size) for n, i in images.items()})


def warn_of_assumed(images: dict[str, Image], given: Collection[str]) -> None:
    """Warn of an image whose affine nobody gave, beside one of the same shape that has another: they will part.

    given: names of the images to which the pipeline itself gives an affine.
    """
    for name, image in images.items():
        for other, beside in images.items() if image.assumed and name not in given else ():
            same = image.spatial_shape == beside.spatial_shape and not beside.assumed and other not in given
            if same and not np.allclose(beside.affine, np.eye(4)):
                warnings.warn(
                    f"{name} was given without an affine, so it lies where the identity puts it, but {other}, of the "
                    f"same shape, has an affine: what moves {other} will not take {name} along. If they are on one "
                    f"grid, give {name} the affine of {other}: replace(affine=subject[{other!r}].affine), or "
                    f"CopyAffine({other!r}) first.",
                    stacklevel=5,
                )
                return


Kinds = dict[str, tuple[np.dtype, bool]]
"""The dtype of each image, and whether it is a label map: what a pipeline makes of them is known from the types."""


def kinds_of(subject: Subject) -> Kinds:
    """The kinds of a subject's images."""
    return {name: (image.dtype, image.is_label) for name, image in subject.images.items()}


def kinds_after(steps: Sequence[Step], run: Run, kinds: Kinds) -> Kinds:
    """The kinds of images after a run of steps, whatever is drawn."""
    first = steps[run[0]].transform
    for old, new in first.copies:
        dtype, label = kinds[old]
        if new in kinds and not steps[run[0]].certain:
            dtype = wider(dtype, kinds[new][0])
        kinds = kinds | {new: (dtype, label and not first.synthesises)}
    after = {}
    for name, (dtype, label) in kinds.items():
        mine = [steps[i] for i in run if included(steps[i].transform, name, label)]
        interpolates = not is_spatial(first) or asked_of(mine)[1]
        after[name] = (dtype_after(dtype, label, interpolates) if mine else dtype, label)
    return after


def check_fills(steps: Sequence[Step], run: Run, kinds: Kinds) -> None:
    """Raise a ValueError for a fill that an image cannot hold in the dtype that it has after a run of steps."""
    if not reads(steps, run):
        return
    for name, (dtype, label) in kinds_after(steps, run, kinds).items():
        asked = asked_of([steps[i] for i in run if included(steps[i].transform, name, label)])[0]
        for fill in (asked.label_fill, asked.label_pad) if label else (asked.fill, asked.pad):
            check_fill(fill, f"{'label map' if label else 'image'} {name!r}", dtype)


def check_step(step: Step, turn: Turn, places: Places) -> None:
    """Raise a ValueError for images that a spatial step, if it is on, cannot transform."""
    t = step.spatial
    if step.certain or turn.on:
        grids = {n: p.grid for n, p in places.items() if included(t, n, p.label) or n == t.beside}
        t.check(grids, turn.located or {})


def check_shapes(places: Places) -> None:
    """Raise a ValueError for results without a voxel, or with more than can be counted."""
    for place in places.values():
        i, j, k = place.grid.shape.tolist()
        if min(i, j, k) < 1:
            raise ValueError(
                f"the result has no voxels: shape {(i, j, k)}; the target spacing is larger than the image"
            )
        buckets.check_count((i, j, k), "the result")


def check_beside(t: "Transform", places: Places) -> None:
    """Raise a ValueError for an image that is not on the grid of the one that is read beside it."""
    for name, place in places.items() if t.beside in places else ():
        if included(t, name, place.label):
            check_same_grid({name: place.grid, t.beside: places[t.beside].grid}, f"{type(t).__name__}({t.beside!r})")


def to_verify(steps: Sequence[Step], record: Record) -> Record:
    """What of a record `verify` asks for."""
    return {i: found for i, found in record.items() if isinstance(found, Measured) and steps[i].voxels.verifies}


def verify(steps: Sequence[Step], record: Record, absent: Collection[str] = ()) -> None:
    """Raise the error of whatever was measured and makes no sense; absent: images that stand for missing ones."""
    for index, found in to_verify(steps, record).items():
        found = jax.device_get(found)
        for name, measured in found.images.items() if found.on else ():
            if name not in absent:
                steps[index].voxels.for_image(name).verify(measured[0], name)
