"""Where the Gaussian bump of a local transform lies, and how wide it is."""

import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.distributions import Distribution
from medjax.image import Image
from medjax.ops.local import gaussian_bump
from medjax.ranges import Range
from medjax.transforms.intensity import channels
from medjax.typing import Key, Params


def draw_bump(key: Key, scale: Range, location: Range, shape: tuple[int, ...]) -> dict[str, Array]:
    """Standard deviations, for a range log-uniform, and centres, along each axis; of `shape` and (3,)."""
    inner = keys.for_name(key, "scale")
    if isinstance(scale, Distribution):
        log_scale = jnp.log(ranges.draw(inner, scale, shape))
    else:
        log_scale = ranges.draw(inner, jnp.log(jnp.asarray(scale)), shape)
    return {
        "log_scale": log_scale,
        "location": ranges.draw(keys.for_name(key, "location"), location, shape),
    }


def bump_of(image: Image, params: Params) -> tuple[Array, Array]:
    """The bump (1 or C, I, J, K), from 0 to 1, and its mean."""
    whole = jnp.asarray(image.size, jnp.int32) if image.full is None else jnp.asarray(image.full, jnp.int32)
    size = whole.astype(image.data.dtype)[None]
    log_scale, location = (channels.rows(params[name], image, 3) for name in ("log_scale", "location"))
    offset = image.origin_in_whole
    return gaussian_bump(location * size, jnp.exp(log_scale) * size, image.spatial_shape, extent=whole, offset=offset)
