"""What was done to a subject: to be read, done again, or undone."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self


class Composed:
    """Transforms one after the other, and the way back: what `get_composed_history` gives."""

    def __init__(self, transforms: Sequence[Any], undo: Callable[..., Any] | None = None):
        self.transforms, self._undo = list(transforms), undo

    def __call__(self, x: Any) -> Any:
        for t in self.transforms:
            x = t(x)
        return x

    def inverse(self, warn: bool = True) -> Any:
        """The way back. Raises RuntimeError for one that is a way back itself."""
        if self._undo is None:
            raise RuntimeError("this is the way back already")
        return self._undo(warn=warn)

    def __len__(self) -> int:
        return len(self.transforms)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.transforms)

    def __getitem__(self, index: Any) -> Any:
        return self.transforms[index]

    def __repr__(self) -> str:
        return f"Composed({self.transforms})"


class WithHistory:
    """Abstract. A subject that remembers what was done to it, by records that hold no voxels.

    A record has `applied(ignore_intensity, image_interpolation)`, what it did step by step, and
    `inverse(warn, ignore_intensity, image_interpolation)`, what takes it back, or None.
    """

    _history: list[Any]
    _ready: Callable[[], Any]

    @property
    def applied_transforms(self) -> list[Any]:
        """The records, the first one first."""
        self._ready()
        return self.__dict__.setdefault("_history", [])

    @applied_transforms.setter
    def applied_transforms(self, records: Sequence[Any]) -> None:
        self._ready()
        self.__dict__["_history"] = list(records)

    @property
    def history(self) -> list[Any]:
        """The transforms that were applied, with what was drawn: each can be called, and does the same again."""
        return self.get_applied_transforms()

    def clear_history(self) -> None:
        """Forget what was done."""
        self.applied_transforms = []

    def add_transform(self, transform: Any, parameters_dict: Any = None) -> None:
        """Put a record at the end."""
        del parameters_dict
        self.applied_transforms.append(transform)

    def get_applied_transforms(
        self, ignore_intensity: bool = False, image_interpolation: str | None = None
    ) -> list[Any]:
        """As `history`; without intensity transforms, and with another interpolation of scalar images."""
        records = self.applied_transforms
        return [t for record in records for t in record.applied(ignore_intensity, image_interpolation)]

    def get_composed_history(self, ignore_intensity: bool = False, image_interpolation: str | None = None) -> Composed:
        """All of it as one transform, which has an `inverse()`."""
        given = (ignore_intensity, image_interpolation)

        def undo(warn: bool = True) -> Composed:
            return self.get_inverse_transform(warn, *given)

        return Composed(self.get_applied_transforms(*given), undo)

    def get_inverse_transform(
        self, warn: bool = True, ignore_intensity: bool = False, image_interpolation: str | None = None
    ) -> Composed:
        """What takes it all back, the last first; what cannot be undone is left out, and warned of."""
        records = reversed(self.applied_transforms)
        found = [record.inverse(warn, ignore_intensity, image_interpolation) for record in records]
        found = [t for t in found if t is not None]
        if warn and not found:
            warnings.warn("No invertible transforms found", RuntimeWarning, stacklevel=3)
        return Composed(found)

    def apply_inverse_transform(self, **options: Any) -> Self:
        """The subject with what was done to it undone; options as in `get_inverse_transform`."""
        result = self.get_inverse_transform(**options)(self)
        result.clear_history()
        return result
