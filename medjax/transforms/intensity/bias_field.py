"""The slow change of brightness that a coil leaves in a magnetic resonance image."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from medjax import keys, ranges
from medjax.arguments import flag, vector, whole
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import Range, leaf, uniform
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Key, Params


def terms(order: int, constant: bool) -> int:
    """How many coefficients a polynomial of this order in three variables has."""
    return (order + 1) * (order + 2) * (order + 3) // 6 - (not constant)


def gain(image: Image, params: Params, order: int, constant: bool) -> Array:
    """The logarithm of the field, (1, I, J, K)."""
    whole = image.size
    extent = jnp.asarray(whole if image.full is None else image.full, jnp.int32)
    offset = image.origin_in_whole
    coefficients = jnp.asarray(params["coefficients"]).astype(image.data.dtype)
    if not constant:
        coefficients = jnp.concatenate([jnp.zeros(1, coefficients.dtype), coefficients])
    return pointwise.polynomial_field(coefficients, order, image.spatial_shape, extent=extent, offset=offset)[None]


@transform
class BiasField(IntensityTransform):
    """Multiply by exp(sum of c X^a Y^b Z^c), a + b + c <= order, X, Y, Z from -1 to 1 along the voxel axes.

    coefficients: (order + 1)(order + 2)(order + 3) / 6 numbers, c fastest, then b, then a; the first is a constant
    gain.  order: of the polynomial.  constant: whether there is a constant gain; else the first coefficient is left
    out.  The same field for all channels.  Shapes: (C, I, J, K) -> same, float32.  Inverse: divided by the field.
    Source: Van Leemput et al. 1999; TorchIO 1.2.1.
    """

    coefficients: Any = leaf(convert=vector())
    order: int = static(default=3, convert=whole(low=0))
    constant: bool = static(default=True, convert=flag, kw_only=True)

    pointwise = True

    def __post_init__(self):
        super().__post_init__()
        due = terms(self.order, self.constant)
        if self.coefficients.shape[0] != due:
            raise ValueError(f"order {self.order} takes {due} coefficients, got {self.coefficients.shape[0]}")

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"coefficients": jnp.asarray(self.coefficients)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(gain(image, params, self.order, self.constant)))

    def undo(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(-gain(image, params, self.order, self.constant)))


@transform
class RandomBiasField(IntensityTransform):
    """`BiasField` with coefficients drawn uniformly, for each image; x is (-x, x).

    constant=False leaves the constant term out, which is a random gain of the whole image up to exp(0.5) by default.
    """

    coefficients: Range = uniform(default=0.5)
    order: int = static(default=3, convert=whole(low=0))
    constant: bool = static(default=True, convert=flag, kw_only=True)

    pointwise = True
    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = (terms(self.order, self.constant),)
        return {"coefficients": ranges.draw(keys.for_name(key, "coefficients"), self.coefficients, shape)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(gain(image, params, self.order, self.constant)))

    def undo(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(-gain(image, params, self.order, self.constant)))
