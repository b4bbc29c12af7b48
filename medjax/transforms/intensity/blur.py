"""Gaussian blur, in millimetres or in voxels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import choice, flag
from medjax.geometry import Grid, spacing
from medjax.image import Image
from medjax.ops import axis
from medjax.ranges import Range, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params, Shape3


@abstract
class GaussianBlur(IntensityTransform):
    """Abstract. Convolves with a Gaussian of the standard deviations `std`, (3,) for all channels or (C, 3)."""

    units: str = static(default="mm", convert=choice("mm", "voxels"), kw_only=True)
    kernel: str = static(default="scipy", convert=choice(*axis.KERNELS), kw_only=True)

    std = 0.0  # a field of both, (3,) or (3, 2), in its place among the others: not annotated here

    def margin(self, spacing: np.ndarray) -> Shape3 | None:
        if self.kernel != "scipy":
            return None  # its mirror is another
        largest = np.asarray(ranges.support(self.std)).reshape(3, -1)[:, -1]
        if not np.isfinite(largest).all():
            return None
        largest = largest / (np.asarray(spacing) if self.units == "mm" else 1)
        i, j, k = (int(np.floor(4 * sigma + 0.5)) for sigma in largest)
        return i, j, k

    def apply_to(self, image: Image, params: Params) -> Image:
        data, extent = image.data, jnp.asarray(image.size, jnp.int32)
        sigma = channels.rows(params["std"], image, 3)
        if self.units == "mm":
            sigma = sigma / spacing(jnp.asarray(image.affine)).astype(data.dtype)[None]

        def one(x: Array, sigma: Array) -> Array:
            return axis.gaussian_blur(x, sigma, extent=extent, kernel=self.kernel)

        return channels.limited(channels.each(one, data, sigma), image, params)


@transform
class Blur(GaussianBlur):
    """Convolve with a Gaussian, cut off at four standard deviations; the image is mirrored at its edges.

    std: standard deviation in mm along each voxel axis, >= 0.
    units: of std, 'mm' or 'voxels'.
    kernel: 'scipy', or 'nnunet', which is cut off at three standard deviations, to floor(3 std + 1/4) voxels, and
    mirrors about the centres of the edge voxels.

    Shapes: (C, I, J, K) -> same, float32.
    Source: TorchIO 1.2.1 / scipy.ndimage.gaussian_filter; here integers are not truncated after each axis;
    batchgeneratorsv2.
    """

    std: Any = number(default=0.0, low=0.0, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"std": jnp.asarray(self.std)}


@transform
class RandomBlur(GaussianBlur):
    """`Blur` with standard deviations drawn uniformly for each image and axis, in mm; x is (0, x).

    isotropic: one number, of the first axis, for all axes.
    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    """

    std: Range = uniform(default=(0.0, 2.0), per_axis=True, low=0.0)
    isotropic: bool = static(default=False, convert=flag, kw_only=True)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        std = ranges.draw(keys.for_name(key, "std"), self.std, channels.shape_for(self.per_channel, grid))
        std = jnp.broadcast_to(std[..., :1], std.shape) if self.isotropic else std
        return {"std": std, "channels": channels.coins(key, self.p_per_channel, grid)}
