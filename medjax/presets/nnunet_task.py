"""What both of nnU-Net's augmentations share: where the patch is, and what becomes of its label maps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.arguments import entries, flag, label_value, label_values, maybe, real, sizes, some_labels, text
from medjax.errors import shown
from medjax.transforms.choice import LastElements, OneOf
from medjax.transforms.intensity.mask import Mask
from medjax.transforms.label.label_morphology import RandomLabelMorphology
from medjax.transforms.label.regions import Regions, groups
from medjax.transforms.label.remap_labels import RemapLabels
from medjax.transforms.label.remove_components import RandomRemoveComponents
from medjax.transforms.spatial.crop import RandomCrop
from medjax.transforms.spatial.crop_or_pad import CropOrPad
from medjax.transforms.spatial.resize import Resize
from medjax.transforms.transform import Transform, probability
from medjax.typing import Shape3

ANISOTROPIC = 3
"""From which ratio of the longest to the first axis on a patch is augmented in its plane alone."""
GAMMA = ((0.7, 1.0), (1.0, 1.5))
Groups = tuple[tuple[int, ...], ...]


class Task(NamedTuple):
    """The label maps of a training, checked.

    drawn: the groups of labels of which one is drawn for a foreground patch, None for all that is not 0.
    labels: all that are known of, but for 0 and the one to ignore.  outside: the label beyond the volume.
    """

    label: str
    p_foreground: float
    drawn: Groups | None
    labels: tuple[int, ...]
    regions: Groups | None
    ignore_label: int | None
    previous: str | None
    cascade_labels: tuple[int, ...]
    nonzero_mask: bool
    last_elements: bool
    scales: tuple[Any, ...]

    @property
    def outside(self) -> float:
        """The label beyond the volume: -1 marks it for the mask."""
        return -1.0 if self.nonzero_mask else 0.0


def task_of(
    label: str,
    p_foreground: float,
    classes: Sequence[int] | None,
    regions: Sequence[Any] | None,
    ignore_label: int | None,
    previous: str | None,
    cascade_labels: Sequence[int] | None,
    nonzero_mask: bool,
    last_elements: bool,
    deep_supervision: Sequence[Any],
) -> Task:
    """The task that the arguments of a preset describe; raises ValueError for those that lack another."""
    label, previous = text("label", label), maybe(text)("previous", previous)
    nonzero_mask, last_elements = flag("nonzero_mask", nonzero_mask), flag("last_elements", last_elements)
    ignore_label = maybe(label_value)("ignore_label", ignore_label)
    asked = maybe(groups)("regions", regions)
    drawn = asked if classes is None else tuple((c,) for c in label_values("classes", classes))
    labels = tuple(sorted({n for group in (*(drawn or ()), *(asked or ())) for n in group if n > 0}))
    needs = {"ignore_label": ignore_label is not None, "nonzero_mask": nonzero_mask}
    for name in [name for name, given in needs.items() if given and not labels]:
        raise ValueError(f"{name} needs to know all labels: give classes or regions")
    if ignore_label is not None and ignore_label in labels:
        raise ValueError(f"ignore_label={ignore_label} is among the classes or regions: leave it out of them")
    cascade = labels if cascade_labels is None else some_labels("cascade_labels", cascade_labels)
    if previous is not None and not cascade:
        raise ValueError("previous needs cascade_labels, the foreground labels, or classes or regions")
    return Task(
        label, probability("p_foreground", p_foreground), drawn, labels, asked, ignore_label, previous, cascade,
        nonzero_mask, last_elements, scales_of("deep_supervision", deep_supervision),
    )  # fmt: skip


def scales_of(name: str, value: Any) -> tuple[Any, ...]:
    """Scales (3,), each above 0 and at most 1, from numbers and triples."""
    found = entries(value)
    if found is None:
        raise TypeError(f"{name} must be a sequence of scales, numbers or triples in (0, 1], got {shown(value)}")
    for scale in found:
        if np.any(real(low=0.0, high=1.0, shape=(3,))(name, scale) == 0):
            raise ValueError(f"{name} must hold scales in (0, 1], got {shown(value)}")
    return tuple(np.broadcast_to(np.asarray(scale, np.float64), 3) for scale in found)


def planar(patch_size: Any) -> tuple[Shape3, bool]:
    """The shape of a patch, and whether it is augmented in the plane of its last two axes alone."""
    size = sizes("patch_size", patch_size)
    return size, max(size) > ANISOTROPIC * size[0]


def padded(size: Shape3, task: Task) -> CropOrPad:
    """Volumes at least as large as a patch."""
    return CropOrPad(size, only_pad=True, padding_label=task.outside)


def patch(size: Shape3, task: Task) -> list[Transform]:
    """The crops to a patch, of which one is drawn; the last step gives a shape that all of them have.

    With a label to ignore all patches are centred on a voxel that has another.
    """
    crops = [RandomCrop(size, label_name=task.label, labels=group) for group in task.drawn or (None,)]
    anywhere = RandomCrop(size)
    if task.ignore_label is not None:
        anywhere = RandomCrop(size, label_name=task.label, labels=(-1, 0, *task.labels))
    if task.last_elements:
        chosen = LastElements([OneOf(crops), anywhere], fraction=task.p_foreground)
    else:
        weights = [*(task.p_foreground / len(crops) for _ in crops), 1 - task.p_foreground]
        chosen = OneOf([*crops, anywhere], weights=weights)
    return [chosen, CropOrPad(size, padding_label=task.outside)]


def targets(size: Shape3, task: Task) -> list[Transform]:
    """Image outside of the mask and label -1 to 0; then the previous stage, deep supervision and regions."""
    steps: list[Transform] = []
    if task.nonzero_mask:
        ignored = [] if task.ignore_label is None else [task.ignore_label]
        steps.append(Mask(task.label, labels=(0, *task.labels, *ignored)))
    steps.append(RemapLabels({-1: 0}, include=[task.label, *([task.previous] if task.previous else [])]))
    if task.previous:
        steps += cascade(task.cascade_labels, task.previous)
    supervised, maps = deep_supervision(size, task)
    steps += supervised
    if task.regions:
        ignored = [] if task.ignore_label is None else [(task.ignore_label,)]
        steps.append(Regions((*task.regions, *ignored), include=maps))
    return steps


def cascade(labels: tuple[int, ...], previous: str) -> list[Transform]:
    """The previous stage's prediction with errors of its own, one channel a label."""
    include = (previous,)
    return [
        RandomLabelMorphology(labels, radius=(1.0, 8.0), p=0.4, include=include),
        RandomRemoveComponents(labels, max_fraction=0.15, p=0.2, include=include),
        Regions(labels, include=include),
    ]


def deep_supervision(size: Shape3, task: Task) -> tuple[list[Transform], list[str]]:
    """The smaller label maps, and the names of all."""
    steps: list[Transform] = []
    maps = [task.label]
    for index, scale in enumerate(task.scales):
        shape = tuple(max(1, round(n * f)) for n, f in zip(size, scale, strict=True))
        if shape != size:
            name = f"{task.label}_{index}"
            steps += [RemapLabels({}, include=(task.label,), keep={task.label: name}), Resize(shape, include=(name,))]
            maps.append(name)
    return steps, maps
