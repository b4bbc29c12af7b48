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
from medjax.transforms.transform import IntensityTransform, abstract, static, transform
from medjax.typing import Key, Params

STEEPEST = 60
"""The logarithm of a gain beyond which voxels would become infinite, or 0."""


@abstract
class PolynomialField(IntensityTransform):
    """Abstract. Multiplies by the exponential of a polynomial of the coordinates."""

    constant: bool = static(default=True, convert=flag, kw_only=True)

    order = 3  # a field of both, in its place among the others: not annotated here
    pointwise = True

    @property
    def terms(self) -> int:
        """How many coefficients the polynomial has."""
        return (self.order + 1) * (self.order + 2) * (self.order + 3) // 6 - (not self.constant)

    def gain(self, image: Image, params: Params) -> Array:
        """The logarithm of the field, (1, I, J, K), cut off where float32 would hold no product."""
        extent = jnp.asarray(image.size if image.full is None else image.full, jnp.int32)
        offset = image.origin_in_whole
        coefficients = jnp.asarray(params["coefficients"]).astype(image.data.dtype)
        if not self.constant:
            coefficients = jnp.concatenate([jnp.zeros(1, coefficients.dtype), coefficients])
        shape = image.spatial_shape
        field = pointwise.polynomial_field(coefficients, self.order, shape, extent=extent, offset=offset)
        return jnp.clip(field, -STEEPEST, STEEPEST)[None]

    def apply_to(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(self.gain(image, params)))

    def undo(self, image: Image, params: Params) -> Image:
        return image.replace(data=image.data * jnp.exp(-self.gain(image, params)))


@transform
class BiasField(PolynomialField):
    """Multiply by exp(sum of c X^a Y^b Z^c), a + b + c <= order, X, Y, Z from -1 to 1 along the voxel axes.

    The sum is cut off at -60 and 60, beyond which nothing is left of an image.
    coefficients: (order + 1)(order + 2)(order + 3) / 6 numbers, c fastest, then b, then a; the first is a constant
    gain.
    order: of the polynomial.
    constant: whether there is a constant gain; else the first coefficient is left out.
    The same field for all channels.  Shapes: (C, I, J, K) -> same, float32.  Inverse: divided by the field.
    Source: Van Leemput et al. 1999; TorchIO 1.2.1.
    """

    coefficients: Any = leaf(convert=vector())
    order: int = static(default=3, convert=whole(low=0))

    def __post_init__(self):
        super().__post_init__()
        if self.coefficients.shape[0] != self.terms:
            raise ValueError(f"order {self.order} takes {self.terms} coefficients, got {self.coefficients.shape[0]}")

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"coefficients": jnp.asarray(self.coefficients)}


@transform
class RandomBiasField(PolynomialField):
    """`BiasField` with coefficients drawn uniformly, for each image; x is (-x, x).

    constant=False leaves the constant term out, which is a random gain of the whole image up to exp(0.5) by default.
    """

    coefficients: Range = uniform(default=0.5)
    order: int = static(default=3, convert=whole(low=0))

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"coefficients": ranges.draw(keys.for_name(key, "coefficients"), self.coefficients, (self.terms,))}
