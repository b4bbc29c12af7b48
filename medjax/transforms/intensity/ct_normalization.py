"""Computed tomography by the numbers of a whole data set."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from medjax.arguments import real
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import leaf
from medjax.transforms.intensity.clamp import check_bounds
from medjax.transforms.transform import IntensityTransform, transform
from medjax.typing import Params


@transform
class CTNormalization(IntensityTransform):
    """Clip to [low, high], subtract the mean and divide by the standard deviation, all four given.

    low, high: intensities, in nnU-Net the 0.5th and 99.5th percentile of the foreground voxels of the training set.
    mean, std: of the same voxels, std > 0.

    Shapes: (C, I, J, K) -> same, float32.  Inverse: x std + mean; what was clipped stays clipped.
    Raises ValueError if low > high.  Source: Isensee et al. 2021, `CTNormalization` of nnU-Net v2.
    """

    low: Any = leaf(convert=real())
    high: Any = leaf(convert=real())
    mean: Any = leaf(convert=real())
    std: Any = leaf(convert=real(low=1e-8))

    pointwise = True

    def __post_init__(self):
        super().__post_init__()
        check_bounds("low", self.low, "high", self.high)

    def numbers(self, image: Image) -> tuple[Array, Array, Array, Array]:
        """The four numbers in the type of the voxels."""
        low, high, mean, std = (
            jnp.asarray(v).astype(image.data.dtype) for v in (self.low, self.high, self.mean, self.std)
        )
        return low, high, mean, std

    def apply_to(self, image: Image, params: Params) -> Image:
        low, high, mean, std = self.numbers(image)
        return image.replace(data=pointwise.normalise(jnp.clip(image.data, low, high), mean, std))

    def undo(self, image: Image, params: Params) -> Image:
        _, _, mean, std = self.numbers(image)
        return image.replace(data=pointwise.denormalise(image.data, mean, std))
