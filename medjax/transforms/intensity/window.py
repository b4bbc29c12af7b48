"""A window of intensities, as computed tomography is looked at."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from medjax.arguments import maybe, real
from medjax.errors import one_of
from medjax.image import Image
from medjax.ops import pointwise
from medjax.ranges import leaf, limits
from medjax.transforms.transform import IntensityTransform, transform
from medjax.typing import Params

WINDOWS = {
    "abdomen": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
    "soft tissue": (50, 400),
    "stroke": (40, 40),
    "subdural": (75, 215),
}
"""Center and width in Hounsfield units, by the convention of radiology: Radiopaedia, "Windowing (CT)"."""


def level(name: str, value: Any) -> Any:
    """One number; a name has been looked up by then."""
    if value is None:
        raise TypeError(f"{name} must be a number or one of {', '.join(map(repr, WINDOWS))}, got None")
    return real()(name, value)


@transform
class Window(IntensityTransform):
    """Map [center - width / 2, center + width / 2] linearly to out_min_max, and clip to it what lies beyond.

    center: Hounsfield units, or one of 'abdomen', 'bone', 'brain', 'liver', 'lung', 'mediastinum', 'soft tissue',
    'stroke' and 'subdural', which stand for the center and the width of that name in `WINDOWS`.
    width: > 0, needed unless center is a name.  out_min_max: the new range; x is (-x, x).

    Shapes: (C, I, J, K) -> same, float32.  Inverse: the linear map back; what was clipped stays clipped.
    Source: the VOI LUT function LINEAR_EXACT of DICOM PS3.3 C.11.2.1.3.2.
    """

    center: Any = leaf(convert=level)
    width: Any = leaf(default=None, convert=maybe(real(low=1e-6)))
    out_min_max: Any = leaf(default=(0.0, 1.0), convert=limits())

    pointwise = True

    def __post_init__(self):
        if isinstance(self.center, str):
            if self.width is not None:
                raise ValueError(f"center={self.center!r} says the width too: leave width out")
            center, width = WINDOWS[one_of("center", self.center, WINDOWS)]
            object.__setattr__(self, "center", center)
            object.__setattr__(self, "width", width)
        if self.width is None:
            raise ValueError("width is missing: give center and width, or the name of a window as center")
        super().__post_init__()

    def ends(self, image: Image) -> tuple[Array, Array, Array, Array]:
        """Low and high end of the window and of the range it is mapped to."""
        center, width = (jnp.asarray(v).astype(image.data.dtype) for v in (self.center, self.width))
        out = jnp.asarray(self.out_min_max).astype(image.data.dtype)
        return center - width / 2, center + width / 2, out[0], out[1]

    def apply_to(self, image: Image, params: Params) -> Image:
        low, high, out_low, out_high = self.ends(image)
        return image.replace(data=pointwise.rescale(jnp.clip(image.data, low, high), low, high, out_low, out_high))

    def undo(self, image: Image, params: Params) -> Image:
        low, high, out_low, out_high = self.ends(image)
        return image.replace(data=pointwise.rescale(image.data, out_low, out_high, low, high))
