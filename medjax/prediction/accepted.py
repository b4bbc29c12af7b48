"""What the arguments of `predict` may be."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.errors import shown
from medjax.typing import Shape3


def checked_overlap(value: Any, size: Shape3) -> Shape3:
    """How many voxels neighbours share, of a part of the patch, one number or three."""
    fits = np.shape(value) in ((), (3,))
    parts = np.broadcast_to(np.asarray(value, np.float64), (3,)) if fits else None
    if parts is None or not np.all((parts >= 0) & (parts < 1)):
        raise ValueError(f"overlap must be one or three numbers from 0 to less than 1, parts of a patch, got {value!r}")
    i, j, k = (int(part * n) for part, n in zip(parts, size, strict=True))
    return i, j, k


def checked_flips(flips: Any) -> tuple[int, ...]:
    """Axes of a patch, each once."""
    found = tuple(flips) if isinstance(flips, Sequence) and not isinstance(flips, str) else None
    if found is None or not set(found) <= {0, 1, 2} or len(set(found)) < len(found):
        raise ValueError(f"flips must be some of the axes 0, 1 and 2, each once, got {shown(flips)}")
    return tuple(int(axis) for axis in found)


def checked_labels(labels: Any) -> Any:
    """Labels of uint16, and thresholds between 0 and 1, if there are any."""
    if labels is None:
        return None
    numbers = [*labels] if isinstance(labels, (Sequence, Mapping, np.ndarray)) and not isinstance(labels, str) else []
    if not numbers or any(isinstance(n, bool) or n != int(n) or not 0 <= n < 2**16 for n in numbers):
        raise ValueError(
            f"labels must be whole numbers from 0 to 65535, one for each class, or a mapping of them to thresholds, "
            f"got {shown(labels)}"
        )
    if not isinstance(labels, Mapping):
        return tuple(int(n) for n in numbers)
    if not all(0 < threshold < 1 for threshold in labels.values()):
        raise ValueError(f"labels of regions need thresholds between 0 and 1, got {shown(labels)}")
    return {int(n): float(threshold) for n, threshold in labels.items()}
