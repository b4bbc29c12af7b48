"""What `as_monai` and `from_monai` make. It imports MONAI, and is imported by what needs it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.traits import MultiSampleTrait
from monai.transforms.transform import MapTransform, Randomizable
from monai.utils.enums import TraceKeys
from monai.utils.type_conversion import convert_to_tensor

from medjax.transforms.program import is_random
from torch_bridge.bridge import as_key
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.monai_adapter import MonaiAdapter, is_of_dictionaries
from torch_bridge.replay import Outline, Record
from torch_bridge.steps import has_torch
from torch_bridge.subject import Subject
from torch_bridge.tensors import as_image, as_tensor, images_of, is_meta

SPATIAL = ("monai.transforms.spatial", "monai.transforms.croppad")
"""Where MONAI keeps what moves voxels."""


def made(pipeline: Any, names: Sequence[str], labels: Sequence[str] | None, missing: bool, samples: int | None) -> Any:
    """The transform of MONAI's kinds that a pipeline is."""
    if not is_random(pipeline):
        if samples is not None:
            raise ValueError(f"num_samples={samples} samples of a pipeline that draws nothing would all be the same")
        return Deterministic(pipeline, names, labels, missing)
    return Random(pipeline, names, labels, missing) if samples is None else Samples(
        pipeline, names, labels, missing, samples
    )  # fmt: skip


class Deterministic(MapTransform, InvertibleTransform):
    """A pipeline that draws nothing, for dictionaries; see `as_monai`."""

    def __init__(self, pipeline: Any, names: Sequence[str], labels: Sequence[str] | None, allow_missing_keys: bool):
        MapTransform.__init__(self, names, allow_missing_keys)
        self.pipeline, self.labels, self.told = pipeline, labels, set[str]()

    def __call__(self, data: Mapping[Hashable, Any], key: Any = None) -> dict[Hashable, Any]:
        """The dictionary with its images transformed. key: instead of one that is drawn."""
        return self.transformed(data, as_key(key))

    def transformed(self, data: Mapping[Hashable, Any], key: Any) -> dict[Hashable, Any]:
        """The dictionary with its images transformed by a key."""
        tracked = get_track_meta()
        given = {str(name): convert_to_tensor(data[name], track_meta=tracked) for name in self.key_iterator(data)}
        if not given:
            return dict(data)
        labels = None if self.labels is None else [name for name in self.labels if name in given]
        subject = Subject(images_of(given, labels, self.told, 4))
        made = self.pipeline(subject, key).get_images_dict(intensity_only=False)
        results = {name: as_tensor(image, given.get(name)) for name, image in made.items()}
        for name, tensor in results.items():
            if is_meta(tensor) and name in given:
                self.push_transform(tensor, orig_size=tuple(given[name].shape[1:]), extra_info=trace(subject, key))
        return {**data, **results}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with its images on the grids that they came from."""
        result, images, info = dict(data), {}, None
        for name in self.key_iterator(result):
            tensor = convert_to_tensor(result[name], track_meta=True)
            info = self.pop_transform(tensor)[TraceKeys.EXTRA_INFO]
            images[str(name)] = tensor
        if info is None:
            return result
        if has_torch(self.pipeline):
            raise RuntimeError("a pipeline with steps in torch is not undone here: give those to MONAI on their own")
        maps = {name for name, label, *_ in info["grids"] if label}
        whole = {name: tensor[None] if tensor.ndim == 3 else tensor for name, tensor in images.items()}
        subject = Subject({name: as_image(tensor, name in maps, name, 4) for name, tensor in whole.items()})
        nearest = "nearest" if info["mode"] == "nearest" else None
        undo = record(self.pipeline, info).inverse(False, True, nearest)
        back = subject if undo is None else undo(subject)
        return {**result, **{name: as_tensor(back[name], tensor) for name, tensor in images.items()}}


class Random(Randomizable, Deterministic):
    """A pipeline that draws, for dictionaries; see `as_monai`."""

    key: np.ndarray | None = None

    def randomize(self, data: Any = None) -> None:
        """Draw the key of the next call."""
        del data
        self.key = self.R.randint(1 << 32, size=2, dtype=np.uint32)

    def __call__(self, data: Mapping[Hashable, Any], key: Any = None) -> dict[Hashable, Any]:
        """The dictionary with its images transformed. key: instead of one that is drawn."""
        self.randomize(data)
        return self.transformed(data, self.key if key is None else as_key(key))


class Samples(Random, MultiSampleTrait):
    """A pipeline that draws, which gives a list of dictionaries; see `as_monai`."""

    def __init__(self, *arguments: Any):
        *rest, self.num_samples = arguments
        if isinstance(self.num_samples, bool) or not isinstance(self.num_samples, int) or self.num_samples < 1:
            raise ValueError(f"num_samples must be a whole number of at least 1, got {self.num_samples!r}")
        super().__init__(*rest)

    def __call__(self, data: Mapping[Hashable, Any], key: Any = None) -> Any:
        """Dictionaries with their images transformed, each by draws of its own."""
        if key is not None:
            raise ValueError("several samples are drawn by several keys: set_random_state repeats them")
        results = [super(Samples, self).__call__(data) for _ in range(self.num_samples)]
        for place, result in enumerate(results):
            for name in self.key_iterator(result):
                if is_meta(result[name]):
                    result[name].meta["patch_index"] = place
        return results


def trace(subject: Subject, key: Any) -> dict[str, Any]:
    """What the way back needs: numbers, texts and lists alone, which a cache of MONAI's keeps."""
    images = subject.get_images_dict(intensity_only=False)
    grids = [
        [name, isinstance(image, LabelMap), list(image.shape), image.affine.tolist()] for name, image in images.items()
    ]
    words = None if key is None else np.asarray(key).tolist()
    return {"mode": "bilinear", "words": words, "grids": grids}


def record(pipeline: Any, info: Mapping[str, Any]) -> Record:
    """The record of a call that was traced."""
    kinds = {True: LabelMap.kind, False: ScalarImage.kind}
    outlines = [Outline(n, kinds[bool(label)], tuple(s), np.array(a)) for n, label, s, a in info["grids"]]
    words = None if info["words"] is None else np.array(info["words"], np.uint32)
    return Record(pipeline, words, tuple(outlines))


class FromMonai:
    """What `from_monai` makes."""

    def __init__(self, transform: Any, include: Sequence[str] | None):
        if not callable(transform):
            raise TypeError(f"transform must be a transform of MONAI, got {transform!r}")
        self.transform, self.include = transform, include

    def __call__(self, subject: Subject) -> Subject:
        """The subject after the transform."""
        if is_of_dictionaries(self.transform):
            return MonaiAdapter(self.transform).of_dictionary(subject.owned())
        images = subject.get_images_dict(intensity_only=False)
        names = [
            name for name, image in images.items()
            if (name in self.include if self.include is not None else isinstance(image, ScalarImage))
        ]  # fmt: skip
        self.check_moves(images, names)
        result = subject._with(dict(subject.items()))
        for name in names:
            image = images[name]
            made: Any = self.transform(MetaTensor(image.data.clone(), affine=torch.from_numpy(image.affine)))
            affine = np.asarray(made.affine, np.float64) if is_meta(made) else image.affine
            result[name] = image.like(made.as_tensor() if is_meta(made) else torch.as_tensor(made), affine)
        return result

    def check_moves(self, images: Mapping[str, Image], names: Sequence[str]) -> None:
        """Raise a TypeError for a transform of arrays after which images would no longer match."""
        steps = self.transform.flatten().transforms if isinstance(self.transform, Compose) else (self.transform,)
        moving = [step for step in steps if type(step).__module__.startswith(SPATIAL)]
        left = [name for name in images if name not in names] if self.include is None else []
        drawn = [step for step in moving if isinstance(step, Randomizable)] if len(names) > 1 else []
        if (moving and left) or drawn:
            name = type((drawn or moving)[0]).__name__
            why = "draw anew for each image" if drawn else f"leave {', '.join(left)} where it is"
            raise TypeError(f"{name} would {why}: take MONAI's transform of dictionaries, {name}d, which moves them "
                            "together")  # fmt: skip
