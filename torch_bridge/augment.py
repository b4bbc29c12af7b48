"""A pipeline as a layer before the network."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import torch

import medjax as mj
from medjax import keys
from medjax.transforms.program import is_random
from torch_bridge import forked
from torch_bridge.bridge import as_key, compute_batch, draw_key
from torch_bridge.gradients import untraced
from torch_bridge.lending import subject_to_medjax
from torch_bridge.ranks import own_rank
from torch_bridge.subject import Batch, Subject, same_shapes, stacked
from torch_bridge.tensors import as_batch, images_of, with_images

COUNTING = threading.Lock()
"""Threads that share a layer have counts of their own."""


class Augment(torch.nn.Module):
    """Augments batches that are on their device, every element differently: a layer before the network.

    pipeline: a transform.  seed: of its stream of keys; each rank of a distributed run has its own, and
    `torch.manual_seed` changes nothing. With None each call draws its key from torch's default generator instead.
    labels: names of the label maps of a dictionary; None for those of whole numbers or truth values.

    `augment(batch)` takes a Batch, a tensor (B, C, I, J, K), a dictionary of such tensors, or a list of dictionaries of
    tensors (C, I, J, K). A tensor (B, I, J, K) on the grid of one of the images, as CrossEntropyLoss takes labels, is
    one without its channel, and comes back so. MONAI's tensors keep all that they carry, and their affines follow. What
    else a dictionary holds passes. The same type comes back, in new memory, on the same device; of an empty batch an
    empty one. A floating tensor that seems to hold labels is warned of once, and taken for intensities.
    Gradients do not pass (see `differentiable`). It augments in `eval()` as well. `torch.compile` calls it as it is,
    between what it compiles.
    How many batches it has seen is in its `state_dict`, with the seed, as a tensor, so that training that is resumed
    goes on with the same draws; weights that were saved without it load all the same.
    Raises ValueError for batches of images with two axes, which are one slice, (B, C, I, J, 1), and for whole numbers
    on the grid of an image that would not move with it; RuntimeError under `torch.export` and `torch.jit.trace`.
    """

    def __init__(self, pipeline: mj.Transform, seed: int | None = 0, *, labels: Sequence[str] | None = None):
        super().__init__()
        if not isinstance(pipeline, mj.Transform):
            raise TypeError(f"pipeline must be a transform, got {pipeline!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int | np.integer)):
            raise TypeError(f"seed must be a whole number, or None to draw from torch's generator, got {seed!r}")
        if isinstance(labels, str):
            raise TypeError(f"labels must be a sequence of names, got {labels!r}")
        self.pipeline, self.seed, self.labels = pipeline, seed, labels
        self.count, self._told = 0, set[str]()
        as_it_is()

    def get_extra_state(self) -> torch.Tensor:
        """How many batches were augmented, and the seed in two halves, if there is one."""
        seed = () if self.seed is None else as_key(self.seed).tolist()
        return torch.tensor([self.count, *seed], dtype=torch.int64)

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Go on from there."""
        self.count, *seed = state.tolist()
        self.seed = (seed[0] << 32) + seed[1] if seed else None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.setdefault(f"{prefix}_extra_state", self.get_extra_state())  # of weights that were saved without it
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, batch: Any) -> Any:
        """The augmented batch."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            raise RuntimeError(
                "Augment is a program of JAX, which torch.export and torch.jit cannot write: export the network "
                "without it, and the pipeline by jax.export"
            )
        return as_it_is()(self, batch)

    def drawn(self) -> Callable[..., Any]:
        """What makes an inner batch of one, by the key of the next call."""
        if self.seed is None:
            key = draw_key() if is_random(self.pipeline) else None
            return lambda inner, place=None: forked.run(compute_place, self.pipeline, inner, key, place)
        key = as_key(self.seed) if is_random(self.pipeline) else None
        with COUNTING:
            count, self.count = self.count, self.count + 1
        return lambda inner, place=None: forked.run(
            compute_counted, self.pipeline, inner, key, own_rank(), count, place
        )

    def extra_repr(self) -> str:
        """What it is made of, when it is printed."""
        return f"{self.pipeline!r}, seed={self.seed}"


UNTRACED: list[Callable[["Augment", Any], Any]] = []
"""`augmented`, once a layer is made: it takes torch's compiler, which takes seconds to import."""


def as_it_is() -> Callable[["Augment", Any], Any]:
    """`augmented`, which torch.compile calls as it is."""
    if not UNTRACED:
        UNTRACED.append(untraced(augmented))
    return UNTRACED[0]


@torch.no_grad()
def augmented(augment: Augment, batch: Any) -> Any:
    """A batch of any kind, augmented."""
    if isinstance(batch, list | tuple) and batch and all(isinstance(each, Mapping) for each in batch):
        return augmented_each(augment, batch)
    given, restore = as_batch(batch, augment.labels, augment._told)
    compute = augment.drawn()
    if given.batch_size == 0:
        return restore(emptied(augment.pipeline, given))
    inner, back = subject_to_medjax(given)
    return restore(back(compute(inner)))


def augmented_each(augment: Augment, batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A list of dictionaries: what a batch of them gives, at once where they are of one shape."""
    subjects = [Subject(images_of(each, augment.labels, augment._told, 4)) for each in batch]
    compute = augment.drawn()
    if same_shapes(subjects):
        inner, back = subject_to_medjax(stacked(subjects, [f"element {i}" for i in range(len(subjects))]))
        results = back(compute(inner)).unstacked()
    else:
        results = []
        for place, subject in enumerate(subjects):
            inner, back = subject_to_medjax(stacked([subject], [f"element {place}"]))
            results.extend(back(compute(inner, place)).unstacked())
    return [with_images(each, result) for each, result in zip(batch, results, strict=True)]


def emptied(t: mj.Transform, batch: Batch) -> Batch:
    """An empty batch, of the shapes that a pipeline gives; nothing is computed."""
    images = {n: i.of(i.data.new_zeros(1, *i.shape[1:]), np.eye(4)[None], ({},), named={"path": [None]})
              for n, i in batch.get_images_dict(intensity_only=False).items()}  # fmt: skip
    inner, _ = subject_to_medjax(Batch(images))
    shapes = jax.eval_shape(jax.vmap(lambda x: mj.Transform.__call__(t, x, keys.of_seed(0))), inner).images
    made = {n: i.of(i.data.new_empty(0, *shapes[n].data.shape[1:]), np.empty((0, 4, 4)), (), named={"path": []})
            for n, i in images.items() if n in shapes}  # fmt: skip
    return batch._with({**dict(batch.items()), **made})


def compute_counted(t: mj.Transform, batch: mj.Subject, key: Any, rank: int, count: int, place: Any) -> mj.Subject:
    """A batch by the key of a rank and a count."""
    key = None if key is None else keys.for_element(keys.as_key(key), rank, count)
    return compute_place(t, batch, key, place)


def compute_place(t: mj.Transform, batch: mj.Subject, key: Any, place: int | None) -> mj.Subject:
    """A batch by a key; or one element of it, by the key of its place."""
    if place is not None and key is not None:
        key = keys.for_places(keys.as_key(key), place + 1)[place:]
    return compute_batch(t, batch, key)
