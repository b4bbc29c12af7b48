"""A transform of MONAI among those of TorchIO's users: a step in torch."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from medjax.errors import needs_extra
from torch_bridge.image import Image, ScalarImage
from torch_bridge.subject import Subject
from torch_bridge.users import Transform


class MonaiAdapter(Transform):
    """Call a transform of MONAI on a subject: one of dictionaries on all items, one of arrays on one image at a time.

    monai_transform: a `MapTransform`, which gets a dictionary of MetaTensors and whose `keys` choose the images; or any
    function of a MetaTensor (C, I, J, K), for each image that include and exclude leave. Affines come back; what is new
    and has four axes becomes a ScalarImage. It is no part of the history.
    Raises TypeError for what cannot be called, and for results that are no tensor, or several subjects.
    """

    def __init__(self, monai_transform: Callable[..., Any], **kwargs: Any):
        super().__init__(**kwargs)
        if not callable(monai_transform):
            raise TypeError(f"monai_transform must be callable, got {monai_transform!r}")
        self.monai_transform, self.args_names, self.token = monai_transform, ("monai_transform",), None

    def apply_transform(self, subject: Subject) -> Subject:
        monai = monai_module()
        if is_of_dictionaries(self.monai_transform):
            return self.of_dictionary(subject)
        images = self.get_images(subject)
        if len(images) > 1 and isinstance(self.monai_transform, monai.transforms.Randomizable):
            warnings.warn(
                f"{self.monai_transform!r} is Randomizable and draws anew for each of {len(images)} images, which then "
                "no longer match: take the one for dictionaries, as RandFlipd for RandFlip",
                UserWarning,
                stacklevel=4,
            )
        for image in images:
            take(image, self.monai_transform(meta_tensor(image)))
        return subject

    def of_dictionary(self, subject: Subject) -> Subject:
        """The subject after a transform of dictionaries."""
        given = {n: meta_tensor(item) if isinstance(item, Image) else item for n, item in subject.items()}
        result = self.monai_transform(given)
        if not isinstance(result, Mapping):
            raise TypeError(
                f"a MONAI transform must return a single mapping, got {type(result).__name__}: several samples of a "
                "subject are not one subject"
            )
        for name, value in result.items():
            if isinstance(subject.get(name), Image):
                take(subject[name], value)
            elif isinstance(value, torch.Tensor):
                plain, affine = taken_apart(value)
                subject[name] = ScalarImage(tensor=plain, affine=affine) if plain.ndim == 4 else plain
            else:
                subject[name] = value
        return subject

    def to_hydra_config(self) -> dict[str, Any]:
        """Raises NotImplementedError: what MONAI's transform was made of is not known here."""
        raise NotImplementedError("a MonaiAdapter has no Hydra configuration: MONAI's transform does not tell its own")


def is_of_dictionaries(transform: Any) -> bool:
    """Whether a transform of MONAI, or the first one of a Compose, takes dictionaries."""
    monai = monai_module()
    while isinstance(transform, monai.transforms.Compose) and transform.transforms:
        transform = transform.transforms[0]
    return isinstance(transform, monai.transforms.MapTransform)


def monai_module() -> Any:
    """MONAI, or the ImportError that says what to install."""
    try:
        import monai.data
        import monai.transforms
    except ImportError:
        needs_extra("monai", "monai", "MonaiAdapter")
    return monai


def meta_tensor(image: Image) -> Any:
    """An image as MONAI's tensor with its affine."""
    return monai_module().data.MetaTensor(image.data, affine=torch.from_numpy(image.affine))


def taken_apart(value: Any) -> tuple[torch.Tensor, np.ndarray | None]:
    """A plain tensor, and the affine of MONAI's, float64, if it is one."""
    if isinstance(value, monai_module().data.MetaTensor):
        return value.as_tensor(), value.affine.detach().cpu().double().numpy()
    return value, None


def take(image: Image, value: Any) -> None:
    """Put what MONAI gave into an image. Raises TypeError for what is no tensor."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"Expected a torch.Tensor of a MONAI transform, got {type(value).__name__}")
    plain, affine = taken_apart(value)
    image.set_data(plain)
    if affine is not None:
        image.affine = affine
