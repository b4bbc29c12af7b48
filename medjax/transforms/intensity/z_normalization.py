"""Zero mean and unit standard deviation."""

import jax.numpy as jnp

from medjax.image import Image
from medjax.ops import pointwise, statistics
from medjax.subject import Subject
from medjax.transforms.intensity.masking import Masking, above_mean, check_masking, mask_of, masking
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params


@transform
class ZNormalization(IntensityTransform):
    """Subtract the mean and divide by the standard deviation (unbiased) of the masked voxels.

    masking_method: where they are taken from; None for all voxels, the name of a label map (its nonzero voxels),
    'Left', 'Right', 'Anterior', 'Posterior', 'Inferior' or 'Superior' (that half of the image), a function
    (C, I, J, K) -> mask, `ZNormalization.mean` (voxels above the mean), or 1, 3 or 6 voxels to leave out at the sides.
    per_channel: each channel by its own numbers, instead of all together.

    All voxels are normalised, in float32.  Shapes: (C, I, J, K) -> same.
    Raises ValueError for a mask that is not there, or of fewer than two voxels, and for voxels that are all equal
    (inside jit, where nothing can be raised, they become 0).  Source: TorchIO 1.2.1.
    """

    masking_method: Masking = static(default=None, convert=masking)
    per_channel: bool = static(default=False, kw_only=True)

    measures = True
    mean = staticmethod(above_mean)

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject)

    def measure(self, image: Image, subject: Subject) -> Params:
        mask = mask_of(self.masking_method, image, subject)
        if not self.per_channel:
            mean, std, count = statistics.mean_std(image.data, mask)
            return {"mean": mean[None], "std": std[None], "count": count[None]}
        channels = [
            statistics.mean_std(image.data[c : c + 1], None if mask is None else mask[min(c, mask.shape[0] - 1)][None])
            for c in range(image.shape[0])
        ]
        mean, std, count = (jnp.stack(values) for values in zip(*channels, strict=True))
        return {"mean": mean, "std": std, "count": count}

    def verify(self, measured: Params, name: str) -> None:
        if (measured["count"] < 2).any():
            raise ValueError(f"ZNormalization: the mask {self.masking_method!r} has no two voxels in {name}")
        if (measured["std"] == 0).any():
            raise ValueError(
                f"ZNormalization: the masked voxels of {name} are all equal, their standard deviation is 0"
            )

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        mean, std = (measured[n][:, None, None, None] for n in ("mean", "std"))
        return image.replace(data=pointwise.normalise(image.data, mean, std))
