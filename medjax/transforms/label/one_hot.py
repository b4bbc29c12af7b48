"""A channel for each class."""

from typing import Any

import jax.numpy as jnp

from medjax.arguments import whole
from medjax.image import Image
from medjax.ops import morphology, statistics
from medjax.subject import Subject
from medjax.transforms.transform import LabelTransform, certain, static, transform
from medjax.typing import Params


def classes(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    try:
        return whole(low=1)(name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{error}: the number of channels is part of the compiled program, so it is not counted in each image; "
            "give the largest label plus 1"
        ) from None


@transform
class OneHot(LabelTransform):
    """Turn labels 0 .. num_classes - 1 into as many channels, 1 where the label is that of the channel, else 0.

    num_classes: of the channels, at least 1; TorchIO's -1 (the largest label plus 1) is refused, for a shape cannot
    hang on voxels.

    p must be 1.  Shapes: (1, I, J, K) -> (num_classes, I, J, K), dtype kept.  Inverse: the channel with the largest
    value, the first of equal ones.
    Raises ValueError for several channels and for a label that is no class (inside jit, where nothing can be raised,
    it is 0 in all channels).  Source: TorchIO 1.2.1, whose inverse is int64.
    """

    num_classes: int = static(convert=classes)
    p: float = static(default=1.0, convert=certain, kw_only=True)

    def channels(self, count: int) -> int:
        return self.num_classes

    def measure(self, image: Image, subject: Subject) -> Params:
        data = statistics.within(image.data, image.real, 0)
        known = data >= jnp.zeros((), data.dtype)
        if jnp.issubdtype(data.dtype, jnp.floating):
            known &= data == jnp.floor(data)
        if morphology.holds(data.dtype, self.num_classes):
            known &= data < jnp.asarray(self.num_classes, data.dtype)
        stray = statistics.within(data, ~known, 0)
        return {"low": stray.min(), "high": stray.max()}

    def verify(self, measured: Params, name: str) -> None:
        for found in (measured["high"], measured["low"]):
            if found != 0:
                raise ValueError(
                    f"OneHot: {name} has the label {found}, which is none of the {self.num_classes} classes "
                    f"0 to {self.num_classes - 1}"
                )

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        if image.shape[0] != 1:
            raise ValueError(f"OneHot takes label maps of one channel, got shape {image.shape}")
        return image.replace(data=morphology.one_hot(image.data, self.num_classes))

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        if image.shape[0] != self.num_classes:
            raise ValueError(f"undoing OneHot takes {self.num_classes} channels, got shape {image.shape}")
        return image.replace(data=jnp.argmax(image.data, 0, keepdims=True).astype(image.data.dtype))
