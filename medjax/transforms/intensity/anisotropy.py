"""Thick slices: fewer samples along one axis, and back to the old grid."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import choice, flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import axis as axis_ops
from medjax.ops import lowres
from medjax.ops.statistics import within
from medjax.ranges import Range, number, uniform
from medjax.transforms.axes import voxel_axes, voxel_axis
from medjax.transforms.intensity.kspace import draw_axis
from medjax.transforms.sampling import interpolation
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

READ = {"nearest": lowres.nearest, "linear": lowres.linear, "cubic": lowres.spline}


def sampling_along(axis: int, image: Image, factor: Array) -> lowres.Sampling:
    """Slices `factor` voxels apart that fit into the field of view, at least one."""
    extent = jnp.asarray(image.size, jnp.int32)[axis]
    count = jnp.floor(extent.astype(factor.dtype) / factor * (1 + 1e-6))
    return lowres.Sampling(extent, jnp.maximum(count, 1).astype(jnp.int32), factor)


def smoothed(data: Array, axis: int, extent: Array, factor: Array) -> Array:
    """Convolve along an axis with the Gaussian that widens a voxel to `factor` voxels at half maximum."""
    variance = jnp.maximum(factor**2 - 1, 0) / (8 * np.log(2))
    sigma = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)

    def blur(narrow: bool, data: Array, sigma: Array) -> Array:
        return axis_ops.blur_axis(data, sigma, extent, axis + 1, narrow)

    near = axis_ops.radius(sigma) <= axis_ops.NARROW
    return jax.lax.cond(near, partial(blur, True), partial(blur, False), data, sigma)


@abstract
class ThickSlices(IntensityTransform):
    """Abstract. Reads an image from slices along one axis that are `downsampling` voxels thick."""

    slice_profile: str | None = static(default=None, convert=choice(None, "gaussian"), kw_only=True)
    shared: bool = static(default=True, convert=flag, kw_only=True)

    image_interpolation = "linear"  # a field of both, in its place among the others: not annotated here

    def __post_init__(self):
        super().__post_init__()
        if not self.scalars_only and not self.shared:
            raise ValueError("scalars_only=False needs shared=True: else label maps get other slices than their images")

    def apply_to(self, image: Image, params: Params) -> Image:
        dtype = jnp.float32 if image.is_label else image.data.dtype
        factor = jnp.asarray(params["downsampling"]).astype(dtype)

        def along(axis: int, data: Array) -> Array:
            sampling = sampling_along(axis, image, factor)
            samplings = [sampling if a == axis else None for a in range(3)]
            if image.is_label:
                return lowres.nearest(data, samplings)
            data = within(data, image.real, 0)
            if self.slice_profile is not None:
                data = smoothed(data, axis, sampling.extent, factor)
            return READ[self.image_interpolation](data, samplings)

        branches: list[Callable[[Array], Array]] = [partial(along, axis) for axis in range(3)]
        return image.replace(data=jax.lax.switch(jnp.asarray(params["axis"]), branches, image.data))


@transform
class Anisotropy(ThickSlices):
    """Make slices thick along one axis, and bring them back to the old grid: nearest down, interpolated up.

    With N voxels and N' = floor(N / m) slices, slice j copies voxel floor((N - 1) / 2 + (j - (N' - 1) / 2) m + 1/2),
    and voxel i reads the slices at (i - (N - 1) / 2) / m + (N' - 1) / 2; the outermost slices are repeated beyond.

    axis: voxel axis 0, 1 or 2.
    downsampling: m >= 1, thickness of a slice in voxels.
    image_interpolation: 'nearest', 'linear' or 'cubic' (B-spline; 'bspline' means the same).
    scalars_only: whether label maps are left alone; else they are read by nearest both ways, and keep their dtype.
    slice_profile: None copies voxels; 'gaussian' smooths along the axis first, so that what a slice shows is m voxels
    wide at half maximum, of which a voxel has one: standard deviation sqrt((m^2 - 1) / (8 ln 2)) voxels.

    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: TorchIO 1.2.1, whose output is black beyond the
    outermost slices and which has no slice profile.
    """

    axis: int = static(convert=voxel_axis)
    downsampling: float = number(default=2.0, low=1.0)
    image_interpolation: str = static(default="linear", convert=interpolation)
    scalars_only: bool = static(default=True, convert=flag)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"axis": jnp.asarray(self.axis, jnp.int32), "downsampling": jnp.asarray(self.downsampling)}


@transform
class RandomAnisotropy(ThickSlices):
    """`Anisotropy` along one of `axes`, each equally likely, with `downsampling` drawn uniformly; x is (1, x).

    Axes of one voxel are not drawn, unless all are. Drawn once per subject, unless shared=False draws for each image.
    """

    axes: Sequence[int] = static(default=(0, 1, 2), convert=voxel_axes())
    downsampling: Range = uniform(default=(1.5, 5.0), low=1.0)
    image_interpolation: str = static(default="linear", convert=interpolation)
    scalars_only: bool = static(default=True, convert=flag)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        factor = ranges.draw(keys.for_name(key, "downsampling"), self.downsampling)
        return {"axis": draw_axis(keys.for_name(key, "axis"), self.axes, grid), "downsampling": factor}
