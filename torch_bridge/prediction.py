"""A torch network over whole volumes, its scores brought to the grids of the files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any

import jax
import torch

import medjax as mj
from medjax.arguments import choice
from medjax.prediction.accepted import checked_flips, checked_labels
from medjax.prediction.predict import SPACES, Plan, run, windowing_of
from torch_bridge import forked
from torch_bridge.arguments import argument_errors
from torch_bridge.dlpack import lent, to_torch
from torch_bridge.image import LabelMap, ScalarImage
from torch_bridge.lending import to_medjax
from torch_bridge.steps import has_torch


def predict(
    module: torch.nn.Module | Sequence[torch.nn.Module],
    subject_or_paths: Any,
    pipeline: mj.Transform,
    *,
    patch_size: Any,
    overlap: Any = 0.5,
    batch_size: int = 1,
    labels: Sequence[int] | Mapping[int, float] | None = None,
    space: str = "logits",
    flips: Sequence[int] = (),
    out: Any = None,
    probabilities: bool = False,
    memory: int | str | None = None,
    progress: bool = False,
) -> Any:
    """`medjax.predict` of a torch network: the label map of a subject on its own grid.

    module: from (B, C, *patch_size), the channels of all scalar images, to logits (B, K, *out), run in `eval` and
    without gradients on the device where its parameters are, and left as it was; several are averaged. The other
    arguments are those of `medjax.predict`; subjects and images may be the bridge's. What comes back are images of the
    bridge.
    Raises ValueError for a pipeline with steps in torch; RuntimeError in a forked child.

    >>> found = tio.predict(network, "ct.nii.gz", tio.Compose([tio.ToCanonical(), tio.Resample(1.5)]), patch_size=96)
    """
    if forked.in_child():
        raise RuntimeError("a forked child runs no JAX: predict in the process that it was forked from")
    modules = [module] if isinstance(module, torch.nn.Module) else list(module)
    with argument_errors():
        if has_torch(pipeline):
            raise ValueError("pipeline must be compiled: what its steps in torch do cannot be taken back")
        labels, axes = checked_labels(labels), checked_flips(flips)
        regions = isinstance(labels, Mapping)
        network = partial(scores_of, modules, axes, space == "probabilities", regions)
        windowing = windowing_of(patch_size, overlap, batch_size, memory, progress)
        plan = Plan(network, pipeline, windowing, labels, choice(*SPACES)("space", space), probabilities)
        with evaluating(modules):
            found = run(plan, given(subject_or_paths), out)
    return bridged(found)


@contextmanager
def evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Networks in `eval`, and afterwards each part of them as it was: some may be frozen in the midst of training."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in before:
            part.training = training


@torch.no_grad()
def scores_of(
    modules: Sequence[torch.nn.Module], axes: Sequence[int], activated: bool, regions: bool, patches: mj.Subject
) -> jax.Array:
    """The mean of what modules make of patches, mirrored in all ways along some axes."""
    parts = [to_torch(image.data) for image in patches.images.values() if not image.is_label]
    first = next((p for module in modules for p in module.parameters()), torch.empty(0))
    x = torch.cat([part.float() for part in parts], 1).to(first.device)
    ways = [[a + 2 for a in some] for n in range(len(axes) + 1) for some in combinations(axes, n)]
    total: torch.Tensor | None = None
    for module in modules:
        for way in ways:
            found = module(x.flip(way)).float()
            found = (found.sigmoid() if regions else found.softmax(1)) if activated else found
            total = found.flip(way) if total is None else total + found.flip(way)
    if total is None:
        raise ValueError("module must be a network or several, got none")
    return jax.numpy.asarray(lent(total / (len(modules) * len(ways))))


def given(x: Any) -> Any:
    """Subjects and images of the bridge as medjax's, in a sequence too."""
    if isinstance(x, (list, tuple)):
        return [given(item) for item in x]
    return to_medjax(x)[0]


def bridged(found: Any) -> Any:
    """Images of medjax as the bridge's."""
    if isinstance(found, (list, tuple)):
        return type(found)(bridged(item) for item in found)
    if not isinstance(found, mj.Image):
        return found
    kind = LabelMap if found.is_label else ScalarImage
    return kind(tensor=to_torch(found.numpy(), copy=True), affine=found.affine)
