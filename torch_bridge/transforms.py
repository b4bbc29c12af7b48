"""Every transform of medjax under its own name, for images, subjects and batches of tensors.

Each is a subclass of medjax's, made from its registry: fields, repr, isinstance, configuration and membership in a
Compose are inherited. The one mixin changes what goes in and out, where the key comes from, and who computes.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medjax as mj
from medjax.transforms.transform import REGISTRY
from torch_bridge import users
from torch_bridge.arguments import BASE, ArgumentError
from torch_bridge.bridge import Bridge
from torch_bridge.files import TENSORS
from torch_bridge.image import Image
from torch_bridge.masks import MaskFunction
from torch_bridge.painting import Asked, as_pair, check_lengths, paint
from torch_bridge.steps import TorchStep
from torch_bridge.subject import Subject
from torch_bridge.voxels import checked_affine

HINTS = {
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
OVERRIDDEN = (
    "Compose",
    "HistogramStandardization",
    "LabelsToImage",
    "OneHot",
    "PCA",
    "RandomLabelsToImage",
    "Resample",
)
"""Transforms that have more of TorchIO's than `adapted` gives them."""
INVERSES: dict[str, Callable[..., Any]] = {
    "Crop": lambda t, warn=True: globals()["Pad"](t.cropping),
    "Pad": lambda t, warn=True: globals()["Crop"](t.padding),
    "Transpose": lambda t, warn=True: t,
}
"""What takes a transform back, of those that change shapes."""
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
        "args_names": tuple(parameter.name for parameter in given if parameter.name not in BASE),
        "main_names": tuple(
            p.name for p in given if p.name not in BASE and p.kind is not inspect.Parameter.KEYWORD_ONLY
        ),
        "__qualname__": cls.__name__,
        "__doc__": cls.__doc__,
        "__signature__": inspect.Signature([*given, *accepted]),
    }
    kind = next((theirs for ours, theirs in KINDS.items() if issubclass(cls, ours)), users.Transform)
    if cls.__name__ in INVERSES:
        body |= {"is_invertible": lambda self: True, "inverse": INVERSES[cls.__name__]}
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
FourierTransform, IntensityTransform, Lambda = users.FourierTransform, users.IntensityTransform, users.Lambda
LabelTransform, SpatialTransform, To, Transform = (
    users.LabelTransform, users.SpatialTransform, users.To, users.Transform
)  # fmt: skip


class OneHot(adapted(REGISTRY["OneHot"])):  # pyright: ignore
    """`medjax.OneHot`; num_classes: -1, the default, for one more than the greatest label of each label map."""

    def __init__(self, num_classes: int = -1, **kwargs: Any):
        object.__setattr__(self, "counts", num_classes == -1)
        super().__init__(2 if num_classes == -1 else num_classes, **kwargs)

    @property
    def looks(self) -> bool:
        """Whether it must see the labels."""
        return self.__dict__.get("counts", False)

    def is_invertible(self) -> bool:
        """Whether `inverse()` gives the way back."""
        return True

    def inverse(self, warn: bool = True) -> Any:
        """The number of the first channel with the largest value, as a transform."""
        return Largest(include=self.include, exclude=self.exclude)

    def apply_transform(self, subject: Subject) -> Subject:
        if not self.looks:
            return super().apply_transform(subject)
        for name, image in users.LabelTransform.get_images_dict(self, subject).items():
            subject = OneHot(int(image.data.max()) + 1, include=(name,))(subject)
        return subject


class Largest(users.LabelTransform):
    """The inverse of OneHot: the number of the first channel with the largest value, in the type of the label map."""

    def apply_transform(self, subject: Subject) -> Subject:
        for image in self.get_images(subject):
            image.set_data(image.data.argmax(0, keepdim=True).to(image.data.dtype))
        return subject


class PCA(adapted(REGISTRY["PCA"])):  # pyright: ignore
    """`medjax.PCA`; pca_kwargs: how scikit-learn would look for the components, which here are exact.

    Raises ValueError for an option of scikit-learn's that changes what they are.
    """

    HOW = ("copy", "svd_solver", "tol", "iterated_power", "n_oversamples", "power_iteration_normalizer", "random_state")

    def __init__(self, num_components: int = 3, *, pca_kwargs: Mapping[str, Any] | None = None, **kwargs: Any):
        for name in pca_kwargs or ():
            if name not in self.HOW:
                raise ArgumentError(f"pca_kwargs may hold {', '.join(self.HOW)}, got {name!r}")
        super().__init__(num_components, **kwargs)


class Resample(adapted(REGISTRY["Resample"])):  # pyright: ignore
    """`medjax.Resample`; pre_affine_name: a matrix (4, 4) among the metadata of images, before their affine.

    With one it is a step in torch. Raises ValueError if no image has it, or for one of another shape.
    """

    def __init__(
        self, target: Any = 1, image_interpolation: str = "linear", label_interpolation: str = "nearest",
        pre_affine_name: str | None = None, *args: Any, **kwargs: Any,
    ):  # fmt: skip
        object.__setattr__(self, "before", pre_affine_name)
        super().__init__(target, image_interpolation, label_interpolation, None, *args, **kwargs)

    @property
    def looks(self) -> bool:
        """Whether it must see the metadata."""
        return self.__dict__.get("before") is not None

    def apply_transform(self, subject: Subject) -> Subject:
        if self.looks:
            having = [image for image in self.get_images(subject) if self.before in image]
            if not having:
                raise ArgumentError(f"pre_affine_name={self.before!r} is in the metadata of no image")
            for image in having:
                image.affine = checked_affine(image[self.before]) @ image.affine
        return super().apply_transform(subject)


class HistogramStandardization(adapted(REGISTRY["HistogramStandardization"])):  # pyright: ignore
    """`medjax.HistogramStandardization`; landmarks may be a file that `torch.save` wrote of a dictionary.

    include, exclude: which of the images that a dictionary names.
    """

    def __init__(self, landmarks: Any, *args: Any, **kwargs: Any):
        if isinstance(landmarks, str | Path) and Path(landmarks).suffix in TENSORS:
            landmarks = torch.load(landmarks, weights_only=False)
        if isinstance(landmarks, Mapping) and set(landmarks) != {"landmarks", "percentiles"}:
            include, exclude = kwargs.pop("include", None) or tuple(landmarks), kwargs.pop("exclude", None) or ()
            chosen = {name: value for name, value in landmarks.items() if name in include and name not in exclude}
            landmarks = {n: np.asarray(v) if isinstance(v, torch.Tensor) else v for n, v in chosen.items()}
        super().__init__(landmarks, *args, **kwargs)

    @property
    def landmarks_dict(self) -> dict[str, np.ndarray]:
        """The landmarks by the name of the image."""
        return {name: np.asarray(found) for name, found in zip(self.include or (), self.landmarks, strict=True)}

    @staticmethod
    def train(
        images_paths: Sequence[Any], cutoff: tuple[float, float] | None = None, mask_path: Any = None,
        masking_function: Callable[[Any], Any] | None = None, output_path: str | Path | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """`medjax.HistogramStandardization.train`, for images and subjects of torch_bridge too.

        mask_path: the label map of all images, or one for each.  masking_function: gives a mask for a tensor.
        output_path: a .txt holds the landmarks as text.  Raises ValueError for another number of masks than of images.
        """
        items = [item.as_medjax() if isinstance(item, Image | Subject) else item for item in images_paths]
        if mask_path is not None:
            masks = len(items) * [mask_path] if isinstance(mask_path, str | Path) else list(mask_path)
            if len(masks) != len(items):
                raise ValueError(f"mask_path must hold one mask for each of {len(items)} images, got {len(masks)}")
            pairs = zip(items, masks, strict=True)
            items = [mj.Subject(image=mj.ScalarImage(item), mask=mj.LabelMap(mask)) for item, mask in pairs]
            options["masking_method"] = "mask"
        elif masking_function is not None:
            options["masking_method"] = MaskFunction(masking_function)
        path = None if output_path is None else Path(output_path)
        as_text = path is not None and path.suffix == ".txt"
        found = mj.HistogramStandardization.train(
            items, cutoff=cutoff, output_path=None if as_text else path, **options
        )
        if path is not None and as_text:
            np.savetxt(path, np.asarray(found))
        return found


train_histogram = HistogramStandardization.train


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
def painter_of(**arguments: Any) -> Any:
    """medjax's `RandomLabelsToImage` of these arguments, the same one each time: its program is found again."""
    return bridged(mj.RandomLabelsToImage(**arguments))


class Painter:
    """Abstract. Before an adapted transform: it looks at the label map for what TorchIO's arguments leave open."""

    asked: Asked | None = None
    """None for a transform of medjax that was brought here, which leaves nothing open."""
    image_key: str

    @property
    def looks(self) -> bool:
        """Whether it was given TorchIO's arguments."""
        return self.asked is not None

    def options(self) -> dict[str, Any]:
        """What medjax's transform is given beside labels, means and stds."""
        raise NotImplementedError(f"{type(self).__name__} must define options")

    def apply_transform(self: Any, subject: Subject) -> Subject:
        if self.asked is None:
            return super().apply_transform(subject)  # pyright: ignore
        return paint(subject, self.asked, self.image_key, partial(painter_of, **self.options()))


class RandomLabelsToImage(Painter, adapted(REGISTRY["RandomLabelsToImage"])):  # pyright: ignore
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
        check_lengths(used_labels, mean, std)
        default_mean = 2 * (default_mean,) if isinstance(default_mean, int | float) else default_mean
        labels = (0,) if used_labels is None else used_labels
        super().__init__(
            label_key or "label", labels, image_key, default_mean=default_mean, default_std=default_std,  # pyright: ignore[reportCallIssue]
            ignore_background=ignore_background, **kwargs,
        )  # fmt: skip
        object.__setattr__(self, "asked", Asked(label_key, used_labels, mean, std, discretize))

    def options(self) -> dict[str, Any]:
        drawn_from = {name: as_pair(getattr(self, name)) for name in ("default_mean", "default_std")}
        return {**drawn_from, "ignore_background": self.ignore_background}


class LabelsToImage(Painter, adapted(REGISTRY["LabelsToImage"])):  # pyright: ignore
    """`medjax.LabelsToImage` with TorchIO's arguments, which look at the label map: a step in torch.

    mean, std: one number for each label that is there, or for each of used_labels.  used_labels: None for all that are
    there.  seed: of the noise; None for another one in each call.  The rest as in `RandomLabelsToImage`.
    Raises RuntimeError for a mean or std that does not have as many, TypeError for a label_key that is no label map.
    """

    def __init__(
        self, label_key: str, mean: Sequence[float], std: Sequence[float], image_key: str = "image_from_labels",
        used_labels: Sequence[int] | None = None, ignore_background: bool = False, discretize: bool = False, *,
        seed: int | None = None, **kwargs: Any,
    ):  # fmt: skip
        check_lengths(None, mean, std)
        shown = tuple(range(len(mean)))
        super().__init__(label_key, mean, std, image_key, shown, seed or 0, **kwargs)  # pyright: ignore[reportCallIssue]
        object.__setattr__(self, "asked", Asked(label_key, used_labels, mean, std, discretize, seed))
        object.__setattr__(self, "ignore_background", ignore_background)

    def options(self) -> dict[str, Any]:
        return {"ignore_background": self.ignore_background}


def build_image_from_reference(tensor: torch.Tensor, reference: Image) -> Image:
    """A tensor (C, I, J, K) as an image of the kind of `reference`, in its field of view."""
    made = mj.ToReferenceSpace.from_tensor(np.empty((1, *tensor.shape[-3:])), reference.as_medjax())
    return type(reference)(tensor=tensor, affine=made.affine)


globals()["ToReferenceSpace"].from_tensor = staticmethod(build_image_from_reference)
