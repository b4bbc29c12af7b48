"""Pictures of subjects, batches and transforms; how a slice is drawn says `pictures.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.image import ScalarImage
from medjax.pictures import draw, figure, plot_images
from medjax.subject import Subject, unstack
from medjax.transforms.transform import Transform
from medjax.typing import Key


def plot_subject(subject: Subject, *, size: float = 2.5) -> Any:
    """The three middle slices of every image, a row an image; returns a matplotlib Figure.

    size: inches of a slice.
    Raises ImportError without the `plot` extra.
    """
    return plot_images(subject.images, size=size)


def plot_batch(batch: Subject, *, plane: str = "axial", size: float = 2.5) -> Any:
    """One slice of every image of every element of a batch, a row an image; returns a matplotlib Figure."""
    subjects = unstack(batch)
    made, axes = figure(len(batch.images), len(subjects), size)
    for row, name in zip(axes, batch.images, strict=True):
        for i, (ax, subject) in enumerate(zip(row, subjects, strict=True)):
            draw(ax, subject.images, name, plane, f"{name} {i}")
    return made


def plot_transforms(
    subject: Subject,
    transforms: Mapping[str, Transform] | Sequence[Transform],
    key: Key,
    *,
    plane: str = "axial",
    columns: int = 4,
    size: float = 2.5,
) -> Any:
    """The first scalar image as it is and after each transform, all with one key; returns a matplotlib Figure."""
    if not isinstance(transforms, Mapping):
        transforms = {type(t).__name__: t for t in transforms}
    name = next(name for name, image in subject.images.items() if isinstance(image, ScalarImage))
    made, axes = figure(-(-(len(transforms) + 1) // columns), columns, size)
    draw(axes[0, 0], subject.images, name, plane, "as it is")
    for ax, (title, t) in zip(axes.ravel()[1:], transforms.items(), strict=False):
        draw(ax, t(subject, key).images, name, plane, title)
    return made
