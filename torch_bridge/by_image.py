"""Arguments given by image, as `Noise(mean={"t1": 0, "t2": 1}, std=1, seed=0)`: one transform for each name."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

import medjax as mj
from torch_bridge.arguments import BASE, ArgumentError

OWN = ("landmarks",)
"""Arguments that are dictionaries by image in medjax, too."""


def named_arguments(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a transform of medjax by their names, or none for more of them than it has."""
    names = [f.name for f in fields(cast(Any, cls)) if f.init and not f.kw_only]
    return {} if len(args) > len(names) else {**dict(zip(names, args, strict=False)), **kwargs}


def given_by_image(cls: type, given: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Which arguments of an intensity transform that draws nothing are dictionaries by the name of the image."""
    if not issubclass(cls, mj.IntensityTransform) or cls.random:
        return {}
    found = {name: value for name, value in given.items() if isinstance(value, Mapping) and value}
    return {
        name: value
        for name, value in found.items()
        if name not in (*BASE, *OWN) and all(isinstance(image, str) for image in value)
    }


def arguments_of_each(given: Mapping[str, Any], by_image: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The arguments for each image, without those that every transform has.

    Raises ArgumentError for dictionaries that name different images.
    """
    images = list(next(iter(by_image.values())))
    for name, each in by_image.items():
        if set(each) != set(images):
            raise ArgumentError(
                f"arguments by image must name the same ones, got {images}, and {list(each)} for {name}"
            )
    shared = {name: value for name, value in given.items() if name not in BASE and name not in by_image}
    return {image: shared | {name: each[image] for name, each in by_image.items()} for image in images}
