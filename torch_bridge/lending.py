"""The way to medjax and back: voxels are lent for a call, and what comes back has memory of its own."""

import copy
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import torch

import medjax as mj
from medjax.annotations import Annotation
from torch_bridge.dlpack import Owners, lent, restored, to_torch
from torch_bridge.image import KINDS, Image, LabelMap, ScalarImage
from torch_bridge.subject import Items, Subject

WHERE_COMPUTED = "where JAX computed it"
"""Instead of a device: results stay where they are."""
OWN = "torch_bridge"
"""Under this name medjax carries, among the metadata of an image, what the bridge knows of it."""


class Own(NamedTuple):
    """What the bridge knows of an image and medjax does not: its class, its path and the user's metadata."""

    cls: type[Image]
    named: dict[str, Any]


def to_medjax(x: Any, labels: Collection[str] = ()) -> tuple[Any, Callable[..., Any]]:
    """`x` as medjax takes it, and the way back: `back(result, device)`.

    Images, subjects and batches of the bridge, subjects of an installed torchio, tensors (C, I, J, K), NumPy arrays and
    dictionaries of them become medjax's; medjax's own and JAX arrays pass. Voxels are lent, not copied, and come back
    in memory of their own, on the device and in the type that they had; `device` is another one, or `WHERE_COMPUTED`.
    labels: which entries of a dictionary are labels.
    """
    if isinstance(x, Items):
        return subject_to_medjax(x)
    if isinstance(x, Image):
        inner, back = subject_to_medjax(Subject(image=x))
        return inner["image"], lambda result, device=None: back(mj.Subject(image=result), device)["image"]
    if isinstance(x, torch.Tensor):
        return lent_tensor(x, False)
    if isinstance(x, np.ndarray):
        return x, lambda result, device=None: np.array(result)
    if isinstance(x, dict) and any(isinstance(v, (torch.Tensor, np.ndarray)) for v in x.values()):
        parts = {
            name: lent_tensor(value, name in labels) if isinstance(value, torch.Tensor) else to_medjax(value)
            for name, value in x.items()
        }
        inner = {name: part[0] for name, part in parts.items()}
        return inner, lambda result, device=None: {
            n: parts[n][1](v, device) if n in parts else to_torch(v, copy=True) for n, v in result.items()
        }
    if type(x).__module__.partition(".")[0] == "torchio":
        return to_medjax(from_torchio(x))
    return x, lambda result, device=None: result


def lent_tensor(x: torch.Tensor, labels: bool) -> tuple[Any, Callable[..., Any]]:
    """`to_medjax` of a tensor, of labels or of intensities."""
    owners = Owners([x])
    return lent(x, labels), lambda result, device=None: placed(result, x.dtype, device or x.device, owners)


def subject_to_medjax(x: Items) -> tuple[mj.Subject, Callable[..., Any]]:
    """`to_medjax` of a subject or batch."""
    given = dict(x.items())
    images = {n: i.read() for n, i in given.items() if isinstance(i, Image)}
    lend = {n: lent_image(i) for n, i in images.items()}
    lend |= {n: i for n, i in given.items() if i is None or isinstance(i, Annotation)}
    # What was read for this call belongs to nobody else.
    held = [item.data for item in given.values() if isinstance(item, Image) and item._tensor is not None]

    def back(result: mj.Subject, device: Any = None) -> Any:
        owners = Owners(held)
        # In the order in which they came; nobody else's either is what medjax need not know.
        items = {n: None if n in lend else copy.deepcopy(item) for n, item in given.items()}
        for name, item in result.items():
            if isinstance(item, mj.Image):
                was = images.get(name)
                where = device or (images.get(name) or next(iter(images.values()))).device
                data = placed(item.data, None if was is None else was.data.dtype, where, owners)
                items[name] = taken(item, data)
            else:
                items[name] = item
        return x._with(items)

    return mj.Subject(lend), back


def lent_image(image: Image) -> mj.Image:
    """medjax's image of voxels that are read, for a call that waits for its result."""
    data = lent(image.data, image.kind is mj.LabelMap)
    return image.kind.of(data, image.affine, metadata=carried(image), assumed=image._source.assumed)


def carried(image: Image) -> Any:
    """The header of an image with what the bridge knows beside it, so that medjax takes both along; B in a batch."""
    header, named = image._source.metadata, image._named
    if isinstance(header, dict):
        return {**header, OWN: Own(type(image), named)}
    each = ({name: values[i] for name, values in named.items()} for i in range(len(header)))
    return tuple({**one, OWN: Own(type(image), own)} for one, own in zip(header, each, strict=True))


def taken(item: mj.Image, data: torch.Tensor, affine: Any = None, header: Any = None) -> Image:
    """The image of a result: of the class, with the path and the metadata of the one that it was made of."""
    header = item.metadata if header is None else header
    affine = np.array(item.affine if affine is None else affine)
    several = isinstance(header, tuple)
    every = header if several else (header,)
    rest = tuple({name: value for name, value in one.items() if name != OWN} for one in every)
    cls, owns = KINDS[type(item)], [one.get(OWN) for one in every]
    if any(own is None or own.cls.kind is not type(item) for own in owns):
        named: list[dict[str, Any]] = [{"path": None} for _ in every]  # made of an image of another kind
    else:
        cls, named = owns[0].cls, [copy.deepcopy(own.named) for own in owns]
    if not several:
        return cls.of(data, affine, rest[0], item.assumed, named[0])
    return cls.of(data, affine, rest, item.assumed, {n: [one.get(n) for one in named] for n in named[0]})


def placed(array: Any, dtype: torch.dtype | None, device: Any, owners: Owners) -> torch.Tensor:
    """A result as a tensor on a device, in the type of what it was made of, in memory of its own."""
    tensor = restored(to_torch(array), dtype)
    if device != WHERE_COMPUTED:
        tensor = tensor.to(device)
    return owners.own(tensor)


def from_torchio(subject: Any) -> Any:
    """A subject or image of torchio as one of the bridge; its tensors are shared, its files read when asked for."""
    if hasattr(subject, "get_images_dict"):
        images = subject.get_images_dict(intensity_only=False)
        return Subject({n: from_torchio(item) if n in images else item for n, item in subject.items()})
    cls = ScalarImage if subject["type"] == "intensity" else LabelMap
    if subject.path is not None and not getattr(subject, "_loaded", True):
        return cls(subject.path)
    return cls(tensor=subject.data, affine=subject.affine)
