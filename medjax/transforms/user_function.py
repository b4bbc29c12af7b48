"""A function of the user's as a transform."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from medjax.arguments import choice, function_of, many, maybe
from medjax.image import Image, LabelMap, ScalarImage
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params

KINDS = {"intensity": ScalarImage, "label": LabelMap}


def kind_of(name: str, value: Any) -> str:
    """The name of a kind of images; the class stands for its name."""
    return choice(*KINDS)(name, next((kind for kind, cls in KINDS.items() if value is cls), value))


def kinds_of(name: str, value: Any) -> tuple[str, ...]:
    """The names of kinds of images, at least one, in order."""
    if isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of 'intensity' and 'label', got {value!r}")
    given = many(kind_of, least=1)(name, value)
    return tuple(kind for kind in KINDS if kind in given)


@transform
class Lambda(IntensityTransform):
    """Call a function of voxels (C, I, J, K), pure and traced by JAX, which gives an array of the same shape.

    function: gets scalar images in float32 (float64 if they were), label maps in their own type.
    types_to_apply: ['intensity'], ['label'], or both (None); the classes ScalarImage and LabelMap are taken too.
    inverse: the function that takes it back, for scalar images; None if there is none.

    The result is cast to the type of what the function got; for label maps it must be whole numbers or truth values.
    Raises ValueError for a result of another shape, TypeError for fractions as labels, and for an image with padding,
    which the function would see.  Source: TorchIO 1.2.1, where shapes may change.
    """

    function: Callable[[Any], Any] = static(convert=function_of)
    types_to_apply: Sequence[Any] | None = static(default=None, convert=maybe(kinds_of))
    inverse: Callable[[Any], Any] | None = static(default=None, convert=maybe(function_of), kw_only=True)

    @property
    def scalars_only(self) -> bool:
        """Whether label maps are left alone."""
        return self.types_to_apply == ("intensity",)

    @property
    def labels_only(self) -> bool:
        """Whether scalar images are left alone."""
        return self.types_to_apply == ("label",)

    @property
    def invertible(self) -> bool:
        """Whether there is an inverse."""
        return self.inverse is not None

    def apply_to(self, image: Image, params: Params) -> Image:
        return image.replace(data=called(self.function, image))

    def undo(self, image: Image, params: Params) -> Image:
        return image.replace(data=called(self.inverse, image))


def called(function: Any, image: Image) -> Array:
    """function(voxels), checked, in the type of the voxels."""
    if image.extent is not None:
        raise TypeError("Lambda: the function would see the padding of this image; crop it to a fixed shape first")
    data = jnp.asarray(image.data)
    result = jnp.asarray(function(data))
    if result.shape != data.shape:
        raise ValueError(f"Lambda: the function gave shape {result.shape} for an image of shape {data.shape}")
    if image.is_label and jnp.issubdtype(result.dtype, jnp.inexact) and result.dtype != data.dtype:
        raise TypeError(f"Lambda: the function gave {result.dtype} for a label map of {data.dtype}")
    return result.astype(data.dtype)
