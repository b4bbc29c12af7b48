"""Channels, or images, that do not quite lie on the others."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.affine_map import affine_map
from medjax.arguments import many, maybe, whole
from medjax.geometry import Grid, inverse, matmul
from medjax.image import Image
from medjax.ops import warp
from medjax.ranges import Range, number, uniform
from medjax.transforms.sampling import Fill, fill_value, interpolation, move_fill
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

indices = many(whole(low=0), least=1, distinct=True)
"""Numbers of channels."""


@abstract
class Misaligned(IntensityTransform):
    """Abstract. Moves some channels of an image, as `Affine` moves images."""

    channel_indices: Sequence[int] | None = static(default=None, convert=maybe(indices), kw_only=True)
    default_pad_value: Fill = static(default="minimum", convert=move_fill, kw_only=True)
    image_interpolation: str = static(default="linear", convert=interpolation, kw_only=True)

    def apply_to(self, image: Image, params: Params) -> Image:
        count, data = image.shape[0], image.data
        chosen = np.asarray(range(count) if self.channel_indices is None else self.channel_indices)
        if chosen.max() >= count:
            raise ValueError(f"{type(self).__name__}: channel_indices={self.channel_indices} of {count} channels")
        extent, dtype = jnp.asarray(image.size, jnp.int32), data.dtype
        grid = Grid(jnp.asarray(image.affine).astype(dtype), extent)
        move = affine_map({**params, "shears": jnp.zeros(6, dtype)}, grid, "image", "world")
        matrix = matmul(inverse(grid.affine), move.matrix, grid.affine)
        points = warp.map_coordinates(matrix, warp.indices(image.spatial_shape, dtype))
        fill, moved = self.default_pad_value, image.replace(data=data[chosen])
        read = warp.sample(
            moved.data, points, extent=extent, interpolation=self.image_interpolation, is_label=False, dtype=dtype,
            fill=fill_value(moved, fill, dtype), edge=str(fill) if fill in warp.EDGES else None,
        )  # fmt: skip
        return image.replace(data=data.at[chosen].set(read))


@transform
class ChannelMisalignment(Misaligned):
    """Scale, rotate and shift channels of an image where they are, against its other channels, images and label maps.

    The map is that of `Affine`: about the middle of the image, in world mm.

    scales: factor per world axis, > 0.
    degrees: per world axis.
    translation: mm per world axis.
    channel_indices: the channels that are moved, all alike; None for all. `include` says which images.
    default_pad_value, image_interpolation: as in `Affine`.

    Shapes: (C, I, J, K) -> same, float32.  Label maps stay.  Not invertible.
    Raises ValueError for a channel that an image does not have.
    Source: Kovacs et al., "Addressing image misalignments in multi-parametric prostate MRI for enhanced computer-aided
    diagnosis of prostate cancer", Scientific Reports 2023; batchgeneratorsv2 0.3.6, where units are voxels and
    what lies outside is 0.

    >>> shifted = mj.ChannelMisalignment(translation=(0, 2, 0), include=["dwi"])
    """

    scales: Any = number(default=1.0, low=1e-6, shape=(3,))
    degrees: Any = number(default=0.0, shape=(3,))
    translation: Any = number(default=0.0, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {name: jnp.asarray(getattr(self, name)) for name in ("scales", "degrees", "translation")}


@transform
class RandomChannelMisalignment(Misaligned):
    """`ChannelMisalignment` with scales, degrees and translation drawn for each image, so that images move apart.

    scales: uniform per axis, x is (1 - x, 1 + x).
    degrees: uniform per axis, x is (-x, x).
    translation: mm, uniform per axis, x is (-x, x).
    p_scales, p_degrees, p_translation: probability that an image is scaled, rotated, shifted.
    channel_indices, default_pad_value, image_interpolation: as in `ChannelMisalignment`.
    Raises ValueError if a scale can reach 0, and for a channel that an image does not have.

    >>> apart = mj.RandomChannelMisalignment(degrees=(0, 0, 3), include=["adc", "dwi"], p=0.2)
    """

    scales: Range = uniform(default=0.05, around=1.0, per_axis=True, low=1e-6)
    degrees: Range = uniform(default=2.0, around=0.0, per_axis=True)
    translation: Range = uniform(default=2.0, around=0.0, per_axis=True)
    p_scales: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)
    p_degrees: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)
    p_translation: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        drawn = {}
        for name, nothing in (("scales", 1), ("degrees", 0), ("translation", 0)):
            on = ranges.coin(keys.for_name(key, f"p_{name}"), getattr(self, f"p_{name}"))
            drawn[name] = jnp.where(on, ranges.draw(keys.for_name(key, name), getattr(self, name)), nothing)
        return drawn
