"""Labels without islands."""

import jax.numpy as jnp

from medjax.arguments import flag
from medjax.image import Image
from medjax.ops import morphology, statistics
from medjax.subject import Subject
from medjax.transforms.label.contour import connectivity
from medjax.transforms.transform import LabelTransform, static, transform
from medjax.typing import Params


@transform
class KeepLargestComponent(LabelTransform):
    """Keep the largest connected component of each label; the rest becomes 0.

    Of components of one size that is kept whose first voxel, in the order of memory, comes first.

    connectivity: neighbours share a face (1: 6 of them), or an edge (2: 18), or a corner (3: 26).
    per_label: each label on its own; else whatever is not 0 is one thing, and what is kept of it keeps its labels.
    binary: whatever is not 0 is one thing, and what is kept of it becomes 1, as in TorchIO 1.2.1.

    Labelled on the host, also within a compiled program; such a program cannot be exported.
    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Raises ImportError without the `morphology` extra.  Source: connected-components-3d (Silversmith 2021).
    """

    connectivity: int = static(default=1, convert=connectivity, kw_only=True)
    per_label: bool = static(default=True, convert=flag, kw_only=True)
    binary: bool = static(default=False, convert=flag, kw_only=True)

    def check_subject(self, subject: Subject) -> None:
        morphology.labeller()

    def apply_to(self, image: Image, params: Params) -> Image:
        data = statistics.within(image.data, image.real, 0)
        kept = morphology.largest_components(data, self.connectivity, self.per_label and not self.binary)
        return image.replace(
            data=jnp.where(kept, jnp.ones((), data.dtype) if self.binary else data, jnp.zeros((), data.dtype))
        )
