"""Pipelines among MONAI's transforms, and MONAI's among the bridge's; MONAI is imported when one is made."""

from collections.abc import Callable, Sequence
from typing import Any

import medjax as mj
from medjax.errors import needs_extra
from torch_bridge.transforms import bridged


def as_monai(
    pipeline: mj.Transform,
    keys: str | Sequence[str] = (),
    *,
    images: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    allow_missing_keys: bool = False,
    num_samples: int | None = None,
) -> Callable[..., Any]:
    """A pipeline as a dictionary transform, for `monai.transforms.Compose`; a `MapTransform`.

    keys: what it is for, as MONAI's transforms take it; what `labels` does not name is an image.  images: the same,
    without the label maps.  labels: keys of the label maps; None, without images, for those of whole numbers, and a
    floating one that seems to hold labels is warned of once.  allow_missing_keys: leave out keys that are not there.
    num_samples: None gives a dictionary; a number gives a list of so many, each by draws of its own, as MONAI's crops
    do: with `crop_by_ratio` it stands for `RandCropByPosNegLabeld`.

    Tensors (C, I, J, K), arrays and MetaTensors, whose affine is used and brought up to date; they come back as
    MetaTensors, with what they carried. What else the dictionary holds passes.
    One that draws nothing is cached by CacheDataset and PersistentDataset. One that does is a `Randomizable`: it draws
    from its `R`, which `set_random_state`, `set_determinism` and MONAI's DataLoader seed.
    `inverse`, and so `Compose.inverse` and `Invertd`, takes back what was done in space, to the grid exactly and to the
    voxels by one reading; intensities stay, as with MONAI's own.
    Raises RuntimeError there for a pipeline with steps in torch, and for one that placed itself by voxels; ImportError
    without MONAI.

    >>> t = tio.as_monai(tio.RandomAffine(degrees=10), ["image", "label"], labels=["label"])  # doctest: +SKIP
    """
    try:
        from torch_bridge import monai_transforms
    except ImportError:
        needs_extra("monai", "monai", "as_monai")
    keys = (keys,) if isinstance(keys, str) else keys
    names = tuple(dict.fromkeys((*keys, *images, *(labels or ()))))
    maps = None if labels is None and not images else tuple(labels or ())
    return monai_transforms.made(bridged(pipeline), names, maps, allow_missing_keys, num_samples)


def from_monai(transform: Callable[[Any], Any], *, include: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """A MONAI transform as a function of a Subject, for a `SubjectsDataset` or between other calls.

    One of dictionaries, or a Compose of them, gets all items, images as MetaTensors; its keys say what moves together.
    One of arrays gets a MetaTensor (C, I, J, K) of one image after the other. What they make of the affine is kept.
    include: names of the images that one of arrays is called on; None for all scalar images.
    Raises TypeError for one of arrays that moves voxels where it would leave an image of the subject behind, or draw
    anew for each; ImportError without MONAI.

    >>> t = tio.from_monai(monai.transforms.RandFlipd(["t1", "label"], prob=0.5))  # doctest: +SKIP
    """
    try:
        from torch_bridge import monai_transforms
    except ImportError:
        needs_extra("monai", "monai", "from_monai")
    return monai_transforms.FromMonai(transform, include)


def crop_by_ratio(size: int | Sequence[int], label: str, *, pos: float = 1, neg: float = 1) -> Any:
    """A crop whose middle is a voxel of a label map that is not 0, or one that is 0, by a ratio.

    size: shape of the box, one number or three.  label: the label map.  pos, neg: weights of the two; each voxel of the
    kind that was drawn is equally likely, and the box is moved into the image where it would stick out. Without any
    such voxel the place is uniform over all that fit.

    >>> crop = tio.crop_by_ratio(32, "label", pos=2, neg=1)
    """
    inside = mj.RandomCrop(size, label_name=label)
    outside = mj.RandomCrop(size, label_name=label, labels=[0])
    return bridged(mj.OneOf([inside, outside], weights=[pos, neg]))
