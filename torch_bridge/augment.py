"""A pipeline inside torch: as a module on batches, as a differentiable function, beside MONAI."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import jax
import numpy as np
import torch

import medjax as mj
from medjax import keys
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.bridge import as_key, compute_batch, draw_key
from torch_bridge.constants import PATH
from torch_bridge.dlpack import Owners, lent, to_torch
from torch_bridge.image import Image, LabelMap, ScalarImage
from torch_bridge.lending import subject_to_medjax
from torch_bridge.subject import Batch, Subject
from torch_bridge.transforms import bridged


class Augment(torch.nn.Module):
    """Augments batches that are on their device, every element differently: a layer before the network.

    pipeline: a transform.  seed: of its stream of keys; each rank of a distributed run has its own.  labels: names of
    the label maps of a dictionary; None for those of whole numbers or truth values.

    `augment(batch)` takes a Batch, a tensor (B, C, I, J, K), or a dictionary of such tensors, MONAI's with their
    affines too; what is no 5-D tensor in it passes. The same type comes back, in new memory, on the same device.
    Gradients do not pass (see `differentiable`). It augments in `eval()` as well. How many batches it has seen is in
    its `state_dict`, so that training that is resumed goes on with the same draws.
    """

    def __init__(self, pipeline: mj.Transform, seed: int = 0, *, labels: Sequence[str] | None = None):
        super().__init__()
        if not isinstance(pipeline, mj.Transform):
            raise TypeError(f"pipeline must be a transform, got {pipeline!r}")
        self.pipeline, self.seed, self.labels = pipeline, seed, labels
        self.count = 0

    def get_extra_state(self) -> dict[str, int]:
        """The seed, and how many batches were augmented."""
        return {"seed": self.seed, "count": self.count}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.seed, self.count = state["seed"], state["count"]

    @torch.no_grad()
    def forward(self, batch: Any) -> Any:
        """The augmented batch."""
        subject, restore = as_batch(batch, self.labels)
        inner, back = subject_to_medjax(subject)
        rank = torch.distributed.get_rank() if distributed() else 0
        key = as_key(self.seed) if is_random(self.pipeline) else None
        result = forked.run(compute_counted, self.pipeline, inner, key, rank, self.count)
        self.count += 1
        return restore(back(result))

    def extra_repr(self) -> str:
        """What it is made of, when it is printed."""
        return f"{self.pipeline!r}, seed={self.seed}"


def distributed() -> bool:
    """Whether this is one process of several under torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def compute_counted(t: mj.Transform, batch: mj.Subject, key: Any, rank: int, count: int) -> mj.Subject:
    """A batch by the key of a rank and a count."""
    key = None if key is None else keys.for_element(keys.as_key(key), rank, count)
    return compute_batch(t, batch, key)


def as_batch(x: Any, labels: Sequence[str] | None) -> tuple[Batch, Callable[[Batch], Any]]:
    """Batches of any kind as a Batch, and the way back."""
    if isinstance(x, Batch):
        return x, lambda batch: batch
    if isinstance(x, torch.Tensor):
        return Batch({"image": as_image(x, False)}), lambda batch: as_tensor(batch["image"], x)
    if not isinstance(x, dict):
        raise TypeError(f"a batch is a Batch, a tensor (B, C, I, J, K) or a dictionary of them, got {type(x).__name__}")
    found = {name: value for name, value in x.items() if isinstance(value, torch.Tensor) and value.ndim == 5}
    for name in labels or ():
        if name not in found:
            raise ValueError(f"labels names {name!r}, which is no tensor (B, C, I, J, K) of the batch")
    images = {}
    for name, value in found.items():
        images[name] = as_image(value, not value.is_floating_point() if labels is None else name in labels)

    def back(batch: Batch) -> dict[str, Any]:
        result = {n: as_tensor(i, found.get(n)) for n, i in batch.get_images_dict(intensity_only=False).items()}
        return {**{n: result.get(n, value) for n, value in x.items()}, **result}

    return Batch(images), back


def as_image(tensor: torch.Tensor, label: bool) -> Image:
    """A tensor, MONAI's MetaTensor with its affine, as an image; batched or not."""
    leading = tensor.shape[:-4]
    affine = np.eye(4)
    if is_meta(tensor):
        affine = np.asarray(tensor.affine.cpu(), np.float64)  # pyright: ignore
        tensor = tensor.as_tensor()  # pyright: ignore
    affine = np.broadcast_to(affine, (*leading, 4, 4))
    header, path = (({},) * leading[0], [None] * leading[0]) if leading else ({}, None)
    return (LabelMap if label else ScalarImage).of(tensor, affine, header, named={PATH: path})


def is_meta(tensor: Any) -> bool:
    """Whether it is MONAI's MetaTensor."""
    return hasattr(tensor, "as_tensor") and hasattr(tensor, "affine")


def as_tensor(image: Image, like: Any) -> torch.Tensor:
    """The voxels of an image, as a MetaTensor with the image's affine if `like` is one."""
    if not is_meta(like):
        return image.data
    affine = torch.from_numpy(np.array(image._source.affine, np.float64))
    return type(like)(image.data, affine=affine, meta={n: v for n, v in like.meta.items() if n != "affine"})


# -- gradients


def differentiable(pipeline: mj.Transform) -> Callable[..., torch.Tensor]:
    """A pipeline as a function inside autograd: `f(tensor, key)`, a tensor (C, I, J, K) to the transformed one.

    Gradients reach the tensor, and gradients of gradients. What is drawn is constant: the same key gives the same map.
    key: a `jax.random.key`, an integer as a seed, or None to draw one from torch's default generator if one is needed.
    The result has the tensor's type; float64 is computed in float64. Compiled once for each shape.
    Raises TypeError for a tensor of whole numbers, and for a pipeline whose result has a shape that depends on values;
    RuntimeError in a forked child.
    """

    def function(tensor: torch.Tensor, key: Any = None) -> torch.Tensor:
        if not tensor.is_floating_point():
            raise TypeError(f"gradients are of fractions, got a tensor of {tensor.dtype}")
        if forked.in_child():
            raise RuntimeError("a forked child runs no JAX: start workers by spawn or forkserver")
        key = draw_key() if key is None and is_random(pipeline) else as_key(key)
        return Function.apply(value, pipeline, key, tensor)[0]  # pyright: ignore

    return function


def value(t: mj.Transform, key: Any, x: jax.Array) -> tuple[jax.Array]:
    """The result for a bare array, by what the key draws; traced."""
    params = mj.Transform.sample(t, key, x)
    return (mj.Transform.apply(t, x, params).astype(x.dtype),)


@cache
def pullback(program: Callable[..., Any], count: int) -> Callable[..., Any]:
    """The program of the gradients of another, which has `count` inputs; it takes them and then the cotangents."""

    def gradients(t: mj.Transform, key: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        _, pull = jax.vjp(partial(program, t, key), *arrays[:count])
        return pull(arrays[count:])

    return gradients


@cache
def compiled(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program, compiled."""
    return jax.jit(program)


class Function(torch.autograd.Function):
    """A program of JAX as a function of torch, whose gradient is such a function again."""

    @staticmethod
    def forward(ctx: Any, program: Callable[..., Any], t: Any, key: Any, *tensors: torch.Tensor) -> Any:
        """The results of the program, in memory of their own."""
        ctx.program, ctx.rest = program, (t, key)
        ctx.save_for_backward(*tensors)
        owners = Owners(tensors)
        with jax.enable_x64(any(tensor.dtype == torch.float64 for tensor in tensors)):
            results = jax.block_until_ready(compiled(program)(t, key, *(lent(tensor.detach()) for tensor in tensors)))
        return tuple(owners.own(to_torch(result).to(tensors[0].device)) for result in results)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        """The gradients with respect to the tensors."""
        inputs = ctx.saved_tensors
        gradients = Function.apply(pullback(ctx.program, len(inputs)), *ctx.rest, *inputs, *cotangents)
        return None, None, None, *gradients  # pyright: ignore


# -- MONAI


def as_monai(pipeline: mj.Transform, *, images: Sequence[str], labels: Sequence[str] = ()) -> Callable[..., dict]:
    """A pipeline as a dictionary transform, for `monai.transforms.Compose`.

    images: keys of the scalar images.  labels: keys of the label maps.  Tensors (C, I, J, K), arrays and MetaTensors,
    whose affine is used and brought up to date; what else the dictionary holds passes. Keys are drawn from torch's
    default generator, which `monai.utils.set_determinism` seeds.
    """
    return AsMonai(pipeline, images, labels)


class AsMonai:
    """What `as_monai` makes."""

    def __init__(self, pipeline: mj.Transform, images: Sequence[str], labels: Sequence[str]):
        self.pipeline, self.images, self.labels = bridged(pipeline), tuple(images), tuple(labels)

    def __call__(self, data: dict[str, Any], key: Any = None) -> dict[str, Any]:
        names = dict.fromkeys((*self.images, *self.labels))
        given = {name: torch.as_tensor(data[name]) for name in names}
        result = self.pipeline(Subject({n: as_image(tensor, n in self.labels) for n, tensor in given.items()}), key)
        return {
            **data,
            **{n: as_tensor(image, given.get(n)) for n, image in result.get_images_dict(intensity_only=False).items()},
        }


def from_monai(transform: Callable[[Any], Any], *, include: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """A MONAI array transform as a function of a Subject, for a `SubjectsDataset` or between other calls.

    include: names of the images it is called on; None for all scalar images. It gets a MetaTensor (C, I, J, K), and
    what it makes of the affine is kept. Raises ImportError without MONAI.
    """
    return FromMonai(transform, include)


class FromMonai:
    """What `from_monai` makes."""

    def __init__(self, transform: Callable[[Any], Any], include: Sequence[str] | None):
        self.transform, self.include = transform, include

    def __call__(self, subject: Subject) -> Subject:
        try:
            from monai.data.meta_tensor import MetaTensor
        except ImportError:
            raise ImportError("from_monai needs monai, which is not installed: pip install monai") from None
        result = subject._with(dict(subject.items()))
        for name, image in subject.get_images_dict(intensity_only=False).items():
            if name in self.include if self.include is not None else isinstance(image, ScalarImage):
                made = self.transform(MetaTensor(image.data.clone(), affine=torch.from_numpy(image.affine)))
                affine = np.asarray(made.affine, np.float64) if is_meta(made) else image.affine
                tensor = made.as_tensor() if is_meta(made) else torch.as_tensor(made)
                result[name] = image.like(tensor, affine)
        return result
