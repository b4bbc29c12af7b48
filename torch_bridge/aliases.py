"""The modules in which TorchIO keeps its names, so that `from torchio.x.y import Z` runs with `torchio` changed.

Each is a module of its own, made of nothing: what it is asked for is looked up in the bridge.
"""

import importlib
import re
import sys
from types import ModuleType
from typing import Any

AUGMENTATION = {
    "intensity": "RandomBiasField RandomBlur RandomGamma RandomGhosting RandomLabelsToImage RandomMotion RandomNoise "
    "RandomSpike RandomSwap",
    "spatial": "RandomAffine RandomAffineElasticDeformation RandomAnisotropy RandomElasticDeformation RandomFlip",
}
PREPROCESSING = {
    "intensity": "Clamp HistogramStandardization Mask NormalizationTransform PCA Rescale To ZNormalization",
    "label": "Contour KeepLargest LabelTransform OneHot RemapLabels RemoveLabels SequentialLabels",
    "spatial": "BoundsTransform CopyAffine Crop CropOrPad EnsureShapeMultiple Pad Resample Resize ToCanonical "
    "ToOrientation ToReferenceSpace Transpose",
}
PLAIN = [
    "data",
    "data.dataset",
    "data.image",
    "data.inference",
    "data.inference.aggregator",
    "data.io",
    "data.loader",
    "data.queue",
    "data.sampler",
    "data.sampler.grid",
    "data.sampler.label",
    "data.sampler.sampler",
    "data.sampler.uniform",
    "data.sampler.weighted",
    "data.subject",
    "inference",
    "sampler",
    "io",
    "reference",
    "visualization",
    "transforms.augmentation",
    "transforms.augmentation.composition",
    "transforms.augmentation.random_transform",
    "transforms.data_parser",
    "transforms.fourier",
    "transforms.intensity_transform",
    "transforms.interpolation",
    "transforms.lambda_transform",
    "transforms.monai_adapter",
    "transforms.preprocessing",
    "transforms.spatial_transform",
    "transforms.transform",
]


class Alias(ModuleType):
    """A module of TorchIO's: names are those of the bridge."""

    def __init__(self, name: str, root: str, places: tuple[str, ...]):
        super().__init__(name, f"What TorchIO keeps here, in {root}.")
        self._root, self._places = root, places
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for place in self._places:
            found = vars(importlib.import_module(place)).get(name)
            if found is not None:
                return found
        raise AttributeError(f"{self.__name__} has no {name!r}; see {self._root}")


def snake(name: str) -> str:
    """The file in which TorchIO keeps a class."""
    return name.lower() if name.isupper() else re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def paths() -> list[str]:
    """The names of all such modules, the outer ones first."""
    found = list(PLAIN)
    for outer, inner in (("augmentation", AUGMENTATION), ("preprocessing", PREPROCESSING)):
        for kind, classes in inner.items():
            found += [f"transforms.{outer}.{kind}"]
            found += [f"transforms.{outer}.{kind}.{snake(name)}" for name in classes.split()]
    return found


def install(root: str, places: tuple[str, ...]) -> None:
    """Put the modules into `sys.modules`, each as an attribute of the one around it."""
    sys.modules[f"{root}.transforms"].__path__ = []  # a module that has modules in it
    for path in paths():
        full = f"{root}.{path}"
        sys.modules[full] = module = Alias(full, root, places)
        around, _, last = full.rpartition(".")
        setattr(sys.modules[around], last, module)
