"""What a subject has for each volume of a series beside its voxels: it is cut where the series is; on the host."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from medjax.annotations import Directions
from medjax.subject import Subject
from medjax.transforms.checks import kinds_after, kinds_of
from medjax.transforms.moves import volumes_of
from medjax.transforms.place import Step, Turn, included, is_spatial

Labels: TypeAlias = dict[str, tuple[Any, ...] | None]
"""The labels of directions, by their names."""


def labels_after(steps: Sequence[Step], subject: Subject, turns: dict[int, Turn], element: int | None = None) -> Labels:
    """The labels of directions after all steps, those of volumes that were cut off a series left out; {} if none cuts.

    turns: of the steps that the host must see.  element: of a batch.
    """
    if all(is_spatial(step.transform) or not step.voxels.cuts for step in steps):
        return {}
    found = {name: item.labels for name, item in subject.annotations.items() if isinstance(item, Directions)}
    labels = {name: own if own is None or element is None else own[element] for name, own in found.items()}
    kinds, counts = kinds_of(subject), {name: image.shape[-4] for name, image in subject.images.items()}
    for index, step in enumerate(steps):
        counts |= {new: counts[old] for old, new in step.transform.copies}
        kinds = kinds_after(steps, (index,), kinds)
        if is_spatial(step.transform):
            continue
        t, mine = step.voxels, [name for name, (_, label) in kinds.items() if included(step.transform, name, label)]
        for name, own in labels.items() if t.cuts else ():
            rows = None if own is None else volumes_of(t, turns[index].draw, counts, len(own))
            labels = labels if rows is None or own is None else labels | {name: tuple(own[row] for row in rows)}
        counts |= {name: t.channels(counts[name]) for name in mine}
    return labels


def with_labels(subject: Subject, labels: Labels) -> Subject:
    """The subject with these labels of its directions."""
    return subject.replace(**{name: subject[name].of(subject[name].xyz, own) for name, own in labels.items()})
