"""Rotate and scale in voxel units, by which nnU-Net's networks see the world."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.affine_map import about_axes
from medjax.arguments import finite, flag
from medjax.geometry import Grid, Linear, homogeneous, inverse, matmul, namespace, transform_vector
from medjax.ranges import Range, number, uniform
from medjax.transforms.axes import voxel_axes
from medjax.transforms.sampling import Fill, interpolation, label_interpolation, move_fill
from medjax.transforms.spatial.moving import Moving
from medjax.transforms.transform import static, transform
from medjax.typing import Key, Params


def turned(degrees: Any) -> Any:
    """Rz Ry Rx (3, 3) of angles about the voxel axes."""
    about_x, about_y, about_z = about_axes(namespace(degrees).deg2rad(degrees))
    return matmul(about_z, about_y, about_x)


@transform
class RandomVoxelAffine(Moving):
    """Rotate and scale about the middle of the first image in its voxel units, whatever the spacing; the grid stays.

    i_in = c + Rz Ry Rx S (i_out - c): a scale > 1 makes objects smaller, as in nnU-Net, and is drawn as such.

    scales: uniform, x is (1 - x, 1 + x); one factor for all of `axes`, or with isotropic=False one for each; other
    axes keep theirs.
    degrees: uniform for each voxel axis, x is (-x, x).
    p_per_axis: probability that the angle of an axis is not 0.
    Fills and interpolations are as in `Affine`; by default those of nnU-Net: 0 outside, labels by the vote of eight
    corners.  A slice is turned about its normal alone.
    Drawn once per subject.  Shapes: (C, I, J, K) -> same; images become float32, label maps keep their dtype.
    Inverse: exact in geometry.  Raises ValueError if a scale can reach 0.
    Source: batchgeneratorsv2 0.3.6, `SpatialTransform`.
    """

    scales: Range = uniform(default=(1.0, 1.0), around=1.0, low=1e-6)
    degrees: Range = uniform(default=0.0, around=0.0, per_axis=True)
    axes: Sequence[int] = static(default=(0, 1, 2), convert=voxel_axes())
    isotropic: bool = static(default=True, convert=flag)
    p_per_axis: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)
    default_pad_value: Fill = static(default=0.0, convert=move_fill, kw_only=True)
    default_pad_label: float = static(default=0.0, convert=finite(), kw_only=True)
    image_interpolation: str = static(default="linear", convert=interpolation, kw_only=True)
    label_interpolation: str = static(default="linear", convert=label_interpolation, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        coins = ranges.coin(keys.for_name(key, "axes"), self.p_per_axis, (3,))
        degrees = ranges.draw(keys.for_name(key, "degrees"), self.degrees)
        scales = ranges.draw(keys.for_name(key, "scales"), self.scales, (1 if self.isotropic else 3,))
        chosen = np.isin(np.arange(3), self.axes)
        return {"degrees": jnp.where(coins, degrees, 0), "scales": jnp.where(chosen, jnp.broadcast_to(scales, 3), 1)}

    def move(self, params: Params, reference: Grid) -> Linear:
        xp = namespace(reference.affine)
        dtype = reference.affine.dtype
        degrees, scales = (xp.asarray(params[name]).astype(dtype) for name in ("degrees", "scales"))
        thin = reference.shape == 1
        across = xp.stack([thin[1] | thin[2], thin[0] | thin[2], thin[0] | thin[1]])
        degrees, scales = xp.where(across, 0, degrees).astype(dtype), xp.where(thin, 1, scales).astype(dtype)
        linear = turned(degrees) * scales[None, :]
        middle = (reference.shape.astype(dtype) - 1) / 2
        matrix = homogeneous(linear, middle - transform_vector(linear, middle))
        return Linear(matmul(reference.affine, matrix, inverse(reference.affine)))
