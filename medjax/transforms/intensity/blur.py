"""Gaussian blur, in millimetres."""

from typing import Any

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.geometry import Grid, spacing
from medjax.image import Image
from medjax.ops import axis
from medjax.ranges import Range, number, uniform
from medjax.transforms.transform import IntensityTransform, transform
from medjax.typing import Key, Params


def blurred(image: Image, params: Params) -> Image:
    """Convolution with a Gaussian of the standard deviations `std` (3,) in mm."""
    data = image.data
    extent = jnp.asarray(image.spatial_shape if image.extent is None else image.extent, jnp.int32)
    sigma = jnp.asarray(params["std"]).astype(data.dtype) / spacing(jnp.asarray(image.affine)).astype(data.dtype)
    return image.replace(data=axis.gaussian_blur(data, sigma, extent=extent))


@transform
class Blur(IntensityTransform):
    """Convolve with a Gaussian, cut off at four standard deviations; the image is mirrored at its edges.

    std: standard deviation in mm along each voxel axis, >= 0.  Shapes: (C, I, J, K) -> same, float32.
    Source: TorchIO 1.2.1 / scipy.ndimage.gaussian_filter; here integers are not truncated after each axis.
    """

    std: Any = number(default=0.0, low=0.0, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"std": jnp.asarray(self.std)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return blurred(image, params)


@transform
class RandomBlur(IntensityTransform):
    """`Blur` with standard deviations drawn uniformly for each image and axis, in mm; x is (0, x)."""

    std: Range = uniform(default=(0.0, 2.0), per_axis=True, low=0.0)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"std": ranges.draw(keys.for_name(key, "std"), self.std)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return blurred(image, params)
