"""A bias field from a few control points."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import choice, flag, vector, wholes
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import bspline
from medjax.ranges import Range, leaf, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.intensity.bias_field import STEEPEST
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


def check_points(name: str, shape: tuple[int, ...], interpolation: str) -> None:
    """Raise a ValueError for too few control points."""
    if interpolation == "bspline" and min(shape) < 4:
        raise ValueError(f"{name}: a B-spline takes at least 4 control points along each axis, got {tuple(shape)}")


@abstract
class FieldOfPoints(IntensityTransform):
    """Abstract. Multiplies by the exponential of what control points are interpolated to."""

    interpolation = "bspline"  # a field of both, in its place among the others: not annotated here
    pointwise = True

    def field(self, image: Image, params: Params) -> Array:
        """The logarithm of the field, (1 or C, I, J, K): three small products, cut off as that of `BiasField`."""
        values = jnp.asarray(params["control_points"]).astype(image.data.dtype)
        values = channels.fitted(values.reshape(-1, *values.shape[-3:]), image.shape[0])
        whole = jnp.asarray(image.size if image.full is None else image.full, jnp.int32)
        first = jnp.asarray(image.origin_in_whole, jnp.int32)
        for axis, length in enumerate(image.spatial_shape):
            count = values.shape[1]
            index = (first[axis] + jnp.arange(length, dtype=jnp.int32)).astype(values.dtype)
            size = whole[axis].astype(values.dtype)
            if self.interpolation == "linear":
                at = jnp.clip(index * (count / size), 0, count - 1)
                points = jnp.arange(count, dtype=values.dtype)
                weights = jnp.maximum(1 - jnp.abs(at[None] - points[:, None]), 0)
            else:
                weights = bspline.basis(1 + (jnp.clip(index, 0, size - 1) + 0.5) * ((count - 3) / size), count)
            values = jnp.tensordot(values, weights, (1, 0), precision=jax.lax.Precision.HIGHEST)
        return jnp.clip(values, -STEEPEST, STEEPEST)

    def apply_to(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(self.field(image, params)))

    def undo(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(-self.field(image, params)))


@transform
class BSplineBiasField(FieldOfPoints):
    """Multiply by exp(f), f interpolated between a few control points over the image.

    control_points: (n0, n1, n2), the logarithms, over the voxel axes.
    interpolation: 'linear' reads them at i n0 / I for voxel i of I, the last one repeated, as SynthSeg does; 'bspline'
    takes them as the coefficients of a cubic B-spline, at least 4 an axis, of which n0 - 3 pieces cover the image.
    Shapes: (C, I, J, K) -> same, float32.  Inverse: divided by the field.
    Source: Billot et al., "SynthSeg", Medical Image Analysis 2023.
    """

    control_points: Any = leaf(convert=vector((None, None, None)))
    interpolation: str = static(default="bspline", convert=choice("linear", "bspline"))

    def __post_init__(self):
        super().__post_init__()
        check_points("control_points", self.control_points.shape, self.interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"control_points": jnp.asarray(self.control_points)}


@transform
class RandomBSplineBiasField(FieldOfPoints):
    """`BSplineBiasField` of normal control points of mean 0 and of a standard deviation that is drawn for each image.

    num_control_points: along each axis, or one number for all.
    std: uniform, x is (0, x).
    per_channel: a field and a deviation for each channel, instead of one.
    RandomBSplineBiasField(4, (0, 0.7), "linear", per_channel=True) is SynthSeg's for 160 voxels an axis.
    """

    num_control_points: Any = static(default=5, convert=wholes(3, low=1))
    std: Range = uniform(default=(0.0, 0.5), low=0.0)
    interpolation: str = static(default="bspline", convert=choice("linear", "bspline"))
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def __post_init__(self):
        super().__post_init__()
        check_points("num_control_points", self.num_control_points, self.interpolation)

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        std = ranges.draw(keys.for_name(key, "std"), self.std, shape)[..., None, None, None]
        points = ranges.draw_normal(keys.for_name(key, "control_points"), std, (*shape, *self.num_control_points))
        return {"control_points": points}
