"""Gibbs ringing: the ripples beside edges of an image whose k-space was cut off."""

from typing import Any

import jax
import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import fourier
from medjax.ranges import Range, number, uniform
from medjax.transforms.axes import along_voxels, axes_of
from medjax.transforms.intensity.kspace import KSpaceArtefact, by_channel, channels, unpadded
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params, Volume


@abstract
class Truncation(KSpaceArtefact):
    """Abstract. Keeps |f| <= floor(cutoff n / 2) along each axis; an axis that keeps all is not read."""

    def apply_to(self, image: Image, params: Params) -> Image:
        data, extent = unpadded(image)

        def change(x: Volume, params: Params) -> Volume:
            cutoff = jnp.asarray(params["cutoff"]).astype(x.dtype)
            for axis in (3, 2, 1):
                n = extent[axis - 1]
                factors = fourier.low_pass(x.shape[axis], n, cutoff[axis - 1], x.dtype)
                complete = factors.sum() >= n.astype(x.dtype)
                x = jax.lax.cond(
                    complete,
                    lambda x, _: x,
                    lambda x, factors, axis=axis, n=n: fourier.filter_planes(x, axis, factors, extent=n),
                    x,
                    factors,
                )
            return jnp.abs(x) if self.magnitude else x

        return image.replace(data=by_channel(change, data, params, self.per_channel))


@transform
class Gibbs(Truncation):
    """Cut k-space off to a box about its centre, as a scanner that records fewer lines and fills up with zeros.

    Along an axis of n voxels the frequencies |f| <= floor(cutoff n / 2) are kept, in cycles per field of view; edges
    overshoot by up to 9% of their height, whatever the cutoff, with ripples n / (2 f) voxels wide beside them.

    cutoff: from 0 (the mean along the axis alone) to 1 (everything, exactly), along each voxel axis.
    The number of lines is whole, so the cutoff has gradient 0.
    magnitude: the absolute value, as scanners show.

    The same for all channels.  Shapes: (C, I, J, K) -> same, float32.  Computed as products along the axes.
    Differs from MONAI's GibbsNoise, which cuts k-space off to a sphere in voxels, so that all axes ring.
    """

    cutoff: Any = number(default=1.0, low=0.0, high=1.0, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"cutoff": jnp.asarray(self.cutoff)}


@transform
class RandomGibbs(Truncation):
    """`Gibbs` with a cutoff for each of `axes`, drawn for each image; along other axes everything is kept.

    cutoff: uniform; x is (0, x).
    axes: voxel axes 0, 1, 2 and anatomical names ('LR', 'A', ...).
    per_channel: drawn for each channel, so for each volume of a series.
    magnitude: as in `Gibbs`.
    """

    cutoff: Range = uniform(default=(0.3, 0.9), low=0.0, high=1.0)
    axes: Any = static(default=(0, 1, 2), convert=axes_of)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = (*channels(grid, self.per_channel), len(self.axes))
        drawn = ranges.draw(keys.for_name(key, "cutoff"), self.cutoff, shape)
        cutoff = jnp.ones((*shape[:-1], 3), drawn.dtype)
        for i, axis in enumerate(self.axes):
            cutoff = cutoff.at[..., along_voxels(axis, grid.affine)].min(drawn[..., i])
        return {"cutoff": cutoff}
