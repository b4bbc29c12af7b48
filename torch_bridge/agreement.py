"""Whether the images of a subject agree, in shape, spacing, axes or place."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Agreement:
    """Abstract. Questions to a subject that have an answer where its images agree; else they raise a RuntimeError."""

    get_images_dict: Callable[..., dict[str, Any]]
    get_first_image: Callable[[], Any]

    def check_consistent_attribute(
        self,
        attribute: str,
        relative_tolerance: float = 1e-6,
        absolute_tolerance: float = 1e-6,
        message: str | None = None,
    ) -> None:
        """Raise a RuntimeError unless all images have the same `attribute`, numbers within these tolerances."""
        found = {n: getattr(i, attribute) for n, i in self.get_images_dict(intensity_only=False).items()}
        first = next(iter(found.values()))
        if not all(alike(value, first, relative_tolerance, absolute_tolerance) for value in found.values()):
            values = ", ".join(f"{name}: {value}" for name, value in found.items())
            raise RuntimeError(message or f'More than one value for "{attribute}" in the images of a subject: {values}')

    def check_consistent_spatial_shape(self) -> None:
        """Raise a RuntimeError unless all images have one shape (I, J, K)."""
        self.check_consistent_attribute("spatial_shape")

    def check_consistent_orientation(self) -> None:
        """Raise a RuntimeError unless the voxel axes of all images run in the same directions."""
        self.check_consistent_attribute("orientation")

    def check_consistent_affine(self) -> None:
        """Raise a RuntimeError unless all images have one affine."""
        self.check_consistent_attribute("affine")

    def check_consistent_space(self) -> None:
        """Raise a RuntimeError unless all images lie on one grid."""
        try:
            for attribute in ("spacing", "direction", "origin", "spatial_shape"):
                self.check_consistent_attribute(attribute)
        except RuntimeError as error:
            raise RuntimeError(
                f"images of the subject are not in the same space: {error}; Resample('name of one') brings them there"
            ) from error

    def is_2d(self) -> bool:
        """Whether every image has one slice."""
        return all(image.is_2d() for image in self.get_images_dict(intensity_only=False).values())

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, I, J, K), which all images have."""
        self.check_consistent_attribute("shape")
        return self.get_first_image().shape

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """(I, J, K), which all images have."""
        self.check_consistent_spatial_shape()
        return self.get_first_image().spatial_shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size of all images, mm."""
        self.check_consistent_attribute("spacing")
        return self.get_first_image().spacing


def alike(one: Any, other: Any, relative: float, absolute: float) -> bool:
    """Whether two values are numbers that are close, or are equal."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "biuf" and other.dtype.kind in "biuf":
        return np.allclose(one, other, rtol=relative, atol=absolute)
    return np.array_equal(one, other)
