"""Labels grown, shrunk and smoothed by a ball."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from medjax import keys, ranges
from medjax.arguments import choice, many, some_labels, traced, whole
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import morphology
from medjax.ops.morphology import OPERATIONS
from medjax.ranges import Range, number, uniform
from medjax.subject import Subject
from medjax.transforms.label.remap_labels import check_held
from medjax.transforms.transform import LabelTransform, abstract, static, transform
from medjax.typing import Key, Params

LARGEST = 32
"""Of radii in voxels: squares of twice its multiples fit 16 bits."""


@abstract
class BallOperations(LabelTransform):
    """Abstract. Operates on each label in the drawn order; each sees what those before it left."""

    labels: Sequence[int] = static(convert=some_labels)
    max_radius: int = static(default=8, convert=whole(low=1, high=LARGEST), kw_only=True)

    radius = 1.0  # a field of both, in its place among the others: not annotated here

    def __post_init__(self):
        super().__post_init__()
        radius, most = ranges.support(self.radius), self.max_radius
        if not traced(radius) and np.max(radius) > most:
            raise ValueError(
                f"radius={np.asarray(radius).tolist()} exceeds max_radius={most}: give a larger max_radius"
            )

    def check_subject(self, subject: Subject) -> None:
        check_held(self, self.labels, subject)

    def apply_to(self, image: Image, params: Params) -> Image:
        numbers, reach = jnp.asarray(np.array(self.labels).astype(image.dtype)), self.max_radius

        def step(i: Any, data: jax.Array) -> jax.Array:
            n = params["order"][i]
            label, before = numbers[n], data == numbers[n]
            after = jax.lax.cond(
                params["chosen"][n],
                lambda x: morphology.operate(x, params["operation"][n], params["radius"][n], reach, image.real),
                lambda x: x,
                before,
            )
            return jnp.where(after, label, jnp.where(before, jnp.zeros((), data.dtype), data))

        return image.replace(data=jax.lax.fori_loop(0, len(self.labels), step, jnp.asarray(image.data)))


@transform
class LabelMorphology(BallOperations):
    """Dilation, erosion, opening or closing of labels by a ball, one label after the other in the order given.

    What a label gains it takes from the others, what it loses becomes 0; beyond the volume nothing is gained or lost.

    labels: which.
    operation: 'dilation', 'erosion', 'opening' (erosion, then dilation) or 'closing' (the reverse).
    radius: voxels. The ball has n = floor(2 radius) + 1 voxels across and holds those whose centre is at most (n - 1) /
    2 from its own; for even n that lies half a voxel up each axis, and in the second half of an opening or closing half
    a voxel down.
    max_radius: what the program is built for; the cost grows with it.

    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Raises ValueError for labels that the dtype cannot hold.
    Source: batchgeneratorsv2 0.3.6, `ApplyRandomBinaryOperatorTransform`, here for label maps instead of their one-hot
    maps; there an opening or closing by a ball with even n moves the label by a voxel.
    """

    operation: str = static(default="dilation", convert=choice(*OPERATIONS))
    radius: float = number(default=1.0, low=0.0, high=LARGEST)

    def draw(self, key: Key, grid: Grid) -> Params:
        count = len(self.labels)
        return {
            "order": jnp.arange(count, dtype=jnp.int32),
            "chosen": jnp.ones(count, bool),
            "operation": jnp.full(count, OPERATIONS.index(self.operation), jnp.int32),
            "radius": jnp.broadcast_to(jnp.asarray(self.radius), (count,)),
        }


@transform
class RandomLabelMorphology(BallOperations):
    """`LabelMorphology` of each label by its own operation and radius, in random order: as predictions err.

    operations: those to draw from, equally likely for each label.
    radius: voxels, uniform, for each label.
    p_per_label: probability that a label is changed.
    Drawn once per image.
    """

    operations: Sequence[str] = static(default=OPERATIONS, convert=many(choice(*OPERATIONS), least=1))
    radius: Range = uniform(default=(1.0, 8.0), low=0.0, high=LARGEST)
    p_per_label: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        count = len(self.labels)
        last = np.array([0, len(self.operations) - 1], np.float32)
        drawn = ranges.draw_integer(keys.for_name(key, "operation"), last, (count,))
        known = jnp.asarray([OPERATIONS.index(name) for name in self.operations], jnp.int32)
        return {
            "order": random.permutation(keys.for_name(key, "order"), count).astype(jnp.int32),
            "chosen": ranges.coin(keys.for_name(key, "labels"), self.p_per_label, (count,)),
            "operation": known[drawn],
            "radius": ranges.draw(keys.for_name(key, "radius"), self.radius, (count,)),
        }
