"""Gaussian and Rician noise."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import choice, flag, seed_value
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import noise
from medjax.ranges import Range, number, uniform
from medjax.transforms.intensity import channels
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params


def field(image: Image, key: Key) -> Array:
    """Standard normals, the value at a voxel given by the key and the voxel's index alone."""
    offset = image.origin_in_whole
    return noise.normal(key, image.data.shape, offset=offset, dtype=image.data.dtype)


@abstract
class AddedNoise(IntensityTransform):
    """Abstract. Adds noise of a mean, a std and a key."""

    distribution: str = static(default="gaussian", convert=choice("gaussian", "rician"), kw_only=True)

    pointwise = True

    def noise(self, image: Image, params: Params) -> Array:
        """mean + std n."""
        mean, std = (channels.laid(params[name], image) for name in ("mean", "std"))
        return mean + std * field(image, params["key"])

    def apply_to(self, image: Image, params: Params) -> Image:
        data = image.data + self.noise(image, params)
        if self.distribution == "rician":
            other = channels.laid(params["std"], image) * field(image, keys.for_name(params["key"], "imaginary"))
            square = data**2 + other**2
            some = square > 0
            data = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)
        return channels.limited(data, image, params)

    def undo(self, image: Image, params: Params) -> Image:
        if self.distribution == "rician":
            return image  # a magnitude has lost its sign
        return channels.limited(image.data - self.noise(image, params), image, params)


@transform
class Noise(AddedNoise):
    """Add noise of a given seed, each channel its own.

    mean, std >= 0: in units of intensity.
    seed: of the noise.
    distribution: 'gaussian', x + mean + std n, or 'rician', sqrt((x + mean + std n1)^2 + (std n2)^2), the magnitude of
    a complex signal, whose background has the mean std sqrt(pi / 2).

    Shapes: (C, I, J, K) -> same, float32.  Inverse: the same Gaussian noise subtracted; Rician noise stays.
    Source: TorchIO 1.2.1; Gudbjartsson and Patz, "The Rician distribution of noisy MRI data", 1995.
    """

    mean: float = number(default=0.0)
    std: float = number(default=0.25, low=0.0)
    seed: int = static(default=0, convert=seed_value)

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"mean": jnp.asarray(self.mean), "std": jnp.asarray(self.std), "key": keys.of_seed(self.seed)}


@transform
class RandomNoise(AddedNoise):
    """`Noise` with random mean, std and seed, drawn for each image.

    mean: uniform, x is (-x, x).
    std: uniform, x is (0, x).
    Noise is independent between voxels and channels.
    per_channel: mean and std are drawn for each channel, instead of once.
    p_per_channel: probability that a channel is changed.
    RandomNoise(std=(0, 0.1)) is the noise of nnU-Net, whose "variance" is a standard deviation.
    """

    mean: Range = uniform(default=0.0)
    std: Range = uniform(default=(0.0, 0.25), low=0.0)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    p_per_channel: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = channels.shape_for(self.per_channel, grid)
        drawn = {name: ranges.draw(keys.for_name(key, name), getattr(self, name), shape) for name in ("mean", "std")}
        coins = channels.coins(key, self.p_per_channel, grid)
        return {**drawn, "channels": coins, "key": keys.for_name(key, "noise")}
