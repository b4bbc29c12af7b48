"""Low resolution: fewer voxels along some axes, and back to the old grid."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import lowres
from medjax.ops.axis import along
from medjax.ops.statistics import within
from medjax.ranges import Range, number, uniform
from medjax.transforms.axes import voxel_axes
from medjax.transforms.intensity import channels
from medjax.transforms.intensity.anisotropy import READ
from medjax.transforms.sampling import interpolation
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


def clipped(y: Array, x: Array, mask: Array | None, samplings: lowres.Samplings) -> Array:
    """y in the range of those voxels of each channel of x that are samples."""
    sample = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask
    for axis, s in enumerate(samplings):
        if s is not None:
            sample = sample & along(axis + 1, lowres.picked(x.shape[axis + 1], s))
    return jnp.clip(y, channels.least(x, sample), channels.greatest(x, sample))


@abstract
class CoarseGrid(IntensityTransform):
    """Abstract. Reads an image from fewer voxels along `axes`, by `zoom` (3,) for all channels or (C, 3)."""

    axes = (0, 1, 2)  # fields of both, in their places among the others: not annotated here
    image_interpolation = "linear"

    def apply_to(self, image: Image, params: Params) -> Image:
        extent, mask = jnp.asarray(image.size, jnp.int32), image.real

        def one(x: Array, zoom: Array) -> Array:
            samplings: list[lowres.Sampling | None] = [None] * 3
            for axis in self.axes:
                size = extent[axis].astype(zoom.dtype)
                count = jnp.clip(jnp.round(size * zoom[axis]), 1, size)
                samplings[axis] = lowres.Sampling(extent[axis], count.astype(jnp.int32), size / count)
            y = READ[self.image_interpolation](x if mask is None else within(x, mask, 0), samplings)
            return clipped(y, x, mask, samplings) if self.image_interpolation == "cubic" else y

        return channels.limited(channels.each(one, image.data, channels.rows(params["zoom"], image, 3)), image, params)


@transform
class LowResolution(CoarseGrid):
    """Bring an image to n' = round(n zoom) voxels along each axis by nearest, and back to n by interpolation.

    Voxel j of the small image copies voxel floor((j + 1/2) n / n'), and voxel i is read at (i + 1/2) n' / n - 1/2;
    edges are repeated.

    zoom: 0 < zoom <= 1, one number or one for each axis.
    axes: the voxel axes that are made coarse.
    image_interpolation: on the way back, 'linear', 'nearest' or 'cubic' (the B-spline through the voxels of the small
    image, clipped to their range).
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.
    Source: nnU-Net; batchgeneratorsv2 (linear), batchgenerators and skimage.transform.resize (cubic).
    """

    zoom: Any = number(default=0.5, low=0.01, high=1.0, shape=(3,))
    axes: Sequence[int] = static(default=(0, 1, 2), convert=voxel_axes())
    image_interpolation: str = static(default="linear", convert=interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"zoom": jnp.asarray(self.zoom)}


@transform
class RandomLowResolution(CoarseGrid):
    """`LowResolution` with `zoom` drawn uniformly, for each image; x is (0.01, x).

    isotropic: one number, of the first axis, for all axes.
    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    """

    zoom: Range = uniform(default=(0.5, 1.0), per_axis=True, low=0.01, high=1.0)
    axes: Sequence[int] = static(default=(0, 1, 2), convert=voxel_axes())
    image_interpolation: str = static(default="linear", convert=interpolation)
    isotropic: bool = static(default=True, convert=flag, kw_only=True)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        zoom = ranges.draw(keys.for_name(key, "zoom"), self.zoom, channels.shape_for(self.per_channel, grid))
        zoom = jnp.broadcast_to(zoom[..., :1], zoom.shape) if self.isotropic else zoom
        return {"zoom": zoom, "channels": channels.coins(key, self.p_per_channel, grid)}
