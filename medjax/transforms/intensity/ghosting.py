"""Ghosts: faint copies of what moves or pulses periodically while the lines of k-space are recorded."""

from typing import Any

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag, maybe, real
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import fourier
from medjax.ranges import Range, leaf, number, span, uniform
from medjax.transforms.axes import Axis, axes_of, axis_of
from medjax.transforms.intensity.kspace import LineArtefact, along, by_channel, channels, draw_axis, unpadded
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params, Volume


@abstract
class Ghosts(LineArtefact):
    """Abstract. Weakens planes of the spectrum across an axis."""

    def apply_to(self, image: Image, params: Params) -> Image:
        data, extent = unpadded(image)

        def change(x: Volume, params: Params) -> Volume:
            count = jnp.round(params["num_ghosts"]).astype(jnp.int32)
            intensity = jnp.asarray(params["intensity"]).astype(x.dtype)

            def across(x: Volume, a: int) -> Volume:
                n = extent[a - 1]
                factors = fourier.ghost_factors(x.shape[a], n, count, intensity, params["restore"])
                return fourier.filter_planes(x, a, factors, extent=n, magnitude=self.magnitude)

            return along(self.line_axis(image, params), across, x)

        return image.replace(data=by_channel(change, data, params, self.per_channel))


@transform
class Ghosting(Ghosts):
    """Weaken every g-th plane of k-space across an axis, which adds copies of the image along it.

    The planes 0, g, 2g, ... of the shifted spectrum, whose frequency 0 is at n // 2, are multiplied by 1 - intensity,
    but for those at the centre that are restored: plane n // 2 alone, or round(r n) planes (ties to even), from
    n // 2 - round(r n) // 2 on. What is returned is the real part.

    num_ghosts: g, a whole number; 0 changes nothing.
    axis: voxel axis 0, 1, 2, or an anatomical name ('LR', 'A', ...).
    intensity: >= 0; 0 changes nothing, 1 removes the planes.
    restore: r, share of the planes from 0 to 1, or None.
    magnitude: the absolute value instead of the real part, as scanners show.

    The numbers are the same for all channels.  Shapes: (C, I, J, K) -> same, float32.  An axis of one voxel stays.
    Computed as a product along the axis with a circulant matrix.
    Source: TorchIO 1.2.1, whose intensity is as here no share of the maximum of k-space, though it says so; here odd
    numbers of restored planes lose none, and names of axes work.
    """

    num_ghosts: float = leaf(convert=real(low=0, whole=True))
    axis: Axis = static(convert=axis_of)
    intensity: float = number(default=0.5, low=0.0)
    restore: float | None = leaf(default=None, convert=maybe(real(low=0.0, high=1.0)))

    def draw(self, key: Key, grid: Grid) -> Params:
        restore = None if self.restore is None else jnp.asarray(self.restore)
        numbers = {name: jnp.asarray(getattr(self, name)) for name in ("num_ghosts", "intensity")}
        return {**numbers, "restore": restore}


@transform
class RandomGhosting(Ghosts):
    """`Ghosting` with everything random, drawn for each image.

    num_ghosts: whole numbers, both ends drawn, equally likely; x is (0, x).
    axes: one of them is drawn, those of one voxel left out; voxel axes and anatomical names.
    intensity: uniform; x is (0, x).
    restore: None, or uniform; x is (0, x).
    per_channel: drawn for each channel, so for each volume of a series.
    magnitude: as in `Ghosting`.
    """

    num_ghosts: Range = leaf(default=(4, 10), convert=span(low=0, whole=True))
    axes: Any = static(default=(0, 1, 2), convert=axes_of)
    intensity: Range = uniform(default=(0.5, 1.0), low=0.0)
    restore: Range | None = leaf(default=None, convert=maybe(span(low=0.0, high=1.0)))
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels(grid, self.per_channel)
        drawn = {
            "num_ghosts": ranges.draw_integer(keys.for_name(key, "num_ghosts"), self.num_ghosts, shape),
            "axis": draw_axis(keys.for_name(key, "axis"), self.axes, grid, shape),
            "intensity": ranges.draw(keys.for_name(key, "intensity"), self.intensity, shape),
        }
        restore = self.restore
        if restore is not None:
            restore = ranges.draw(keys.for_name(key, "restore"), restore, shape)
        return {**drawn, "restore": restore}
