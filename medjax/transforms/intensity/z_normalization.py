"""Zero mean and unit standard deviation."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from jaxtyping import Array

from medjax.arguments import flag, label_values, maybe
from medjax.image import Image
from medjax.ops import pointwise, statistics
from medjax.subject import Subject
from medjax.transforms.masking import (
    Masking,
    above_mean,
    check_masking,
    mask_of,
    masking,
    shown,
)
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params


@transform
class ZNormalization(IntensityTransform):
    """Subtract the mean and divide by the standard deviation (unbiased) of the masked voxels.

    masking_method: where they are taken from; None for all voxels, the name of a label map (its nonzero voxels),
    'Left', 'Right', 'Anterior', 'Posterior', 'Inferior' or 'Superior' (that half of the image), a function
    (C, I, J, K) -> mask, `ZNormalization.mean` (voxels above the mean), or 1, 3 or 6 voxels to leave out at the sides.
    labels: values of the label map that are in the mask, instead of all but 0.
    per_channel: each channel by its own numbers, instead of all together.
    per_voxel: each voxel by its own numbers over the channels, the time points of a series; a voxel that does not
    change becomes 0. Takes no mask.

    All voxels are normalised, in float32. Voxels that are not finite count nowhere, and stay NaN or infinite.
    Shapes: (C, I, J, K) -> same.  Inverse: x std + mean, with what was measured.
    Raises ValueError for a mask that is not there, or of fewer than two voxels, for voxels that are all equal (inside
    jit, where nothing can be raised, they become 0), and for per_voxel of one channel.  Source: TorchIO 1.2.1.
    """

    masking_method: Masking = static(default=None, convert=masking)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    per_voxel: bool = static(default=False, convert=flag, kw_only=True)
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values), kw_only=True)

    mean = staticmethod(above_mean)

    def __post_init__(self):
        super().__post_init__()
        if self.per_voxel and (self.per_channel or self.masking_method is not None):
            raise ValueError(
                "per_voxel takes its numbers over the channels of a voxel: no mask, no per_channel with it"
            )

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject, labels=self.labels)

    def measure(self, image: Image, subject: Subject) -> Params:
        if self.per_voxel:
            if image.shape[0] < 2:
                raise ValueError("ZNormalization(per_voxel=True) needs an image of at least two channels")
            mean, std = statistics.over_channels(image.data)
            return {"mean": mean, "std": std, "count": jnp.asarray(image.shape[0], jnp.int32)}
        mask = mask_of(self.masking_method, image, subject, self.labels)
        mean_std = statistics.mean_std
        measured = partial(statistics.each_channel, mean_std) if self.per_channel else mean_std
        found = statistics.finite_only(measured, image.data, mask)
        mean, std, count = (value.reshape(-1, 1, 1, 1) for value in found)
        return {"mean": mean, "std": std, "count": count}

    def verify(self, measured: Params, name: str) -> None:
        if (measured["count"] < 2).any():
            raise ValueError(f"ZNormalization: the mask {self.masking_method!r} has no two voxels in {name}")
        if not self.per_voxel and (measured["std"] == 0).any():
            raise ValueError(
                f"ZNormalization: the masked voxels of {name} are all equal, their standard deviation is 0"
            )

    def numbers(self, image: Image, measured: Params) -> tuple[Array, Array]:
        """Mean and deviation, in a shape that goes with the voxels."""
        mean, std = measured["mean"], measured["std"]
        return (shown(mean, image), shown(std, image)) if self.per_voxel else (mean, std)

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        return image.replace(data=pointwise.normalise(image.data, *self.numbers(image, measured)))

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        return image.replace(data=pointwise.denormalise(image.data, *self.numbers(image, measured)))
