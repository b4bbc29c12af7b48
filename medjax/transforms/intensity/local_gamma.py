"""A power of the intensities that acts in a part of the image."""

from typing import Any

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import Either, Range, either, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.intensity.bump import bump_of, draw_bump
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

LEAST = 1e-8  # what a range is divided by at least


@abstract
class LocalPower(IntensityTransform):
    """Abstract. Gives u + b (u^gamma - u), u from 0 to 1 over the range of the channel, b a Gaussian bump."""

    def apply_to(self, image: Image, params: Params) -> Image:
        x, mask = image.data, image.real
        bump, _ = bump_of(image, params)
        low, high = channels.least(x, mask), channels.greatest(x, mask)
        width = jnp.maximum(high - low, LEAST)
        unit = (x - low) / width
        power = pointwise.signed_power(unit, channels.laid(params["gamma"], image))
        return channels.limited((unit + bump * (power - unit)) * width + low, image, params)


@transform
class LocalGamma(LocalPower):
    """Blend each channel with its power by the weights b of a Gaussian bump, as in `BrightnessGradient`.

    With u from 0 to 1 over the range of the channel: u (1 - b) + u^gamma b, back in that range.

    gamma: > 0, at the peak.
    location, scale: as in `BrightnessGradient`.
    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: nnU-Net DA5, batchgenerators'
    `LocalGammaTransform`.
    """

    gamma: float = number(default=1.0, low=1e-6)
    location: Any = number(default=0.5, shape=(3,))
    scale: Any = number(default=0.5, low=1e-3, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        place = {"location": jnp.asarray(self.location), "log_scale": jnp.log(jnp.asarray(self.scale))}
        return {"gamma": jnp.asarray(self.gamma), **place}


@transform
class RandomLocalGamma(LocalPower):
    """`LocalGamma` with all drawn for each image, by default as in nnU-Net's DA5.

    gamma: uniform from a pair or, on a fair coin, from one of two.
    location, scale, per_channel, p_per_channel: as in `RandomBrightnessGradient`.
    """

    gamma: Either = either(default=((0.01, 0.8), (1.5, 4.0)), low=1e-6)
    location: Range = uniform(default=(-0.5, 1.5), around=0.0, per_axis=True)
    scale: Range = uniform(default=(1 / 6, 1.0), per_axis=True, low=1e-3)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        gamma = ranges.draw_either(keys.for_name(key, "gamma"), self.gamma, shape)
        place = draw_bump(key, self.scale, self.location, shape)
        return {"gamma": gamma, **place, "channels": channels.coins(key, self.p_per_channel, grid)}
