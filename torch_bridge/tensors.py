"""Dictionaries of tensors as images, and back: which of them are images, which are labels, what MONAI's carry along."""

import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_bridge.constants import PATH
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.subject import Batch

LABELS = {"annotation", "gt", "label", "mask", "roi", "seg", "segmentation"}
"""Words in the names of tensors that are label maps."""
FEW = 64
"""So many values, all of them whole, are rather labels than intensities."""


def as_batch(x: Any, labels: Sequence[str] | None, told: set[str]) -> tuple[Batch, Callable[[Batch], Any]]:
    """A batch of any kind as a Batch, and the way back; labels and told as in `images_of`."""
    if isinstance(x, Batch):
        return x, lambda batch: batch
    if isinstance(x, torch.Tensor):
        return Batch({"image": as_image(x, False, "the batch", 5)}), lambda batch: as_tensor(batch["image"], x)
    if not isinstance(x, Mapping):
        raise TypeError(
            "a batch is a Batch, a tensor (B, C, I, J, K), a dictionary of them or a list of dictionaries, got "
            f"{type(x).__name__}"
        )
    return Batch(images_of(x, labels, told, 5)), lambda batch: with_images(x, batch)


def images_of(x: Mapping[str, Any], labels: Collection[str] | None, told: set[str], rank: int) -> dict[str, Image]:
    """The images of a dictionary: tensors (B, C, I, J, K) for a rank of 5, (C, I, J, K) for 4, and (B, I, J, K) or
    (I, J, K) on the grid of one of them, whose channel was left out.

    labels: names of the label maps; None for tensors of whole numbers or truth values. Then a floating one that seems
    to hold labels is warned of, and its name put into `told`.
    Raises ValueError without any image, for a name in labels that is none, and for whole numbers on the grid of an
    image whose axes are others.
    """
    tensors = {name: value for name, value in x.items() if isinstance(value, torch.Tensor)}
    whole = [tensor for tensor in tensors.values() if tensor.ndim == rank]
    if not whole:
        raise ValueError(no_image(tensors, rank))
    grids = {(*tensor.shape[: rank - 4], *tensor.shape[-3:]) for tensor in whole}
    images = {}
    for name, tensor in tensors.items():
        thin = tuple(tensor.shape) in grids
        if tensor.ndim != rank and not thin:
            check_is_no_map(name, tensor, grids)
            continue
        if labels is None and tensor.is_floating_point():
            warn_of_labels(name, tensor, told)
        label = not tensor.is_floating_point() if labels is None else name in labels
        images[name] = as_image(tensor.unsqueeze(rank - 4) if tensor.ndim < rank else tensor, label, name, rank)
    for name in labels or ():
        if name not in images:
            raise ValueError(f"labels names {name!r}, which is no image of the batch; it has {', '.join(images)}")
    return images


def no_image(tensors: Mapping[str, torch.Tensor], rank: int) -> str:
    """What is said of a dictionary without an image."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return f"there is no tensor {axes(rank)} among {shapes}; {remedy(rank)}"


def axes(rank: int) -> str:
    """The axes of an image of this rank."""
    return "(B, C, I, J, K)" if rank == 5 else "(C, I, J, K)"


def remedy(rank: int) -> str:
    """What to write instead of images of two axes."""
    return f"an image of two axes is one slice: give tensor[..., None], {axes(rank).replace('K', '1')}"


def check_is_no_map(name: str, tensor: torch.Tensor, grids: Collection[tuple[int, ...]]) -> None:
    """Raise a ValueError for whole numbers that lie on the grid of an image and would stay where they are."""
    on_grid = tensor.ndim > 2 and tuple(tensor.shape[-3:]) in {grid[-3:] for grid in grids}
    if on_grid and not tensor.is_floating_point():
        raise ValueError(
            f"{name!r}, {tuple(tensor.shape)}, lies on the grid of an image and would not move with it: give it the "
            "axes of the images, with the channel or without, or take it out of the dictionary"
        )


def warn_of_labels(name: str, tensor: torch.Tensor, told: set[str]) -> None:
    """Warn, once for each name in `told`, of a floating tensor that seems to hold labels."""
    if name in told:
        return
    words = {word.removesuffix("s") for word in re.split("[^a-z]+", name.lower())}
    seems = True if words & LABELS else holds_labels(tensor)
    if seems is not None:
        told.add(name)
    if seems:
        warnings.warn(
            f"{name!r} is of {tensor.dtype} and is taken for intensities, which are interpolated and get noise: if it "
            f"holds labels give labels=[{name!r}], or a tensor of whole numbers; labels=[] if it does not",
            stacklevel=5,
        )


def holds_labels(tensor: torch.Tensor) -> bool | None:
    """Whether a tensor holds few values, whole ones, as a label map does; None if it holds one alone."""
    values = torch.as_tensor(tensor.detach()).flatten()
    for some in (values[:: max(1, values.numel() // 4096)], values):  # a look at a few of them mostly decides
        found = some.unique()
        if len(found) > FEW or bool((found != found.trunc()).any()):
            return False
    return True if len(found) > 1 else None


def with_images(x: Mapping[str, Any], images: Any) -> dict[str, Any]:
    """A dictionary with images of a Subject or Batch for its tensors, and those that are new."""
    found = images.get_images_dict(intensity_only=False)
    made = {name: as_tensor(image, x.get(name)) for name, image in found.items()}
    return {**{name: made.get(name, value) for name, value in x.items()}, **made}


def as_image(tensor: torch.Tensor, label: bool, name: str, rank: int) -> Image:
    """A tensor, MONAI's MetaTensor with its affine, as an image. Raises ValueError for one of another rank."""
    affine = np.eye(4)
    if is_meta(tensor):
        affine = homogeneous(np.asarray(tensor.affine.cpu(), np.float64))  # pyright: ignore
        tensor = tensor.as_tensor()  # pyright: ignore
    if tensor.ndim != rank:
        raise ValueError(f"{name} must be {axes(rank)}, got shape {tuple(tensor.shape)}; {remedy(rank)}")
    leading = tensor.shape[: rank - 4]
    affine = np.broadcast_to(affine, (*leading, 4, 4))
    header, path = (({},) * leading[0], [None] * leading[0]) if leading else ({}, None)
    return (LabelMap if label else ScalarImage).of(tensor, affine, header, named={PATH: path})


PLANE = np.ix_((0, 1, 3), (0, 1, 3))
"""Of an affine, what belongs to the first two axes."""


def homogeneous(affine: np.ndarray) -> np.ndarray:
    """An affine (..., 4, 4); MONAI's of images of two axes are (..., 3, 3)."""
    if affine.shape[-1] == 4:
        return affine
    whole = np.tile(np.eye(4), (*affine.shape[:-2], 1, 1))
    whole[(..., *PLANE)] = affine
    return whole


def is_meta(tensor: Any) -> bool:
    """Whether it is MONAI's MetaTensor."""
    return hasattr(tensor, "as_tensor") and hasattr(tensor, "affine")


def as_tensor(image: Image, like: Any) -> torch.Tensor:
    """The voxels of an image, without the channel if `like` has none; a MetaTensor with all its own if that is one."""
    data = image.data
    if isinstance(like, torch.Tensor) and like.ndim == data.ndim - 1 and data.shape[-4] == 1:
        data = data.squeeze(-4)
    if not is_meta(like):
        return data
    made: Any = type(like)(data)
    made.copy_meta_from(like)
    meta: Any = like
    affine, given = np.array(image._source.affine, np.float64), meta.affine
    if given.shape[-1] == 3:
        affine = affine[(..., *PLANE)]
    if given.ndim == 2 and affine.ndim == 3 and (affine == affine[0]).all():
        affine = affine[0]  # one for all, as it was given
    made.affine = torch.from_numpy(affine)
    if "pixdim" in made.meta:
        pixdim = torch.as_tensor(made.meta["pixdim"]).clone()
        pixdim[..., 1:4] = torch.from_numpy(np.linalg.norm(homogeneous(affine)[..., :3, :3], axis=-2)).to(pixdim)
        made.meta["pixdim"] = pixdim if isinstance(meta.meta["pixdim"], torch.Tensor) else pixdim.numpy()
    return made
