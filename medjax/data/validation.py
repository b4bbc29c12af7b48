"""What is wrong with subjects, or with what a pipeline makes of them."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np

from medjax import geometry
from medjax.data.dataset import SubjectsDataset
from medjax.data.progress import progress as shown_progress
from medjax.geometry import Grid
from medjax.image import Image
from medjax.io.affines import ONE_GRID
from medjax.subject import Subject
from medjax.typing import Key

SHOWN = 5
"""As many labels that should not be there are named."""


class Finding(NamedTuple):
    """subject: as errors call it.  image: its name, or None.  what: is wrong."""

    subject: str
    image: str | None
    what: str


def validate(
    dataset: SubjectsDataset, *, key: Key | None = None, values: Collection[int] | None = None, progress: bool = True
) -> list[Finding]:
    """Look at every subject as the data set gives it: read, and transformed if it has a transform.

    Found are: errors; NaN and infinite voxels; images of one value; images of one subject of different shapes, or on
    grids whose corners lie more than a twentieth of a voxel apart; labels that are no whole numbers from 0 on, or not
    among `values`. key: for a transform that draws, the same for each subject.
    """
    found = []
    with shown_progress("validating", len(dataset), progress) as advance:
        for index in range(len(dataset)):
            name = dataset.describe(index)
            try:
                found += [Finding(name, image, what) for image, what in problems(dataset.get(index, key), values)]
            except Exception as error:
                found.append(Finding(name, None, str(error).removeprefix(f"{name}: ")))
            advance()
    return found


def problems(subject: Subject, values: Collection[int] | None) -> Iterator[tuple[str | None, str]]:
    """What is wrong with a subject, with the name of the image."""
    for name, image in subject.images.items():
        yield from ((name, what) for what in of_image(image, values))
    shapes = {name: image.spatial_shape for name, image in subject.images.items()}
    if len(set(shapes.values())) > 1:
        yield None, "shapes differ: " + ", ".join(f"{n} {' x '.join(map(str, shape))}" for n, shape in shapes.items())
    elif shapes:
        grids = {n: Grid(np.asarray(i.affine, np.float64), i.spatial_shape) for n, i in subject.images.items()}
        first = next(iter(grids))
        for name, grid in grids.items():
            if np.max(geometry.corners_apart(grids[first], grid)) > ONE_GRID:
                yield name, f"lies on another grid than {first}"


def of_image(image: Image, values: Collection[int] | None) -> Iterator[str]:
    """What is wrong with an image."""
    voxels = image.numpy()
    nan, infinite = int(np.isnan(voxels).sum()), int(np.isinf(voxels).sum())
    if nan:
        yield f"{nan} voxels are NaN"
    if infinite:
        yield f"{infinite} voxels are infinite"
    if nan or infinite:
        return
    if not image.is_label:
        if voxels.min() == voxels.max():
            yield f"all voxels are {voxels.flat[0]:g}"
        return
    labels = np.unique(voxels)
    wrong = [value for value in labels.tolist() if value < 0 or value != int(value) or value not in (values or labels)]
    if wrong:
        shown = ", ".join(f"{value:g}" for value in wrong[:SHOWN]) + (", ..." if len(wrong) > SHOWN else "")
        yield f"labels {shown} should not be there"
