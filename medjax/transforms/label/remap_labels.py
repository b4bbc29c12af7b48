"""Other numbers for labels."""

from collections.abc import Iterable
from typing import Any

import jax

from medjax.arguments import label_value, pairs
from medjax.image import Image
from medjax.ops import morphology
from medjax.subject import Subject
from medjax.transforms.masking import Masking, check_masking, mask_of, masking
from medjax.transforms.place import included
from medjax.transforms.transform import LabelTransform, Transform, abstract, static, transform
from medjax.typing import Params


def mapping(name: str, value: Any) -> tuple[tuple[int, int], ...]:
    """Pairs (label, new label) from a dictionary, sorted."""
    return tuple(sorted(pairs(label_value, label_value)(name, value)))


def check_held(t: Transform, values: Iterable[int], subject: Subject) -> None:
    """Raise a ValueError if a label map that `t` is for cannot hold one of the labels that it writes."""
    for name, image in subject.images.items():
        dtype = jax.dtypes.canonicalize_dtype(image.dtype)
        if included(t, name, image.is_label):
            for value in values:
                if not morphology.holds(dtype, value):
                    raise ValueError(f"{type(t).__name__}: {name} is of type {dtype}, which cannot hold label {value}")


@abstract
class NewLabels(LabelTransform):
    """Abstract. Gives labels other numbers, everywhere or inside a mask."""

    @property
    def measures(self) -> bool:
        """Whether there is a mask."""
        return self.masking_method is not None

    @property
    def pointwise(self) -> bool:
        """Whether there is no mask."""
        return self.masking_method is None

    def measure(self, image: Image, subject: Subject) -> Params:
        return {"mask": mask_of(self.masking_method, image, subject)}


@transform
class RemapLabels(NewLabels):
    """Give labels other numbers, all at once, so that {1: 2, 2: 1} swaps two.

    remapping: {label: new label}; labels that are not in it stay, and keys that are in no image are all right.
    masking_method: where; None for everywhere, or as for `ZNormalization`. A function gets the label map.

    Shapes: (C, I, J, K) -> same, dtype kept.  Inverse: the mapping turned round, inside the same mask; right if no
    label is merged. Two labels with one new label cannot be taken apart, so undoing raises ValueError. A new label that
    is no key must not have been in the mask before, which is not checked: all of it becomes the old label.
    Raises ValueError for new labels that the dtype cannot hold and for a mask that is not there.
    Source: TorchIO 1.2.1.
    """

    remapping: dict[int, int] = static(convert=mapping)
    masking_method: Masking = static(default=None, convert=masking)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(label, new label), sorted."""
        return self.remapping  # pyright: ignore[reportReturnType]

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject)
        check_held(self, (new for _, new in self.pairs), subject)

    def apply_to(self, image: Image, params: Params, *measured: Params) -> Image:
        return image.replace(data=morphology.remap(image.data, self.pairs, *(m["mask"] for m in measured)))

    def undo(self, image: Image, params: Params, *measured: Params) -> Image:
        inverse: dict[int, int] = {}
        for old, new in self.pairs:
            if new in inverse:
                raise ValueError(f"RemapLabels merges labels {inverse[new]} and {old} into {new}, so it has no inverse")
            if not morphology.holds(image.data.dtype, old):
                raise ValueError(f"undoing RemapLabels needs label {old}, which type {image.data.dtype} cannot hold")
            inverse[new] = old
        return image.replace(data=morphology.remap(image.data, inverse.items(), *(m["mask"] for m in measured)))
