"""The array kinds of medjax, named once."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from jax.core import Tracer as Tracer
from jaxtyping import Array, Bool, Float, Int, Num, PRNGKeyArray

Voxels: TypeAlias = Num[Any, "*B C I J K"]
Volume: TypeAlias = Float[Array, "C I J K"]
Field: TypeAlias = Float[Array, "3 I J K"]
Mask: TypeAlias = Bool[Array, "I J K"]
Affine: TypeAlias = Float[Any, "*B 4 4"]
Index: TypeAlias = Int[Any, "*B 3"]
Key: TypeAlias = PRNGKeyArray
Params: TypeAlias = Mapping[str, Any]
Shape3: TypeAlias = tuple[int, int, int]
Matrix: TypeAlias = Float[Any, "4 4"]
Coin: TypeAlias = bool | np.bool_ | Bool[Any, ""]
"""Whether a step is on: `True` where that is known from the types, else what was drawn."""
Cost: TypeAlias = int | Int[Any, ""]
"""What a reading costs, by the order of `medjax.transforms.place`."""


def working(dtype: Any) -> np.dtype:
    """The type that numbers of `dtype` are computed in: float64 stays, everything else becomes float32."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def wider(one: Any, other: Any) -> np.dtype:
    """The type that holds numbers of two: the working type if either is floating-point, whatever JAX would promote."""
    if any(np.issubdtype(dtype, np.inexact) for dtype in (one, other)):
        return max(working(one), working(other), key=lambda dtype: dtype.itemsize) if one != other else np.dtype(one)
    return np.promote_types(one, other)
