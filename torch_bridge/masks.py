"""What TorchIO's transforms offer to those that are written on top of them: arguments, masks and draws, in torch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from medjax.arguments import six
from torch_bridge.image import LabelMap

HALVES = {"Right": (1, True), "Left": (1, False), "Anterior": (2, True), "Posterior": (2, False),
          "Superior": (3, True), "Inferior": (3, False)}  # fmt: skip
"""The axis of an anatomical half of a tensor (C, I, J, K) along R, A, S, and whether it is the upper one."""


class Helpers:
    """Abstract. Methods by which a transform of the user's reads its arguments, finds masks and draws."""

    p: Any

    @property
    def name(self) -> str:
        """The name of the class."""
        return type(self).__name__

    @property
    def probability(self) -> float:
        """That it is applied."""
        return float(self.p)

    @staticmethod
    def parse_probability(probability: Any) -> Any:
        """A number from 0 to 1; raises ValueError for anything else."""
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 <= probability <= 1:
            raise ValueError(f"p must be a number from 0 to 1, got {probability!r}")
        return probability

    @staticmethod
    def to_range(n: float, around: float | None) -> tuple[float, float]:
        """(0, n), or (around - n, around + n)."""
        return (0.0, float(n)) if around is None else (float(around - n), float(around + n))

    def parse_params(
        self, params: Any, around: float | None, name: str, make_ranges: bool = True, **limits: Any
    ) -> tuple[float, ...]:
        """Six numbers, a range for each axis, from one, two, three or six; three or as given without `make_ranges`."""
        given = tuple(float(n) for n in np.ravel(np.asarray(params)))
        if len(given) == 1 or (len(given) == 2 and make_ranges):
            given *= 3
        if not make_ranges:
            return given
        if len(given) == 3:
            given = tuple(end for n in given for end in self.to_range(n, around))
        if len(given) != 6:
            raise ValueError(f"{name} must be one, two, three or six numbers, got {params!r}")
        for low, high in zip(given[::2], given[1::2], strict=True):
            self._parse_range((low, high), name, **limits)
        return given

    @staticmethod
    def _parse_range(
        nums_range: Any, name: str, min_constraint: Any = None, max_constraint: Any = None, type_constraint: Any = None
    ) -> tuple[Any, Any]:
        """(low, high) from a pair, or from one number n: (-n, n), or (min_constraint, n)."""
        one = isinstance(nums_range, int | float)
        if one and nums_range < 0:
            raise ValueError(f"{name} must be at least 0 if it is one number, got {nums_range}")
        pair = (-nums_range if min_constraint is None else min_constraint, nums_range) if one else nums_range
        try:
            low, high = pair
            wrong = low > high or not all(isinstance(n, int | float | np.number) for n in (low, high))
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be one number or two, got {nums_range!r}") from None
        given = (high,) if one else (low, high)
        wrong |= any(min_constraint is not None and n < min_constraint for n in given)
        wrong |= any(max_constraint is not None and n > max_constraint for n in given)
        wrong |= any(type_constraint is not None and not isinstance(n, type_constraint) for n in given)
        if wrong:
            raise ValueError(
                f"{name} must be ascending, of {type_constraint or 'numbers'}, from {min_constraint} to "
                f"{max_constraint}, got {nums_range!r}"
            )
        return low, high

    @staticmethod
    def sample_uniform(a: float, b: float) -> float:
        """A number from [a, b)."""
        return torch.empty(1).uniform_(a, b).item()

    @classmethod
    def sample_uniform_sextet(cls, params: Sequence[float]) -> tuple[float, ...]:
        """A number from each of three ranges."""
        return tuple(cls.sample_uniform(a, b) for a, b in zip(params[::2], params[1::2], strict=True))

    @staticmethod
    def _get_random_seed() -> int:
        """A seed."""
        return int(torch.randint(0, 2**31, (1,)).item())

    @staticmethod
    def parse_bounds(bounds_parameters: Any) -> tuple[int, ...] | None:
        """Six whole numbers of at least 0, a low and a high one for each axis, from one, three or six."""
        try:
            found = None if bounds_parameters is None else six(bounds_parameters)
        except (TypeError, ValueError):
            found = (-1,)
        if found is not None and min(found) < 0:
            raise ValueError(f"bounds must be 1, 3 or 6 whole numbers of at least 0, got {bounds_parameters!r}")
        return found

    @staticmethod
    def ones(tensor: torch.Tensor) -> torch.Tensor:
        """A mask of all voxels."""
        return torch.ones_like(tensor, dtype=torch.bool)

    @staticmethod
    def mean(tensor: Any) -> Any:
        """A mask of the voxels above the mean of all."""
        return tensor > (tensor.float() if isinstance(tensor, torch.Tensor) else tensor).mean()

    def get_mask_from_masking_method(
        self, masking_method: Any, subject: Any, tensor: torch.Tensor, labels: Sequence[int] | None = None
    ) -> torch.Tensor:
        """The mask that a masking method stands for, of bool, like `tensor`.

        None: all voxels.  A function of the tensor.  The name of a label map: what is not 0 there, or is one of
        `labels`.  'Left', 'Anterior', ...: that half.  1, 3 or 6 whole numbers: voxels to leave out at the sides.
        """
        if masking_method is None:
            return self.ones(tensor)
        if callable(masking_method):
            return masking_method(tensor)
        if isinstance(masking_method, str):
            image = subject.get(masking_method)
            if isinstance(image, LabelMap):
                return torch.isin(image.data, torch.tensor(labels)) if labels is not None else image.data.bool()
            if masking_method.capitalize() in HALVES:
                return self.get_mask_from_anatomical_label(masking_method, tensor)
        elif isinstance(masking_method, int | tuple | list):
            return self.get_mask_from_bounds(masking_method, tensor)
        raise ValueError(
            f"masking_method must be None, a function, the name of a label map, one of {', '.join(HALVES)}, or 1, 3 "
            f"or 6 whole numbers, got {masking_method!r}"
        )

    @staticmethod
    def get_mask_from_anatomical_label(anatomical_label: str, tensor: torch.Tensor) -> torch.Tensor:
        """A mask of a half of a tensor whose axes run along R, A, S."""
        half = HALVES.get(anatomical_label.capitalize())
        if half is None:
            raise ValueError(f"anatomical_label must be one of {', '.join(HALVES)}, got {anatomical_label!r}")
        mask, (axis, upper) = torch.zeros_like(tensor, dtype=torch.bool), half
        middle, size = tensor.shape[axis] // 2, tensor.shape[axis]
        mask.narrow(axis, middle if upper else 0, size - middle if upper else middle).fill_(True)
        return mask

    def get_mask_from_bounds(self, bounds_parameters: Any, tensor: torch.Tensor) -> torch.Tensor:
        """A mask of all voxels but a border."""
        low_i, high_i, low_j, high_j, low_k, high_k = self.parse_bounds(bounds_parameters) or (0,) * 6
        i, j, k = tensor.shape[1:]
        mask = torch.zeros_like(tensor, dtype=torch.bool)
        mask[:, low_i : i - high_i, low_j : j - high_j, low_k : k - high_k] = True
        return mask


class MaskFunction:
    """A masking function of the user's as medjax calls it: traced if it can be, else called with a tensor."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __call__(self, data: Any) -> Any:
        import jax

        try:
            return self.function(data)
        except Exception:  # it is written for tensors: whatever is wrong with it is raised by the call with one
            shape = jax.ShapeDtypeStruct(data.shape, bool)
            return jax.pure_callback(self.of_tensor, shape, data, vmap_method="sequential")

    def of_tensor(self, data: Any) -> np.ndarray:
        """The mask of an array by a function of a tensor."""
        return np.asarray(self.function(torch.from_numpy(np.array(data)))).astype(bool)

    def __repr__(self) -> str:
        return repr(self.function)
