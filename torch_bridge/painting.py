"""Images that are made of label maps by TorchIO's arguments: which labels there are is seen in each label map."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from torch_bridge.arguments import ArgumentError
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.subject import Subject


class Asked(NamedTuple):
    """What is asked for before a label map is seen: None for its first one, for all its labels, for the defaults.

    discretize: of shares, each voxel gets the label of the largest.  seed: of the noise, None to draw one.
    """

    label_key: str | None
    used_labels: Sequence[int] | None
    mean: Sequence[Any] | None
    std: Sequence[Any] | None
    discretize: bool
    seed: int | None = None


def paint(subject: Subject, asked: Asked, image_key: str, painter: Callable[..., Any]) -> Subject:
    """The subject with the image `image_key`, float32, which stays as it was where no label is that is used.

    painter: a transform of medjax's arguments `label_key`, `used_labels`, `image_key`, and `mean` and `std` if asked.
    Raises RuntimeError without a label map, or for means and stds that are not one for each label.
    """
    image = label_map_of(subject, asked.label_key)
    data, labels = classes_of(image.data, asked.discretize)
    chosen = [label for label in labels if asked.used_labels is None or label in asked.used_labels]
    given = {name: value for name, value in {"mean": asked.mean, "std": asked.std}.items() if value is not None}
    given = {name: for_labels(name, value, labels, asked.used_labels, chosen) for name, value in given.items()}
    new = torch.zeros((1, *image.spatial_shape), device=data.device)
    if chosen:
        painted = painter(label_key="label", used_labels=tuple(chosen), image_key="image", **given)
        new = painted(Subject(label=image.like(data)), asked.seed)["image"].data
    if image_key in subject:
        used = torch.tensor(chosen, dtype=torch.long, device=data.device)
        inside = torch.isin(data, used) if len(data) == 1 else data[used].sum(0, keepdim=True) >= 0.5
        new = torch.where(inside, new, subject[image_key].data.float())
    subject[image_key] = ScalarImage(tensor=new, affine=image.affine)
    return subject


def label_map_of(subject: Subject, label_key: str | None) -> Image:
    """The label map of this name, or the first one; raises RuntimeError if there is none."""
    maps = [name for name, image in subject.items() if isinstance(image, LabelMap)]
    if label_key is None and not maps:
        raise ArgumentError(f"an image is made of a label map, and the subject has {', '.join(subject)}")
    return subject.get_label_map(label_key or maps[0])


def classes_of(data: torch.Tensor, discretize: bool) -> tuple[torch.Tensor, list[int]]:
    """A label map (1, I, J, K), or shares (C, I, J, K) of two labels or more, and its labels; below 0 is none."""
    is_map = len(data) == 1 and bool(data.eq(data.round() if data.is_floating_point() else data).all())
    if not is_map and not discretize:
        labels = list(range(len(data)))
        return torch.cat([data, torch.zeros_like(data)]) if len(data) == 1 else data, labels  # one would be a map
    if not is_map:
        most, data = data.max(0, keepdim=True)
        data[most == 0] = -1
    return data, [int(label) for label in data.unique().tolist() if label >= 0]


def for_labels(
    name: str, values: Sequence[Any], labels: Sequence[int], used: Sequence[int] | None, chosen: Sequence[int]
) -> tuple[Any, ...]:
    """The values of the labels that are chosen, of one for each label that is there, or for each that is used."""
    each = labels if len(values) == len(labels) else list(used or ())
    if len(values) != len(each) or not each:
        raise ArgumentError(f"{name} must hold one number or pair for each label, {labels}, got {values!r}")
    known = dict(zip(each, map(as_pair, values), strict=True))
    return tuple(known[label] for label in chosen)


def check_lengths(used_labels: Any, mean: Any, std: Any) -> None:
    """Raise an ArgumentError unless each is None or a sequence of numbers or pairs, of as many as the others."""
    given = {"used_labels": used_labels, "mean": mean, "std": std}
    for name, value in given.items():
        if value is not None and (isinstance(value, str) or not hasattr(value, "__len__")):
            raise ArgumentError(f"{name} must be a sequence, one for each label, got {value!r}")
        if name != "used_labels" and not all(
            isinstance(n, int | float) for v in value or () for n in np.ravel(v).tolist()
        ):
            raise ArgumentError(f"{name} must hold numbers or pairs of them, got {value!r}")
    counts = {name: len(value) for name, value in given.items() if value is not None}
    if len(set(counts.values())) > 1:
        raise ArgumentError(f"used_labels, mean and std must be of one length, got {counts}")


def as_pair(value: Any) -> tuple[float, float]:
    """A range that can be hashed, of a number or of its two ends."""
    low, high = np.broadcast_to(np.asarray(value, np.float64), 2).tolist()
    return low, high
