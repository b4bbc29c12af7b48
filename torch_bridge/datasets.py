"""The data sets that TorchIO downloads, as an installed torchio has them: their subjects come back as the bridge's."""

from typing import Any

from torch_bridge.dataset import SubjectsDataset
from torch_bridge.lending import from_torchio
from torch_bridge.subject import Subject


def delegated(cls: Any) -> Any:
    """A data set of torchio's as a function that makes it, its subjects the bridge's."""

    def made(*args: Any, transform: Any = None, **kwargs: Any) -> SubjectsDataset | Subject:
        found = cls(*args, **kwargs)
        if not hasattr(found, "dry_iter"):
            return from_torchio(found)
        return SubjectsDataset([from_torchio(subject) for subject in found.dry_iter()], transform)

    made.__name__, made.__doc__ = cls.__name__, cls.__doc__
    return made


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        import torchio
    except ImportError:
        raise ImportError(f"tio.datasets.{name} needs torchio, which is not installed: pip install torchio") from None
    return delegated(getattr(torchio.datasets, name))
