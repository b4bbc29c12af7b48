"""The surface of each label."""

import jax.numpy as jnp

from medjax.arguments import choice, flag
from medjax.image import Image
from medjax.ops import morphology
from medjax.transforms.transform import LabelTransform, static, transform
from medjax.typing import Params

connectivity = choice(*morphology.CONNECTIVITIES)
"""How many coordinates of two neighbours may differ."""


@transform
class Contour(LabelTransform):
    """Keep the voxels of each label that have a neighbour of another value; the others become 0.

    What lies outside of the volume is no neighbour.

    connectivity: neighbours share a face (1: 6 of them), or an edge (2: 18), or a corner (3: 26).
    binary: only label 1 loses its inside, and all other labels stay as they are, as in TorchIO 1.2.1.

    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Source: ITK's BinaryContourImageFilter, here for every label.
    """

    connectivity: int = static(default=1, convert=connectivity, kw_only=True)
    binary: bool = static(default=False, convert=flag, kw_only=True)

    def apply_to(self, image: Image, params: Params) -> Image:
        data = image.data
        inside = ~morphology.border(data, self.connectivity, image.real)
        if self.binary:
            inside &= data == jnp.ones((), data.dtype)
        return image.replace(data=jnp.where(inside, jnp.zeros((), data.dtype), data))
