"""Intensities kept between two bounds."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from medjax.arguments import maybe, real, traced
from medjax.image import Image
from medjax.ranges import leaf
from medjax.transforms.transform import IntensityTransform, transform
from medjax.typing import Params


def check_bounds(low_name: str, low: Any, high_name: str, high: Any) -> None:
    """Raise a ValueError for bounds in the wrong order."""
    if low is not None and high is not None and not traced(low) and not traced(high) and np.any(low > high):
        raise ValueError(f"{low_name}={float(low):g} is greater than {high_name}={float(high):g}")


@transform
class Clamp(IntensityTransform):
    """Set what is below out_min to out_min and what is above out_max to out_max.

    out_min, out_max: None for no bound on that side.  NaN stays.  Shapes: (C, I, J, K) -> same, float32.
    Raises ValueError if both are None or out_min > out_max.  Source: TorchIO 1.2.1.
    """

    out_min: Any = leaf(default=None, convert=maybe(real()))
    out_max: Any = leaf(default=None, convert=maybe(real()))

    pointwise = True

    def __post_init__(self):
        super().__post_init__()
        if self.out_min is None and self.out_max is None:
            raise ValueError("out_min and out_max are both None: give at least one of them")
        check_bounds("out_min", self.out_min, "out_max", self.out_max)

    def apply_to(self, image: Image, params: Params) -> Image:
        data = image.data
        low, high = (None if b is None else jnp.asarray(b).astype(data.dtype) for b in (self.out_min, self.out_max))
        return image.replace(data=jnp.clip(data, low, high))
