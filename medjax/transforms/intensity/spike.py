"""Spikes: single bright points of k-space, which draw stripes across the image (herringbone)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax import keys, ranges
from medjax.arguments import flag, interval, traced, vector
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import fourier
from medjax.ranges import Range, leaf, number, uniform
from medjax.subject import Subject
from medjax.transforms.intensity.kspace import KSpaceArtefact, by_channel, channels, unpadded
from medjax.transforms.transform import abstract, static, transform
from medjax.typing import Key, Params, Volume


def positions_of(name: str, value: Any) -> Any:
    """Points (m, 3) of k-space, each coordinate in [0, 1)."""
    array = vector((None, 3), low=0.0, high=1.0, least=0)(name, value)
    if not traced(array) and np.any(np.asarray(array) == 1):
        raise ValueError(f"{name} must be below 1, got {np.asarray(array).tolist()}")
    return array


@abstract
class Spikes(KSpaceArtefact):
    """Abstract. Adds the plane waves of points of k-space."""

    cumulative: bool = static(default=False, convert=flag, kw_only=True)

    @property
    def measures(self) -> bool:
        """Whether the peak is that of the image before any spike."""
        return not self.cumulative

    def measure(self, image: Image, subject: Subject) -> Params:
        """The greatest magnitude in the spectrum of each channel, (C,)."""
        data, extent = unpadded(image)
        return {"peak": fourier.peak(data, extent=None if image.extent is None else extent)}

    def added(self, image: Image, params: Params, measured: Sequence[Params], sign: int) -> Image:
        """The image with the waves added, or taken away with sign -1; `measured` unless cumulative."""
        data, extent = unpadded(image)
        sizes = extent.astype(data.dtype)

        def change(x: Volume, params: Params) -> Volume:
            positions = jnp.asarray(params["positions"]).astype(x.dtype)
            index = jnp.clip(jnp.floor(positions * sizes[None]).astype(jnp.int32), 0, extent[None] - 1)
            there = jnp.arange(len(index), dtype=jnp.int32) < params["num_spikes"]
            factors = jnp.where(there, sign * jnp.asarray(params["intensity"]).astype(x.dtype), 0)
            if self.cumulative:
                heights = fourier.accumulated(x, index, factors, extent=extent, padded=image.extent is not None)
            else:
                heights = params["peak"][:, None] * factors[None]
            real, imaginary = fourier.plane_waves(index, heights, image.spatial_shape, extent=extent)
            return fourier.modulus(x + real, imaginary) if self.magnitude else x + real

        for found in measured:
            params = {**params, "peak": found["peak"][:, None] if self.per_channel else found["peak"]}
        return image.replace(data=by_channel(change, data, params, self.per_channel))

    def apply_to(self, image: Image, params: Params, *measured: Params) -> Image:
        return self.added(image, params, measured, 1)

    def undo(self, image: Image, params: Params, *measured: Params) -> Image:
        return image if self.magnitude or self.cumulative else self.added(image, params, measured, -1)


@transform
class Spike(Spikes):
    """Add points to k-space, each a plane wave in the image.

    At index floor(position n) of the shifted spectrum, whose frequency 0 is at n // 2, the real number
    intensity max|spectrum| is added, the maximum being that of the channel before any spike. What is returned is the
    real part: x + sum of intensity max|spectrum| / N cos(2 pi f . i / n), computed so, without a transform.

    spikes_positions: (m, 3), in [0, 1), along the voxel axes.
    intensity: of any sign.
    magnitude: the absolute value instead of the real part, as scanners show.
    cumulative: as TorchIO, each spike is scaled by a maximum that includes the spikes before it, so that they grow like
    intensity^m; takes a transform.

    The maximum is |sum of x| wherever all voxels are of one sign; other images are transformed once to find it.
    Shapes: (C, I, J, K) -> same, float32.  Inverse: subtracts the waves; none for a magnitude or if
    cumulative.  Source: TorchIO 1.2.1, where spikes are cumulative, and the inverse is scaled by the last maximum.
    """

    spikes_positions: Any = leaf(convert=positions_of)
    intensity: float = number(default=1.0)

    def draw(self, key: Key, grid: Grid) -> Params:
        positions = jnp.asarray(self.spikes_positions)
        count = jnp.asarray(len(positions), jnp.int32)
        return {"positions": positions, "num_spikes": count, "intensity": jnp.asarray(self.intensity)}


@transform
class RandomSpike(Spikes):
    """`Spike` at random points, drawn for each image.

    num_spikes: whole numbers, both ends drawn, equally likely; x is (0, x); structure.
    intensity: uniform, the same for all spikes; x is (-x, x).
    Positions are uniform in k-space.
    per_channel: drawn for each channel, so for each volume of a series.
    magnitude, cumulative: as in `Spike`.
    """

    num_spikes: Any = static(default=(1, 1), convert=interval(start=0))
    intensity: Range = uniform(default=(1.0, 3.0))
    per_channel: bool = static(default=False, convert=flag, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels(grid, self.per_channel)
        unit, counts = np.asarray([0, 1], np.float32), np.asarray(self.num_spikes, np.float32)
        places = (*shape, self.num_spikes[1], 3)
        return {
            "positions": ranges.draw(keys.for_name(key, "positions"), unit, places),
            "num_spikes": ranges.draw_integer(keys.for_name(key, "num_spikes"), counts, shape),
            "intensity": ranges.draw(keys.for_name(key, "intensity"), self.intensity, shape),
        }
