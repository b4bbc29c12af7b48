"""Every transform of medjax under its own name, for images, subjects and batches of tensors.

Each is a subclass of medjax's, made from its registry: fields, repr, isinstance, configuration and membership in a
Compose are inherited. The one mixin changes what goes in and out, where the key comes from, and who computes.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

import medjax as mj
from medjax.transforms.transform import REGISTRY
from torch_bridge import users
from torch_bridge.bridge import Bridge
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.steps import TorchStep
from torch_bridge.subject import Subject

HINTS = {
    "CropForeground": 'CropOrPad(mask_name="label")',
    "DivisiblePad": "EnsureShapeMultiple",
    "Normalize": "RescaleIntensity",
    "NormalizeIntensity": "ZNormalization",
    "Orientation": "ToOrientation",
    "ScaleIntensity": "RescaleIntensity",
    "ScaleIntensityRange": "Window",
    "Spacing": "Resample",
    "SpatialPad": "CropOrPad(only_pad=True)",
    "Standardize": "ZNormalization",
}
"""What TorchIO 2 and MONAI call a transform of medjax."""
OVERRIDDEN = ("Compose", "OneHot", "RandomLabelsToImage")
"""Transforms that have more of TorchIO's than `adapted` gives them."""
KINDS = {
    mj.SpatialTransform: users.SpatialTransform,
    mj.IntensityTransform: users.IntensityTransform,
    mj.LabelTransform: users.LabelTransform,
}
"""TorchIO's class for what medjax says a transform is."""


def adapted(cls: type[mj.Transform]) -> Any:
    """The bridge's class for a transform of medjax; it pickles by its name in this module."""
    given = list(inspect.signature(cls).parameters.values())
    defaults = {"copy": True, "keys": None, "parse_input": True, "label_keys": None}
    accepted = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in defaults.items()]
    body = {
        "__module__": __name__,
        "__qualname__": cls.__name__,
        "__doc__": cls.__doc__,
        "__signature__": inspect.Signature([*given, *accepted]),
    }
    kind = next((theirs for ours, theirs in KINDS.items() if issubclass(cls, ours)), users.Transform)
    drawn = (users.RandomTransform,) if cls.__name__.startswith("Random") else ()
    return type(cls.__name__, (Bridge, cls, *drawn, kind), body)


def bridged(t: mj.Transform) -> Any:
    """A transform of medjax, and the members of one, as the bridge's."""
    if isinstance(t, Bridge | TorchStep | mj.Lambda):
        return t
    made = object.__new__(globals()[type(t).__name__])
    for name, value in vars(t).items():
        whole = isinstance(value, tuple) and value and all(isinstance(v, mj.Transform) for v in value)
        object.__setattr__(made, name, tuple(map(bridged, value)) if whole else value)
    return made


def from_config(config: dict[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """The transform of a dictionary that `to_config` made; `functions` is what names of functions in it stand for."""
    return bridged(mj.from_config(config, functions))


def unknown(module: str, name: str) -> AttributeError:
    """The error of a name that is not there, with the one that does the same or is near."""
    if name in HINTS:
        return AttributeError(f"{module} has no {name!r}; here it is {HINTS[name]}")
    near = difflib.get_close_matches(name, REGISTRY, n=1)
    return AttributeError(f"{module} has no {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name)


globals().update({name: adapted(cls) for name, cls in REGISTRY.items() if name not in ("Lambda", *OVERRIDDEN)})
Lambda = users.Lambda


class OneHot(adapted(REGISTRY["OneHot"])):  # pyright: ignore
    """`medjax.OneHot`; num_classes: -1, the default, for one more than the greatest label of each label map."""

    def __init__(self, num_classes: int = -1, **kwargs: Any):
        object.__setattr__(self, "counts", num_classes == -1)
        super().__init__(2 if num_classes == -1 else num_classes, **kwargs)

    @property
    def looks(self) -> bool:
        """Whether it must see the labels."""
        return self.__dict__.get("counts", False)

    def apply_transform(self, subject: Subject) -> Subject:
        if not self.looks:
            return super().apply_transform(subject)
        for name, image in users.LabelTransform.get_images_dict(self, subject).items():
            subject[name] = OneHot(int(image.data.max()) + 1)(image)
        return subject


class Compose(adapted(REGISTRY["Compose"])):  # pyright: ignore
    """`medjax.Compose`, whose members may be written in torch; a string is the name of a member."""

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            if not self.names:
                raise TypeError(f"this Compose was made of a sequence, whose members have no names, got {item!r}")
            if item not in self.names:
                raise KeyError(f"{item!r} is none of {', '.join(self.names)}")
            item = self.names.index(item)
        found = self.members[item]
        return found.function if isinstance(found, TorchStep) else found


@lru_cache(64)
def labels_to_image(arguments: tuple[tuple[str, Any], ...]) -> Any:
    """medjax's `RandomLabelsToImage` of these arguments, the same one each time: its program is found again."""
    return adapted_labels(**dict(arguments))


adapted_labels = adapted(REGISTRY["RandomLabelsToImage"])


class RandomLabelsToImage(adapted_labels):  # pyright: ignore
    """`medjax.RandomLabelsToImage` with TorchIO's defaults, which look at the label map: a step in torch.

    label_key: None for the first label map.  used_labels: None for all labels that are there.  mean, std: one number or
    pair for each label that is there; None for default_mean and default_std.  image_key: where the subject has this
    image already, it stays outside of used_labels.  discretize: of shares, each voxel gets the label of the largest.
    Raises RuntimeError for a mean or std that does not have as many, TypeError for a label_key that is no label map.
    """

    def __init__(
        self, label_key: str | None = None, used_labels: Sequence[int] | None = None,
        image_key: str = "image_from_labels", mean: Any = None, std: Any = None, default_mean: Any = (0.1, 0.9),
        default_std: Any = (0.01, 0.1), discretize: bool = False, ignore_background: bool = False, **kwargs: Any,
    ):  # fmt: skip
        super().__init__(
            label_key or "label", (0,) if used_labels is None else used_labels, image_key, default_mean=default_mean,
            default_std=default_std, ignore_background=ignore_background, **kwargs,
        )  # fmt: skip
        object.__setattr__(self, "asked", (label_key, used_labels, mean, std, discretize))

    @property
    def looks(self) -> bool:
        """Whether it was given TorchIO's arguments, and is none of medjax's brought here."""
        return "asked" in self.__dict__

    def apply_transform(self, subject: Subject) -> Subject:
        if not self.looks:
            return super().apply_transform(subject)
        label_key, used, mean, std, discretize = self.asked
        maps = [name for name, image in subject.items() if isinstance(image, LabelMap)]
        image = subject.get_label_map((label_key or maps[0]) if label_key or maps else "a label map")
        data = image.data
        if len(data) > 1 and discretize:
            most, data = data.max(0, keepdim=True)
            data[most == 0] = -1
        labels = [v for v in data.unique().tolist() if v >= 0] if len(data) == 1 else list(range(len(data)))
        chosen = [int(v) for v in labels if used is None or v in used]
        given = {"label_key": "label", "used_labels": tuple(chosen), "image_key": "image"}
        for name, value in {"mean": mean, "std": std}.items():
            if value is not None:
                each = labels if len(value) == len(labels) else list(used or ())
                if len(value) != len(each):
                    raise RuntimeError(f"{name} must hold one number or pair for each label, {labels}, got {value!r}")
                known = {label: as_pair(v) for v, label in zip(value, each, strict=True)}
                given[name] = tuple(known[label] for label in chosen)
        for name in ("default_mean", "default_std", "ignore_background"):
            given[name] = as_pair(getattr(self, name)) if name != "ignore_background" else self.ignore_background
        new = image.data.new_zeros((1, *image.spatial_shape), dtype=torch.float32)
        if chosen:
            new = labels_to_image(tuple(given.items()))(Subject(label=image.like(data)))["image"].data
        if self.image_key in subject:
            inside = torch.isin(data, torch.tensor(chosen)) if len(data) == 1 else data[chosen].sum(0, True) >= 0.5
            new = torch.where(inside, new, subject[self.image_key].data.float())
        subject[self.image_key] = ScalarImage(tensor=new, affine=image.affine)
        return subject


def as_pair(value: Any) -> Any:
    """Numbers that can be hashed: one, or two."""
    return tuple(float(v) for v in np.ravel(value)) if np.ndim(value) else float(value)


def train(images_or_paths: Any, *args: Any, **options: Any) -> Any:
    """`medjax.HistogramStandardization.train`, for images and subjects of torch_bridge too."""
    bridge = (Image, Subject)
    items = [item.as_medjax() if isinstance(item, bridge) else item for item in images_or_paths]
    return mj.HistogramStandardization.train(items, *args, **options)


globals()["HistogramStandardization"].train = staticmethod(train)
