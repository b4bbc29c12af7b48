"""b-values and gradient directions: the standard's attributes, and what makers wrote before there were any."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from medjax.io.dicom.tags import (
    GE_B,
    PHILIPS_B,
    PHILIPS_DIRECTION,
    SIEMENS_B,
    SIEMENS_DIRECTION,
    Refused,
    numbers,
    private,
)

Direction = tuple[float, ...]
"""Unit vector in DICOM's world (LPS), or ()."""


def diffusion(header: Dataset, groups: Sequence[Dataset], maker: str, csa: Any) -> tuple[float | None, Direction]:
    """The b-value of a slice, s/mm^2, None if it has none, and the direction of its gradient.

    csa: a function that gives values of Siemens' own header by name. GE's directions are not given: they are along the
    axes of the scanner, not of the patient. Raises Refused for numbers that cannot be such.
    """
    b, direction = numbers(groups, "DiffusionBValue"), numbers(groups, "DiffusionGradientOrientation")
    if not b and maker == "Siemens":
        b, direction = private(header, SIEMENS_B) or (), private(header, SIEMENS_DIRECTION) or ()
        if not b:
            b, direction = csa("B_value"), csa("DiffusionGradientDirection")
    elif not b and maker == "Philips":
        b, direction = private(header, PHILIPS_B) or (), private(header, *PHILIPS_DIRECTION) or ()
    elif not b and maker == "GE":
        b = tuple(value % 100_000 for value in private(header, GE_B) or ())  # some software adds a thousand million
    if (b and not 0 <= b[0] < 100_000) or np.linalg.norm(direction) > 1.1:
        raise Refused("its b-value or gradient direction is none")
    if len(direction) != 3 or not any(direction):
        direction = ()
    return (float(b[0]) if b else None), tuple(float(x) for x in direction)
