"""`predict`: from a file, through a network, to a label map on the file's own grid."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from medjax import geometry
from medjax.arguments import choice, flag, function_of, maybe, size_in_bytes, sizes
from medjax.arguments import whole as whole_number
from medjax.errors import shown
from medjax.image import Image, LabelMap, ScalarImage
from medjax.ops.election import Decision
from medjax.patches.grid import whole
from medjax.prediction.accepted import checked_flips, checked_labels, checked_overlap
from medjax.prediction.aligned import axes_along, fill_along_axes, layout_of
from medjax.prediction.cases import Result, each_case
from medjax.prediction.scattered import fill_points
from medjax.prediction.scores import Network, Windowing, averaged, compiled, flips_of, planes_of, stacked
from medjax.prediction.target import Target, target_of
from medjax.prediction.way import Pipeline, prepared
from medjax.subject import Subject
from medjax.typing import Shape3

SPACES = ("logits", "probabilities")


class Plan(NamedTuple):
    """How one case is predicted: a network that gives scores, the windows, and what labels are made of the scores.

    labels: see `predict`.  finish: what makes probabilities of scores.
    """

    network: Network
    pipeline: Pipeline
    windowing: Windowing
    labels: tuple[int, ...] | Mapping[int, float] | None
    space: str
    probable: bool


def predict(
    apply_fn: Callable[..., Any],
    subject_or_paths: Any,
    pipeline: Pipeline,
    *,
    patch_size: Any,
    overlap: Any = 0.5,
    batch_size: int = 1,
    labels: Sequence[int] | Mapping[int, float] | None = None,
    space: str = "logits",
    flips: Sequence[int] = (),
    models: Sequence[Any] | None = None,
    out: Any = None,
    probabilities: bool = False,
    memory: int | str | None = None,
    progress: bool = False,
) -> Any:
    """The label map of a subject on its own grid: preprocessed, run through a network by windows, and brought back.

    apply_fn: as for `sliding_window`, from a batch of patches, a Subject (B, C, *patch_size), to logits (B, K, *out).
    subject_or_paths: a Subject, an Image, an array or a path; or a sequence of them, or a folder of volumes.
    pipeline: a Transform without randomness, or `nnunet_preprocess`.  patch_size: one size or three, of its grid.
    overlap: the part of a patch that neighbours share, one number or three; windows are averaged by a Gaussian.
    labels: which label each of the K classes is, or 0 to K - 1; the class of the largest score wins. Or regions, as
    {1: 0.5, 2: 0.5}: a label and a threshold for each of the K channels, whose sigmoid is compared with it; a later
    one is written over an earlier one.
    space: in which of 'logits' and 'probabilities' (softmax; of regions sigmoid) windows, flips and models are averaged
    and scores interpolated.
    flips: axes of the patch, 0 to 2: the mean over all 2^n ways to mirror it.  models: trees of arrays, alike: the mean
    over `apply_fn(model, batch)`.
    out: a folder, into which `<name>.nii.gz` is written for each case while the next is predicted and the one after is
    read, those that are there being skipped; for one case a file too.
    probabilities: give those of all K on the native grid too, float32.  memory: bytes, or '8GB'; where the scores in
    work take more, they are put together in the host's memory.  progress: show a bar (needs tqdm).

    Gives a LabelMap (1, I, J, K) of uint8, or uint16 for labels above 255, on the grid of the first scalar image, with
    its header; with `probabilities` a pair of it and a ScalarImage (K, I, J, K'); a list for several cases; with `out`
    paths. What no score shows is 0 (the first class is certain there). Scores are interpolated linearly. Where the way
    back runs along axes (crops, pads, flips, permutations, resampling) planes are brought back and dropped as soon as
    no window is to come that touches them, so that memory is that of K classes over the depth of a window.
    Raises ValueError for a random pipeline, for scores that are NaN, and for labels that are not as many as classes.

    >>> found = mj.predict(network, "ct.nii.gz", mj.Compose([mj.ToCanonical(), mj.Resample(1.5)]), patch_size=96)
    >>> found.save("ct_seg.nii.gz")
    """
    function_of("apply_fn", apply_fn)
    labels = checked_labels(labels)
    space = choice(*SPACES)("space", space)
    flips = checked_flips(flips)
    activation = finish_of(labels) if space == "probabilities" else as_it_is
    network = jax.tree_util.Partial(averaged, apply_fn, stacked(models), flips_of(flips), activation)
    windowing = windowing_of(patch_size, overlap, batch_size, memory, progress)
    plan = Plan(partial(compiled, network), pipeline, windowing, labels, space, probabilities)
    return run(plan, subject_or_paths, out)


def windowing_of(patch_size: Any, overlap: Any, batch_size: Any, memory: Any, progress: Any) -> Windowing:
    """The windows of checked arguments."""
    size = sizes("patch_size", patch_size)
    return Windowing(
        size,
        checked_overlap(overlap, size),
        whole_number(low=1)("batch_size", batch_size),
        maybe(size_in_bytes)("memory", memory),
        flag("progress", progress),
    )


def run(plan: Plan, subject_or_paths: Any, out: Any) -> Any:
    """What is planned, for one case or several."""
    if not isinstance(plan.pipeline, Pipeline):
        raise TypeError(f"pipeline must be a Transform or what nnunet_preprocess gives, got {shown(plan.pipeline)}")
    flag("probabilities", plan.probable)
    return each_case(partial(predicted, plan), subject_or_paths, out, plan.probable, plan.windowing.progress)


def predicted(plan: Plan, subject: Subject) -> Result:
    """The labels of one subject, and maybe the probabilities."""
    ready, way = prepared(plan.pipeline, whole(subject))
    order = axes_along(way.matrix, way.native.spatial_shape)
    planes = planes_of(plan.network, ready, plan.windowing, order is None)
    first = next(planes)
    target = target_for(plan, first.buffer.shape[0], way.native.spatial_shape)
    coarser = np.asarray(first.factor, np.float64)
    to_scores = geometry.inverse(geometry.homogeneous(np.diag(coarser), (coarser - 1) / 2))
    with ThreadPoolExecutor(workers()) as pool:
        if order is None:
            fill_points(first, way, to_scores, target, pool)
        else:
            layout = layout_of(first, way, geometry.matmul(to_scores, way.matrix), order, target)
            fill_along_axes(chain([first], planes), layout, pool)
    return result_of(target, way.native)


def target_for(plan: Plan, count: int, shape: Shape3) -> Target:
    """The native grid to be filled from `count` classes."""
    labels = plan.labels
    values = np.arange(count) if labels is None else np.asarray([*labels], np.int64)
    thresholds = None
    if isinstance(labels, Mapping):
        at = np.asarray([*labels.values()], np.float64)
        thresholds = (at if plan.space == "probabilities" else np.log(at / (1 - at))).astype(np.float32)
    decision = Decision(values.astype(np.uint8 if values.max() < 256 else np.uint16), thresholds)
    finish = as_it_is if plan.space == "probabilities" else finish_of(labels)
    return target_of(shape, count, decision, finish, plan.probable)


def result_of(target: Target, native: Image) -> Result:
    """What was filled, as images on the native grid."""
    affine = np.asarray(native.affine, np.float64)
    labels = LabelMap.of(target.labels[None], affine, metadata=native.metadata)
    if target.probabilities is None:
        return labels
    return labels, ScalarImage.of(target.probabilities, affine, metadata=native.metadata)


def workers() -> int:
    """How many tiles are computed at a time: XLA runs what is as small as a tile on one core."""
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# -- what makes probabilities of logits: functions of the module, for which a program is compiled once


def as_it_is(scores: Array) -> Array:
    """The scores."""
    return scores


def softmax(scores: Array) -> Array:
    """Probabilities of classes, which stand four axes from the end."""
    return jax.nn.softmax(scores, axis=-4)


def finish_of(labels: Any) -> Callable[[Array], Array]:
    """What makes probabilities of logits: of regions each for itself."""
    return jax.nn.sigmoid if isinstance(labels, Mapping) else softmax
