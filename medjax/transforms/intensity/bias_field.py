"""The slow change of brightness that a coil leaves in a magnetic resonance image."""

from typing import Any

import jax.numpy as jnp

from medjax import keys, ranges
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import Range, as_floats, check, leaf, uniform
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Key, Params


def order_of(name: str, value: Any) -> int:
    """A whole number of at least 0."""
    if int(value) != value or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}")
    return int(value)


def terms(order: int) -> int:
    """How many coefficients a polynomial of this order in three variables has."""
    return (order + 1) * (order + 2) * (order + 3) // 6


def coefficients_of(name: str, value: Any) -> Any:
    """A vector of finite numbers."""
    array = as_floats(name, value)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {array.shape}")
    check(name, array)
    return array


def biased(image: Image, params: Params, order: int) -> Image:
    """x exp(polynomial), the same for all channels."""
    data = image.data
    whole = image.spatial_shape if image.extent is None else image.extent
    extent = jnp.asarray(whole if image.full is None else image.full, jnp.int32)
    offset = (0, 0, 0) if image.offset is None else image.offset
    coefficients = jnp.asarray(params["coefficients"]).astype(data.dtype)
    field = pointwise.polynomial_field(coefficients, order, image.spatial_shape, extent=extent, offset=offset)
    return image.replace(data=data * jnp.exp(field)[None])


@transform
class BiasField(IntensityTransform):
    """Multiply by exp(sum of c X^a Y^b Z^c), a + b + c <= order, X, Y, Z from -1 to 1 along the voxel axes.

    coefficients: (order + 1)(order + 2)(order + 3) / 6 numbers, c fastest, then b, then a; the first is a constant
    gain.  order: of the polynomial.  The same field for all channels.  Shapes: (C, I, J, K) -> same, float32.
    Inverse: BiasField(-coefficients).  Source: Van Leemput et al. 1999; TorchIO 1.2.1.
    """

    coefficients: Any = leaf(convert=coefficients_of)
    order: int = static(default=3, convert=order_of)

    def __post_init__(self):
        super().__post_init__()
        if self.coefficients.shape[0] != terms(self.order):
            raise ValueError(
                f"order {self.order} takes {terms(self.order)} coefficients, got {self.coefficients.shape[0]}"
            )

    def draw(self, key: Key, grid: Grid) -> Params:
        return {"coefficients": jnp.asarray(self.coefficients)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return biased(image, params, self.order)


@transform
class RandomBiasField(IntensityTransform):
    """`BiasField` with coefficients drawn uniformly, for each image; x is (-x, x)."""

    coefficients: Range = uniform(default=0.5)
    order: int = static(default=3, convert=order_of)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        shape = (terms(self.order),)
        return {"coefficients": ranges.draw(keys.for_name(key, "coefficients"), self.coefficients, shape)}

    def apply_to(self, image: Image, params: Params) -> Image:
        return biased(image, params, self.order)
