"""Compiling before the first volume: a pipeline is called on volumes that hold nothing of anybody's."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from medjax.arguments import many, maybe, whole
from medjax.image import Image, LabelMap, ScalarImage
from medjax.io import memory
from medjax.subject import Subject, stack
from medjax.transforms.program import is_random
from medjax.transforms.transform import Transform


def warmup(
    pipeline: Transform, shapes: Subject | Mapping[str, Sequence[int]], *, batch: int | None = None, draws: int = 16
) -> float:
    """Compile what a call of a pipeline on such images needs, now; seconds that it took.

    Programs hang on names, kinds, shapes and types of images, never on numbers: neither on voxels and affines nor on
    strengths. They stay in the process and, where `jax_compilation_cache_dir` is set, in that folder, from which
    other processes read them. A Resample without a fixed end shape, and whatever else has a shape that hangs on
    values, has a program for each.

    shapes: a subject, of whose files the header alone is read, or (C, I, J, K) of scalar images of float32 by name.
    batch: how many subjects a batch has, for `pipeline.batch`; None for calls on one subject, `pipeline(subject, key)`.
    draws: how many calls on one subject are made. Neighbours in space for which nothing was drawn are left out, which
    is another program: what these draws do not meet is compiled when it is met. A batch has one program.

    Raises TypeError and ValueError for other arguments, and what the pipeline raises for such images.

    >>> import medjax as mj
    >>> seconds = mj.warmup(mj.RandomFlip(axes=0), {"t1": (1, 8, 8, 8)}, batch=2)
    """
    if not isinstance(pipeline, Transform):
        raise TypeError(f"pipeline must be a transform, got {type(pipeline).__name__}")
    size, number = maybe(whole(low=1))("batch", batch), whole(low=1)("draws", draws) if is_random(pipeline) else 1
    subject = standing_in(shapes)
    start = time.perf_counter()
    if size is None:
        for seed in range(number):
            waited(pipeline(subject, jax.random.key(seed)))
    else:
        waited(pipeline.batch(stack([subject] * size), jax.random.key(0)))
    return time.perf_counter() - start


def waited(subject: Subject) -> None:
    """Wait for the images of a result."""
    jax.block_until_ready([image.data for image in subject.images.values()])


def standing_in(shapes: Any) -> Subject:
    """A subject like this one, or of images of these shapes, with other voxels."""
    if isinstance(shapes, Subject):
        images = shapes.images.items()
        return shapes.replace(
            **{name: image.replace(data=voxels(image.shape, type(image), image.dtype)) for name, image in images}
        )
    if not isinstance(shapes, Mapping) or not shapes:
        raise TypeError(f"shapes must be a Subject or shapes (C, I, J, K) by name, got {shapes!r}")
    made = {}
    for name, shape in shapes.items():
        sizes = many(whole(low=1))(f"shapes[{name!r}]", shape)
        if len(sizes) != 4:
            raise ValueError(f"shapes[{name!r}] must be (C, I, J, K), got {tuple(sizes)}")
        made[name] = ScalarImage(voxels(sizes, ScalarImage, np.dtype(np.float32)), np.eye(4))
    return Subject(made)


def voxels(shape: Sequence[int], kind: type[Image], dtype: np.dtype) -> np.ndarray:
    """Labels 0 and 1, and intensities that differ within either; in memory as what is read from a file is."""
    data = memory.empty(shape, dtype)
    index = np.arange(data.size)
    data[...] = (index % 2 if kind is LabelMap else index // 2 % 100).reshape(data.shape)
    return data
