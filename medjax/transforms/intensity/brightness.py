"""Brightness: a factor and a shift."""

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import Either, either, number
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


@abstract
class FactorAndShift(IntensityTransform):
    """Abstract. Multiplies by a factor and adds a shift."""

    pointwise = True

    def apply_to(self, image: Image, params: Params) -> Image:
        factor, shift = (channels.laid(params[name], image) for name in ("factor", "shift"))
        return channels.limited(image.data * factor + shift, image, params)

    def undo(self, image: Image, params: Params) -> Image:
        factor, shift = (channels.laid(params[name], image) for name in ("factor", "shift"))
        return channels.limited((image.data - shift) / factor, image, params)


@transform
class Brightness(FactorAndShift):
    """Multiply by a factor and add a shift: x factor + shift.

    factor: > 0.
    shift: in units of intensity.
    Shapes: (C, I, J, K) -> same, float32.
    Inverse: (x - shift) / factor.  Source: nnU-Net's multiplicative and additive brightness.
    """

    factor: float = number(default=1.0, low=1e-6)
    shift: float = number(default=0.0)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"factor": jnp.asarray(self.factor), "shift": jnp.asarray(self.shift)}


@transform
class RandomBrightness(FactorAndShift):
    """`Brightness` with random factor and shift, drawn for each image.

    factor, shift: each a number, uniform from a pair or, on a fair coin, from one of two.
    shift_std: >= 0, standard deviation of a normal number that is added to the shift.
    per_channel: drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    By default the multiplicative one of nnU-Net; RandomBrightness(1, shift_std=0.5) is the additive one of DA5.
    """

    factor: Either = either(default=((0.75, 1.0), (1.0, 1.25)), low=1e-6)
    shift: Either = either(default=0.0)
    shift_std: float = number(default=0.0, low=0.0, kw_only=True)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        factor, shift = (
            ranges.draw_either(keys.for_name(key, name), getattr(self, name), shape) for name in ("factor", "shift")
        )
        shift = shift + ranges.draw_normal(keys.for_name(key, "shift_std"), self.shift_std, shape)
        return {"factor": factor, "shift": shift, "channels": channels.coins(key, self.p_per_channel, grid)}
