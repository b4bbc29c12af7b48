"""Labels grown, shrunk and smoothed by a ball."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys, ranges
from medjax.errors import one_of
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import morphology, statistics
from medjax.ops.morphology import OPERATIONS
from medjax.ranges import Range, number, uniform
from medjax.subject import Subject
from medjax.transforms.intensity.masking import label_values
from medjax.transforms.label.remap_labels import check_held
from medjax.transforms.transform import LabelTransform, static, transform
from medjax.typing import Key, Params

LARGEST = 32
"""Of radii in voxels: squares of twice its multiples fit 16 bits."""


def some_labels(name: str, value: Any) -> tuple[int, ...]:
    """Labels, at least one, none twice and none of them 0."""
    found = label_values(name, value)
    if not found or 0 in found or len(set(found)) != len(found):
        raise ValueError(f"{name} must name labels other than 0, at least one, none twice, got {value!r}")
    return found


def some_operations(name: str, value: Any) -> tuple[str, ...]:
    """Names of operations, at least one."""
    found = tuple(one_of(name, v, OPERATIONS) for v in ([value] if isinstance(value, str) else value))
    if not found:
        raise ValueError(f"{name} is empty: name at least one of {', '.join(OPERATIONS)}")
    return found


def reach_of(name: str, value: Any) -> int:
    """A whole number of voxels."""
    if int(value) != value or not 1 <= value <= LARGEST:
        raise ValueError(f"{name} must be a whole number from 1 to {LARGEST}, got {value!r}")
    return int(value)


def check_radius(radius: Any, reach: int) -> None:
    """Raise a ValueError for a radius beyond what the program is built for."""
    if not ranges.traced(radius) and np.max(radius) > reach:
        raise ValueError(f"radius={np.asarray(radius).tolist()} exceeds max_radius={reach}: give a larger max_radius")


def reshaped(image: Image, labels: Sequence[int], params: Params, reach: int) -> Image:
    """The label map after the operation of each label, in the drawn order; each sees what those before it left."""
    real = None if image.extent is None else statistics.extent_mask(image.spatial_shape, image.extent)
    numbers = jnp.asarray(np.array(labels).astype(image.dtype))

    def step(i: Any, data: jax.Array) -> jax.Array:
        n = params["order"][i]
        label, before = numbers[n], data == numbers[n]
        after = jax.lax.cond(
            params["chosen"][n],
            lambda x: morphology.operate(x, params["operation"][n], params["radius"][n], reach, real),
            lambda x: x,
            before,
        )
        return jnp.where(after, label, jnp.where(before, jnp.zeros((), data.dtype), data))

    return image.replace(data=jax.lax.fori_loop(0, len(labels), step, jnp.asarray(image.data)))


@transform
class LabelMorphology(LabelTransform):
    """Dilation, erosion, opening or closing of labels by a ball, one label after the other in the order given.

    What a label gains it takes from the others, what it loses becomes 0; beyond the volume nothing is gained or lost.

    labels: which.  operation: 'dilation', 'erosion', 'opening' (erosion, then dilation) or 'closing' (the reverse).
    radius: voxels. The ball has n = floor(2 radius) + 1 voxels across and holds those whose centre is at most
    (n - 1) / 2 from its own; for even n that lies half a voxel up each axis, and in the second half of an opening or
    closing half a voxel down.  max_radius: what the program is built for; the cost grows with it.

    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Raises ValueError for labels that the dtype cannot hold.
    Source: batchgeneratorsv2 0.3.6, `ApplyRandomBinaryOperatorTransform`, here for label maps instead of their one-hot
    maps; there an opening or closing by a ball with even n moves the label by a voxel.
    """

    labels: Sequence[int] = static(convert=some_labels)
    operation: str = static(default="dilation", convert=lambda name, value: one_of(name, value, OPERATIONS))
    radius: float = number(default=1.0, low=0.0, high=LARGEST)
    max_radius: int = static(default=8, convert=reach_of, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        check_radius(self.radius, self.max_radius)

    def check_subject(self, subject: Subject) -> None:
        check_held(self, self.labels, subject)

    def draw(self, key: Key, grid: Grid) -> Params:
        count = len(self.labels)
        return {
            "order": jnp.arange(count, dtype=jnp.int32),
            "chosen": jnp.ones(count, bool),
            "operation": jnp.full(count, OPERATIONS.index(self.operation), jnp.int32),
            "radius": jnp.broadcast_to(jnp.asarray(self.radius), (count,)),
        }

    def apply_to(self, image: Image, params: Params) -> Image:
        return reshaped(image, self.labels, params, self.max_radius)


@transform
class RandomLabelMorphology(LabelTransform):
    """`LabelMorphology` of each label by its own operation and radius, in random order: as predictions err.

    operations: those to draw from, equally likely for each label.  radius: voxels, uniform, for each label.
    p_per_label: probability that a label is changed.  Drawn once per image.
    """

    labels: Sequence[int] = static(convert=some_labels)
    operations: Sequence[str] = static(default=OPERATIONS, convert=some_operations)
    radius: Range = uniform(default=(1.0, 8.0), low=0.0, high=LARGEST)
    p_per_label: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)
    max_radius: int = static(default=8, convert=reach_of, kw_only=True)

    random = True

    def __post_init__(self):
        super().__post_init__()
        check_radius(self.radius, self.max_radius)

    def check_subject(self, subject: Subject) -> None:
        check_held(self, self.labels, subject)

    def draw(self, key: Key, grid: Grid) -> Params:
        count, p = len(self.labels), jnp.asarray(self.p_per_label)
        last = np.array([0, len(self.operations) - 1], np.float32)
        drawn = ranges.draw_integer(keys.for_name(key, "operation"), last, (count,))
        known = jnp.asarray([OPERATIONS.index(name) for name in self.operations], jnp.int32)
        return {
            "order": random.permutation(keys.for_name(key, "order"), count).astype(jnp.int32),
            "chosen": random.uniform(keys.for_name(key, "labels"), (count,), p.dtype) < p,
            "operation": known[drawn],
            "radius": ranges.draw(keys.for_name(key, "radius"), self.radius, (count,)),
        }

    def apply_to(self, image: Image, params: Params) -> Image:
        return reshaped(image, self.labels, params, self.max_radius)
