"""Labels without gaps."""

import jax.numpy as jnp
import numpy as np

from medjax.image import Image
from medjax.ops import morphology
from medjax.ops.morphology import Labels
from medjax.subject import Subject
from medjax.transforms.label.one_hot import classes
from medjax.transforms.masking import Masking, check_masking, mask_of, masking
from medjax.transforms.transform import LabelTransform, static, transform
from medjax.typing import Params


@transform
class SequentialLabels(LabelTransform):
    """Number the labels of an image 0, 1, 2, ... in their order: (0, 5, 10) becomes (0, 1, 2).

    In an image without background the smallest label becomes 0.

    masking_method: where numbers change; None for everywhere, or as for `ZNormalization`. A function gets the label
    map. The labels are those of the whole image, of all its channels.
    max_labels: how many an image may have, for a shape cannot hang on voxels.

    Shapes: (C, I, J, K) -> same, dtype kept.  Inverse: exact, by the labels that were found.
    Raises ValueError for more labels than max_labels, or than the dtype can number (inside jit, where nothing can be
    raised, those beyond are merged), and for a mask that is not there.  Source: TorchIO 1.2.1.
    """

    masking_method: Masking = static(default=None, convert=masking)
    max_labels: int = static(default=256, convert=classes, kw_only=True)

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject)

    def measure(self, image: Image, subject: Subject) -> Params:
        labels, count = morphology.present(image.data, mask_of(None, image, subject), self.max_labels)
        mask = None if self.masking_method is None else mask_of(self.masking_method, image, subject)
        return {"labels": labels, "count": count, "mask": mask}

    def verify(self, measured: Params, name: str) -> None:
        if measured["count"] > self.max_labels:
            raise ValueError(
                f"SequentialLabels: {name} has more than max_labels={self.max_labels} labels; give a larger max_labels"
            )
        dtype = measured["labels"].dtype
        if not morphology.holds(dtype, int(measured["count"]) - 1):
            raise ValueError(f"SequentialLabels: type {dtype} of {name} cannot number its {measured['count']} labels")

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        return replaced(image, morphology.rank(image.data, measured["labels"]), measured)

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        labels, dtype = measured["labels"], image.data.dtype
        if not np.can_cast(labels.dtype, dtype):
            raise ValueError(
                f"undoing SequentialLabels gives labels of type {labels.dtype}, which {dtype} cannot hold: cast first"
            )
        return replaced(image, labels.astype(dtype).at[image.data.astype(jnp.int32)].get(mode="clip"), measured)


def replaced(image: Image, data: Labels, measured: Params) -> Image:
    """The image with new labels inside the mask."""
    mask = measured["mask"]
    return image.replace(data=data if mask is None else jnp.where(mask, data, image.data))
