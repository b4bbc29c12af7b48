"""What an image is given for voxels and affine, checked; and the outline that stands where a tensor holds them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch

from medjax import geometry
from medjax.io import native
from torch_bridge.dlpack import to_torch

NOTHING = np.zeros((), np.uint8)


def outline(shape: Sequence[int]) -> np.ndarray:
    """An array of this shape that takes no memory: it stands where a tensor holds the voxels."""
    return np.broadcast_to(NOTHING, tuple(shape))


def as_tensor(x: Any) -> torch.Tensor:
    """Voxels that were given as a tensor; raises TypeError for what holds none, ValueError for what is not real."""
    if not isinstance(x, torch.Tensor):
        if not isinstance(x, np.ndarray | jax.Array):
            raise TypeError(f"tensor must be a tensor or an array, got {type(x).__name__}")
        of_jax = isinstance(x, jax.Array)  # never shared: nobody may write to it
        x = to_torch(x if of_jax else native(np.asarray(x), "tensor"), copy=of_jax)
    if x.is_complex() or x.is_quantized or x.layout != torch.strided:
        raise ValueError(f"tensor must hold real numbers, densely, got {x.dtype} ({x.layout})")
    return x.to(torch.uint8) if x.dtype == torch.bool else x


def checked_affine(affine: Any) -> np.ndarray:
    """An affine of one image, (4, 4) float64, in memory of its own."""
    affine = affine.detach().cpu().numpy() if isinstance(affine, torch.Tensor) else affine
    return geometry.check_affine(np.array(affine, np.float64))
