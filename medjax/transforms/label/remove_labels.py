"""Labels that become background."""

from collections.abc import Sequence

from medjax.arguments import label_value, many
from medjax.image import Image
from medjax.ops import morphology
from medjax.subject import Subject
from medjax.transforms.label.remap_labels import NewLabels, check_held
from medjax.transforms.masking import Masking, check_masking, masking
from medjax.transforms.transform import static, transform
from medjax.typing import Params


@transform
class RemoveLabels(NewLabels):
    """Make some labels background.

    labels: which; those that are in no image are all right.
    background_label: what they become.
    masking_method: where; None for everywhere, or as for `ZNormalization`. A function gets the label map.

    Shapes: (C, I, J, K) -> same, dtype kept.  No inverse.
    Raises ValueError for a background that the dtype cannot hold and for a mask that is not there.
    Source: TorchIO 1.2.1.
    """

    labels: Sequence[int] = static(convert=many(label_value))
    background_label: int = static(default=0, convert=label_value)
    masking_method: Masking = static(default=None, convert=masking)

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject)
        check_held(self, [self.background_label], subject)

    def apply_to(self, image: Image, params: Params, *measured: Params) -> Image:
        pairs = [(label, self.background_label) for label in self.labels]
        return image.replace(data=morphology.remap(image.data, pairs, *(m["mask"] for m in measured)))
