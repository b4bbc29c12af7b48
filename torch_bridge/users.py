"""Base classes for transforms of the user's own, written in torch: `apply_transform(subject)` changes and gives it."""

import copy as copying
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_bridge.arguments import hydra_config
from torch_bridge.files import ensure_4d, sitk_to_nib
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.lending import from_torchio
from torch_bridge.masks import Helpers
from torch_bridge.replay import StepRecord, token_for
from torch_bridge.subject import Batch, Subject

NAME = "default_image_name"
"""What the image is called that stands alone."""


class Transform(Helpers):
    """Abstract. A subclass defines `apply_transform(subject)`, in torch; it may change the subject that it is given.

    p: probability that it is applied.  copy: give it a copy, so that the caller's subject stays as it is.
    include, exclude: names of the images that `get_images` gives, or does not.  keep: {image: name} stores what an
    image was before under a new name.  label_keys: which of a dictionary's tensors are label maps.
    keys: include, by its old name.  parse_input: accepted.
    A member of a Compose it is a step in torch between compiled ones; see `steps.py`.
    """

    token: str | None = None
    """Under which the history knows it."""
    of_intensity = False

    def __init__(
        self, p: float = 1, copy: bool = True, include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None, keys: Sequence[str] | None = None, keep: dict[str, str] | None = None,
        parse_input: bool = True, label_keys: Sequence[str] | None = None,
    ):  # fmt: skip
        if type(self).apply_transform is Transform.apply_transform and type(self).__call__ is Transform.__call__:
            raise TypeError(f"{self.name} is abstract: a subclass defines apply_transform(subject)")
        include = renamed_keys(keys, include)
        if include is not None and exclude is not None:
            raise ValueError("give include or exclude, not both")
        for name, value in {"include": include, "exclude": exclude, "label_keys": label_keys}.items():
            if value is not None and (isinstance(value, str) or not isinstance(value, Sequence | set | frozenset)):
                raise ValueError(f"{name} must be a sequence of names, got {value!r}")
        self.p, self.copy, self.keep = self.parse_probability(p), copy, keep
        self.include, self.exclude, self.parse_input, self.label_keys = include, exclude, parse_input, label_keys
        self.args_names: Sequence[str] = ()
        self.token = token_for(self)  # before any fork, so that what a worker records is found again

    def __call__(self, data: Any) -> Any:
        """The transformed subject, or whatever was given: an Image, tensor, array, dictionary, or another's image."""
        if torch.rand(1).item() > self.p:
            return data
        subject, back = parsed(data, self.include, self.label_keys)
        kept = {new: copying.deepcopy(subject[old]) for old, new in dict(self.keep or {}).items()}
        result = self.apply_transform(copying.deepcopy(subject) if self.copy else subject)
        if not isinstance(result, Subject):
            raise TypeError(f"{self.name}.apply_transform must return a Subject, got {type(result).__name__}")
        for name, image in kept.items():
            result.add_image(image, name)
        if self.token is not None and not isinstance(self, RandomTransform):
            result.applied_transforms.append(StepRecord(self.token, self.name))
        return back(result)

    def apply_transform(self, subject: Subject) -> Subject:
        """The transformed subject."""
        raise NotImplementedError(f"{self.name} must define apply_transform")

    def get_images_dict(self, subject: Subject) -> dict[str, Image]:
        """The images that it is for, by name."""
        return subject.get_images_dict(False, self.include, self.exclude)

    def get_images(self, subject: Subject) -> list[Image]:
        """The images that it is for."""
        return list(self.get_images_dict(subject).values())

    def to_hydra_config(self) -> dict[str, Any]:
        """What Hydra makes the transform of again: `_target_` and its arguments."""
        return hydra_config(self)

    def is_invertible(self) -> bool:
        """Whether it has an `invert_transform` that says which way it goes."""
        return hasattr(self, "invert_transform")

    def inverse(self) -> "Transform":
        """The transform the other way; raises RuntimeError if there is none."""
        if not self.is_invertible():
            raise RuntimeError(f"{self.name} is not invertible")
        made: Any = copying.deepcopy(self)
        made.invert_transform = not made.invert_transform
        return made

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self, name)}" for name in getattr(self, "args_names", ()))
        return f"{self.name}({given})"


class SpatialTransform(Transform):
    """Abstract. One that changes where things are, of all images."""


class IntensityTransform(Transform):
    """Abstract. One that changes scalar images."""

    of_intensity = True
    main_names: Sequence[str] = ()
    """Arguments that may be dictionaries by image; empty for all of `args_names`."""

    def get_images_dict(self, subject: Subject) -> dict[str, Image]:
        """The scalar images that it is for, by name."""
        return subject.get_images_dict(True, self.include, self.exclude)

    @staticmethod
    def get_parameter(value: Any, name: str) -> Any:
        """An argument for the image of this name: that of a dictionary by image, or the one for all."""
        return value[name] if isinstance(value, Mapping) else value

    def arguments_are_dict(self) -> bool:
        """Whether its arguments are dictionaries by image; raises ValueError if only some are."""
        found = [isinstance(getattr(self, name), dict) for name in self.main_names or self.args_names]
        if any(found) != all(found):
            raise ValueError("arguments must all be dictionaries by image, or none")
        return any(found)


class LabelTransform(Transform):
    """Abstract. One that changes label maps."""

    def get_images_dict(self, subject: Subject) -> dict[str, Image]:
        """The label maps that it is for, by name."""
        found = subject.get_images_dict(False, self.include, self.exclude)
        return {name: image for name, image in found.items() if isinstance(image, LabelMap)}


class RandomTransform(Transform):
    """Abstract. One that draws; what it draws from torch, NumPy and `random` is seeded for each element of a batch."""

    def parse_degrees(self, degrees: Any) -> tuple[float, float]:
        """A range of angles."""
        return self._parse_range(degrees, "degrees")

    def parse_translation(self, translation: Any) -> tuple[float, float]:
        """A range of shifts."""
        return self._parse_range(translation, "translation")


class NormalizationTransform(IntensityTransform):
    """Abstract. One that defines `apply_normalization(subject, image_name, mask)`, for each scalar image."""

    def __init__(self, masking_method: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.masking_method = masking_method

    def apply_transform(self, subject: Subject) -> Subject:
        for name, image in self.get_images_dict(subject).items():
            self.apply_normalization(
                subject, name, self.get_mask_from_masking_method(self.masking_method, subject, image.data)
            )
        return subject

    def apply_normalization(self, subject: Subject, image_name: str, mask: torch.Tensor) -> None:
        """Change an image, by what is in its mask."""
        raise NotImplementedError(f"{self.name} must define apply_normalization")


class FourierTransform:
    """Mix-in: between voxels and their spectrum, whose middle is frequency 0."""

    @staticmethod
    def fourier_transform(tensor: torch.Tensor) -> torch.Tensor:
        """The spectrum over all axes."""
        return torch.fft.fftshift(torch.fft.fftn(tensor))

    @staticmethod
    def inv_fourier_transform(tensor: torch.Tensor) -> torch.Tensor:
        """The voxels of a spectrum, complex."""
        return torch.fft.ifftn(torch.fft.ifftshift(tensor))


class Lambda(Transform):
    """Call a function of tensors (C, I, J, K), which gives a tensor of as many axes; a step in torch.

    types_to_apply: [tio.INTENSITY], [tio.LABEL], or both (None). `medjax.Lambda` is the one that is compiled.
    Raises ValueError for a result that is no tensor, or of other axes.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], types_to_apply: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}")
        given = (types_to_apply,) if isinstance(types_to_apply, str | type) else types_to_apply
        self.function, self.types_to_apply = function, given
        self.args_names = ("function", "types_to_apply")

    def apply_transform(self, subject: Subject) -> Subject:
        for image in self.get_images(subject):
            if self.types_to_apply is None or image.type in self.types_to_apply or type(image) in self.types_to_apply:
                result = self.function(image.data)
                if not isinstance(result, torch.Tensor) or result.ndim != 4:
                    what = f"{result.ndim} axes" if isinstance(result, torch.Tensor) else type(result).__name__
                    raise ValueError(f"function must return a tensor (C, I, J, K), got {what}")
                image.set_data(result)
        return subject


class To(IntensityTransform):
    """Scalar images of another type, or on another device, as `torch.Tensor.to`."""

    def __init__(self, target: Any, non_blocking: bool = False, copy: bool = False, memory_format: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(**kwargs)
        self.target, self.args_names = target, ("target",)
        self.options: dict[str, Any] = {"non_blocking": non_blocking, "copy": copy}
        self.options |= {} if memory_format is None else {"memory_format": memory_format}

    def apply_transform(self, subject: Subject) -> Subject:
        for image in self.get_images(subject):
            image.set_data(image.data.to(self.target, **self.options))
        return subject


def renamed_keys(keys: Any, include: Any) -> Any:
    """include, or what was given by its old name."""
    if keys is None:
        return include
    warnings.warn('"keys" is the old name of "include"', FutureWarning, stacklevel=4)
    return keys


def parsed(x: Any, include: Any, label_keys: Any) -> tuple[Subject, Callable[[Subject], Any]]:
    """What a transform takes as a subject, and the way back to what it was."""
    if type(x).__module__.partition(".")[0] == "torchio":
        x = from_torchio(x)
    if isinstance(x, Subject):
        return x, lambda subject: subject
    if isinstance(x, Image):
        return Subject({NAME: x}), lambda subject: subject[NAME]
    if isinstance(x, Batch):
        raise TypeError("a transform in torch takes one subject at a time, got a Batch: put it into a data set")
    if isinstance(x, torch.Tensor | np.ndarray):
        subject = Subject({NAME: ScalarImage(tensor=x)})
        of_torch = isinstance(x, torch.Tensor)
        return subject, lambda subject: subject[NAME].data if of_torch else subject[NAME].numpy()
    module = type(x).__module__.partition(".")[0]
    if module == "SimpleITK":
        tensor, affine = sitk_to_nib(x)
        subject = Subject({NAME: ScalarImage(tensor=tensor, affine=affine)})
        return subject, lambda subject: subject[NAME].as_sitk(force_3d=x.GetDimension() == 3)
    if module == "nibabel":
        data = np.asanyarray(x.dataobj)
        data = ensure_4d(data) if data.ndim == 5 else data[None] if data.ndim == 3 else np.moveaxis(data, -1, 0)
        subject = Subject({NAME: ScalarImage(tensor=data, affine=x.affine)})
        return subject, lambda subject: subject[NAME].to_nibabel()
    if isinstance(x, dict):
        return parsed_dictionary(x, include, label_keys)
    raise ValueError(
        "a transform takes a Subject, an Image, a tensor or array (C, I, J, K), a dictionary, a SimpleITK or a nibabel "
        f"image, got {type(x).__name__}"
    )


def parsed_dictionary(x: dict[str, Any], include: Any, label_keys: Any) -> tuple[Subject, Callable[[Subject], Any]]:
    """A dictionary whose items `include` are tensors or arrays (C, I, J, K), as a subject, and the way back."""
    if include is None:
        raise RuntimeError("a transform of a dictionary needs include: which of its items are images")
    for name in include:
        if name in x and not isinstance(x[name], torch.Tensor | np.ndarray):
            raise TypeError(f"{name!r} must be a tensor or an array, got {type(x[name]).__name__}")
    classes = {name: LabelMap if name in (label_keys or ()) else ScalarImage for name in include}
    subject = Subject({n: classes[n](tensor=i) if n in classes else i for n, i in x.items()})
    return subject, lambda result: {n: i.data if isinstance(i, Image) else i for n, i in result.items()}
