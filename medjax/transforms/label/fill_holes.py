"""Labels without holes."""

from collections.abc import Sequence

import jax.numpy as jnp

from medjax.arguments import maybe, some_labels
from medjax.image import Image
from medjax.ops import holes, morphology
from medjax.subject import Subject
from medjax.transforms.label.contour import connectivity
from medjax.transforms.transform import LabelTransform, static, transform
from medjax.typing import Params


@transform
class FillHoles(LabelTransform):
    """Give the background inside of a label that label.

    A hole of a label is a connected component of all that is not the label which does not touch the border of the
    volume. The background in it becomes the label; other labels in it stay. In holes of several labels, one within the
    other, it becomes the innermost. An axis of one voxel has no border, so that a slice is filled as a slice.

    labels: those that are filled; None for all.
    connectivity: what is not the label hangs together, so that a hole leaks, through faces (1), or edges too (2), or
    corners (3).

    Labelled on the host, also within a compiled program; such a program cannot be exported.
    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Raises ImportError without the `morphology` extra.
    Source: `scipy.ndimage.binary_fill_holes`, for every label.

    >>> solid = mj.Compose([mj.KeepLargestComponent(), mj.FillHoles()])
    """

    labels: Sequence[int] | None = static(default=None, convert=maybe(some_labels))
    connectivity: int = static(default=1, convert=connectivity, kw_only=True)

    def check_subject(self, subject: Subject) -> None:
        morphology.labeller(type(self).__name__)

    def apply_to(self, image: Image, params: Params) -> Image:
        data = jnp.asarray(image.data)
        filled = holes.filled(data, jnp.asarray(image.size, jnp.int32), self.labels, self.connectivity)
        return image.replace(data=jnp.where(data == jnp.zeros((), data.dtype), filled, data))
