"""One value outside of a mask."""

from collections.abc import Sequence

import jax.numpy as jnp

from medjax.arguments import label_values, maybe
from medjax.image import Image
from medjax.ranges import number
from medjax.subject import Subject
from medjax.transforms.masking import Masking, check_masking, mask_of, masking, shown
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params


@transform
class Mask(IntensityTransform):
    """Set voxels outside of a mask to a value.

    masking_method: as in `ZNormalization`.  outside_value: in intensities.  labels: values of the label map that are
    in the mask, instead of all but 0.  A mask of one channel serves all channels; None masks nothing but padding.

    Shapes: (C, I, J, K) -> same, float32.  A mask without voxels leaves outside_value everywhere.
    Raises ValueError for a mask that is not there.  Source: TorchIO 1.2.1.
    """

    masking_method: Masking = static(convert=masking)
    outside_value: float = number(default=0.0)
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values))

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject, labels=self.labels)

    def measure(self, image: Image, subject: Subject) -> Params:
        mask = mask_of(self.masking_method, image, subject, self.labels)
        return {"mask": jnp.ones((1, 1, 1, 1), bool) if mask is None else mask}

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        mask = measured["mask"] if self.masking_method is None else shown(measured["mask"], image)
        return image.replace(data=jnp.where(mask, image.data, jnp.asarray(self.outside_value).astype(image.data.dtype)))
