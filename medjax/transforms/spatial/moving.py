"""What transforms that move the content share: four fields that say how images are read and what lies outside."""

from medjax.transforms.sampling import Sampling, asked_by
from medjax.transforms.transform import SpatialTransform, abstract


@abstract
class Moving(SpatialTransform):
    """Abstract. Moves the content, which is read by interpolation; the grid stays."""

    image_interpolation = "linear"  # fields of all, in their places among the others: not annotated here
    label_interpolation = "nearest"
    default_pad_value = "channel minimum"
    default_pad_label = 0.0

    def sampling(self) -> Sampling:
        return asked_by(self)
