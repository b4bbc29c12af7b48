"""A bump of brightness that is added to the image."""

from typing import Any

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.arguments import flag
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ranges import Either, Range, either, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.intensity.bump import bump_of, draw_bump
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


@abstract
class AddedBump(IntensityTransform):
    """Abstract. Adds a Gaussian bump, whose mean may be taken away first."""

    mean_centered: bool = static(default=False, convert=flag, kw_only=True)
    preserve_range: bool = static(default=False, convert=flag, kw_only=True)

    @property
    def pointwise(self) -> bool:
        """Whether no range of the image is needed."""
        return not self.preserve_range

    def apply_to(self, image: Image, params: Params) -> Image:
        bump, mean = bump_of(image, params)
        strength = channels.laid(params["strength"], image)
        if self.mean_centered:
            bump, strength = bump - mean, strength / jnp.maximum(mean, 1 - mean)
        y = image.data + strength * bump
        if self.preserve_range:
            x, mask = image.data, image.real
            y = jnp.clip(y, channels.least(x, mask).min(), channels.greatest(x, mask).max())
        return channels.limited(y, image, params)


@transform
class BrightnessGradient(AddedBump):
    """Add a Gaussian bump, whose middle may lie outside of the image: x + strength b, b from 0 to 1 over the grid.

    b is the mass of the Gaussian in each voxel, less its least and divided by its greatest.

    strength: greatest change, in units of intensity.
    location: of the middle, in sizes of the image along each axis: 0 is its first voxel.
    scale: standard deviation along each axis, > 0, in sizes of the image.
    mean_centered: take the mean of b away first, and divide by the greatest |b| then.
    preserve_range: clip to the least and the greatest voxel that the image had.

    Shapes: (C, I, J, K) -> same, float32.  Not invertible.  Source: nnU-Net DA5, batchgenerators'
    `BrightnessGradientAdditiveTransform`.
    """

    strength: float = number(default=1.0)
    location: Any = number(default=0.5, shape=(3,))
    scale: Any = number(default=0.5, low=1e-3, shape=(3,))

    def draw(self, key: Key, grid: Grid) -> Params:
        place = {"location": jnp.asarray(self.location), "log_scale": jnp.log(jnp.asarray(self.scale))}
        return {"strength": jnp.asarray(self.strength), **place}


@transform
class RandomBrightnessGradient(AddedBump):
    """`BrightnessGradient` with all drawn for each image, by default as in nnU-Net's DA5.

    strength: uniform from a pair or, on a fair coin, from one of two.
    location: uniform for each axis.
    scale: for each axis, log-uniform from low to high.
    per_channel: a bump for each channel, instead of one.
    p_per_channel: probability that a channel is changed.
    """

    strength: Either = either(default=((-5.0, -1.0), (1.0, 5.0)))
    location: Range = uniform(default=(-0.5, 1.5), around=0.0, per_axis=True)
    scale: Range = uniform(default=(1 / 6, 1.0), per_axis=True, low=1e-3)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        strength = ranges.draw_either(keys.for_name(key, "strength"), self.strength, shape)
        place = draw_bump(key, self.scale, self.location, shape)
        return {"strength": strength, **place, "channels": channels.coins(key, self.p_per_channel, grid)}
