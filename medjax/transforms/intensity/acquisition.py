"""The resolution of a scanner: slices of a thickness, some distance apart, brought back to the old grid."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import flag, maybe, real
from medjax.geometry import Grid, spacing
from medjax.image import Image
from medjax.ops import acquisition
from medjax.ops.lowres import Sampling
from medjax.ops.statistics import within
from medjax.ranges import Range, leaf, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.intensity.kspace import draw_axis
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

SAME = 1 + 1e-4  # the ratio up to which two lengths are the same


@abstract
class Slices(IntensityTransform):
    """Abstract. Shows an image at a `resolution`, `thickness` and `blur`, (3,) for all channels or (C, 3)."""

    def apply_to(self, image: Image, params: Params) -> Image:
        dtype, mask = image.data.dtype, image.real
        extent, voxel = jnp.asarray(image.size, jnp.int32), spacing(jnp.asarray(image.affine)).astype(dtype)

        def one(x: Array, resolution: Array, thickness: Array, blur: Array) -> Array:
            x = x if mask is None else within(x, mask, 0)
            coarse = resolution > voxel * SAME
            sigma = jnp.where(coarse, 0.75 * jnp.minimum(resolution, thickness) / voxel, 0.5) * blur
            sizes = extent.astype(dtype)
            count = jnp.floor(sizes * jnp.where(coarse, voxel / resolution, 1) * (1 + 1e-6))
            count = jax.lax.stop_gradient(jnp.clip(count, 1, sizes))
            for axis in (3, 2, 1):  # memory order first
                a = axis - 1
                sampling = Sampling(extent[a], count[a].astype(jnp.int32), sizes[a] / count[a])
                x = acquisition.acquire(x, axis, sigma[a], sampling)
            return x

        numbers = (channels.rows(params[name], image, 3) for name in ("resolution", "thickness", "blur"))
        return image.replace(data=channels.each(one, image.data, *numbers))


@transform
class Acquisition(Slices):
    """Show an image at the resolution of another acquisition: blurred by slices, sampled by nearest, read linearly.

    Along an axis of n voxels of v mm: a Gaussian of standard deviation 0.75 b min(r, t) / v voxels, n' = floor(n v / r)
    samples n / n' voxels apart about the middle, and linear interpolation between them, the outermost repeated beyond.
    Where r is not above v there are n samples and the deviation is b / 2.

    resolution: r, mm between slices along each voxel axis.
    thickness: t, mm; None is the resolution.
    blur: b.
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  The three steps of an axis are one operator.
    Source: Billot et al., "SynthSeg", Medical Image Analysis 2023; there samples begin at the first voxel, so that the
    image is shifted against its labels by up to half a slice, and edges fade into 0.
    """

    resolution: Any = number(default=1.0, low=0.0, shape=(3,))
    thickness: Any = leaf(default=None, convert=maybe(real(low=0.0, shape=(3,))))
    blur: Any = number(default=1.0, low=0.0, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        resolution = jnp.asarray(self.resolution)
        thickness = resolution if self.thickness is None else jnp.asarray(self.thickness)
        return {"resolution": resolution, "thickness": thickness, "blur": jnp.asarray(self.blur)}


@transform
class RandomAcquisition(Slices):
    """`Acquisition` of a random resolution, thick slices along one axis or coarse along all, drawn for each image.

    With p_unchanged the resolution stays v, the size of a voxel; else with p_isotropic it is uniform from v to
    max_isotropic along each axis; else along one axis, each equally likely, uniform from v to max_anisotropic.
    Thickness: uniform from v to the resolution along each axis.  An axis of one voxel is not drawn.

    max_isotropic, max_anisotropic: mm.
    blur: uniform for each axis.
    per_channel: drawn for each channel.
    The defaults are SynthSeg's, which draws each axis alone where it says isotropic.
    """

    max_isotropic: float = number(default=4.0, low=0.0)
    max_anisotropic: float = number(default=8.0, low=0.0)
    p_isotropic: float = number(default=0.1, low=0.0, high=1.0)
    p_unchanged: float = number(default=0.05, low=0.0, high=1.0)
    blur: Range = uniform(default=(1 / 1.03, 1.03), low=0.0)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        highest = jnp.stack([jnp.asarray(self.max_isotropic), jnp.asarray(self.max_anisotropic)])[:, None]
        dtype = highest.dtype
        # Rounded, since programs differ in the last bits of a spacing, and what is drawn may not.
        voxel = jax.lax.reduce_precision(spacing(jnp.asarray(grid.affine)).astype(dtype), 8, 14)[None]
        ends = jnp.stack(jnp.broadcast_arrays(voxel, jnp.maximum(highest, voxel)), -1)
        isotropic, anisotropic = (
            ranges.draw(keys.for_name(key, name), pair, shape)
            for name, pair in zip(("isotropic", "anisotropic"), ends, strict=True)
        )

        def coin(name: str, p: Any) -> Array:
            return (random.uniform(keys.for_name(key, name), shape, dtype) < jnp.asarray(p))[..., None]

        axis = draw_axis(keys.for_name(key, "axis"), (0, 1, 2), grid, shape)
        chosen = axis[..., None] == jnp.arange(3, dtype=axis.dtype).reshape([1] * len(shape) + [3])
        low = jnp.broadcast_to(voxel[0], isotropic.shape)
        resolution = jnp.where(coin("p_isotropic", self.p_isotropic), isotropic, jnp.where(chosen, anisotropic, low))
        resolution = jnp.where(coin("p_unchanged", self.p_unchanged), low, resolution)
        return {
            "resolution": resolution,
            "thickness": ranges.draw(keys.for_name(key, "thickness"), jnp.stack([low, resolution], -1)),
            "blur": ranges.draw(keys.for_name(key, "blur"), self.blur, (*shape, 3)),
        }
