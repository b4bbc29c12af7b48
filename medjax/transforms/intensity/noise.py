"""Gaussian noise."""

import jax.numpy as jnp
from jax import random

from medjax import keys, ranges
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import noise
from medjax.ranges import Range, number, uniform
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Key, Params


def noisy(image: Image, params: Params) -> Image:
    """x + mean + std n, n standard normal, its value at a voxel given by the key and the voxel's index alone."""
    data = image.data
    mean, std = (jnp.asarray(params[name]).astype(data.dtype) for name in ("mean", "std"))
    offset = (0, 0, 0) if image.offset is None else image.offset
    field = noise.normal(params["key"], data.shape, offset=offset, dtype=data.dtype)
    return image.replace(data=data + (mean + std * field))


@transform
class Noise(IntensityTransform):
    """Add Gaussian noise of a given seed, each channel its own.

    mean, std >= 0: in units of intensity.  seed: of the noise.  Shapes: (C, I, J, K) -> same, float32.
    """

    mean: float = number(default=0.0)
    std: float = number(default=0.25, low=0.0)
    seed: int = static(default=0, convert=lambda name, value: int(value))

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"mean": jnp.asarray(self.mean), "std": jnp.asarray(self.std), "key": random.key(self.seed)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return noisy(image, params)


@transform
class RandomNoise(IntensityTransform):
    """`Noise` with random mean, std and seed, drawn for each image.

    mean: uniform, x is (-x, x).  std: uniform, x is (0, x).  Noise is independent between voxels and channels.
    """

    mean: Range = uniform(default=0.0)
    std: Range = uniform(default=(0.0, 0.25), low=0.0)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        drawn = {name: ranges.draw(keys.for_name(key, name), getattr(self, name)) for name in ("mean", "std")}
        return {**drawn, "key": keys.for_name(key, "noise")}

    def apply_to(self, image: Image, params: Params) -> Image:
        return noisy(image, params)
