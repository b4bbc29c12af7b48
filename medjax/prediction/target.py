"""What is filled on the native grid, and by what rule."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Shaped

from medjax.ops.election import Decision
from medjax.typing import Shape3


class Target(NamedTuple):
    """The native grid as it is filled.

    labels: (I, J, K).  probabilities: (C, I, J, K) float32, or None if nobody asks for them.  finish: what makes
    probabilities of interpolated scores.
    """

    decision: Decision
    finish: Callable[[Array], Array]
    labels: Shaped[np.ndarray, "I J K"]
    probabilities: Float[np.ndarray, "C I J K"] | None


def target_of(
    shape: Shape3, count: int, decision: Decision, finish: Callable[[Array], Array], probable: bool
) -> Target:
    """A grid on which nothing has been seen yet: label 0, and of classes, but not of regions, the first is certain.

    Raises ValueError for as many classes as `decision` has not.
    """
    if count != len(decision.labels):
        raise ValueError(f"labels must have one entry for each of the {count} classes, got {len(decision.labels)}")
    probabilities = np.zeros((count, *shape), np.float32) if probable else None
    if probabilities is not None and decision.thresholds is None:
        probabilities[0] = 1
    return Target(decision, finish, np.zeros(shape, decision.labels.dtype, order="F"), probabilities)


def raise_if_nan(bad: bool) -> None:
    """Raise the error of scores that are NaN."""
    if bad:
        raise ValueError("apply_fn gives scores that are NaN")
