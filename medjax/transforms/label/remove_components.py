"""Labels that miss one of their pieces."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import random

from medjax import keys, ranges
from medjax.arguments import some_labels
from medjax.geometry import Grid
from medjax.image import Image
from medjax.ops import morphology, statistics
from medjax.ranges import number
from medjax.subject import Subject
from medjax.transforms.label.contour import connectivity
from medjax.transforms.label.remap_labels import check_held
from medjax.transforms.transform import LabelTransform, abstract, static, transform
from medjax.typing import Key, Params


@abstract
class MissingComponents(LabelTransform):
    """Abstract. Sets one component of each chosen label to 0."""

    labels: Sequence[int] = static(convert=some_labels)
    connectivity: int = static(default=3, convert=connectivity, kw_only=True)

    max_fraction = 0.15  # a field of both, in its place among the others: not annotated here

    def check_subject(self, subject: Subject) -> None:
        morphology.labeller(type(self).__name__)
        check_held(self, self.labels, subject)

    def apply_to(self, image: Image, params: Params) -> Image:
        data = statistics.within(jnp.asarray(image.data), image.real, 0)
        count = jnp.prod(jnp.asarray(image.size, jnp.int32), dtype=jnp.int32)
        place, most = jnp.where(params["chosen"], params["place"], -1), jnp.asarray(self.max_fraction)
        kept = morphology.components_but_one(data, self.labels, place, most, count, self.connectivity)
        return image.replace(data=jnp.where(kept, data, jnp.zeros((), data.dtype)))


@transform
class RemoveComponents(MissingComponents):
    """Set one connected component of each label to 0; components that cover too much are left alone.

    labels: which.
    place: from 0 to 1, which of the n components that may go: number floor(place n) in the order of their first voxels
    in memory.
    max_fraction: those that may go hold less than this part of the volume's voxels.
    connectivity: neighbours share a face (1: 6 of them), or an edge (2: 18), or a corner (3: 26).

    Labelled on the host, also within a compiled program; such a program cannot be exported.
    Shapes: (C, I, J, K) -> same, dtype kept, each channel on its own.  No inverse.
    Raises ImportError without the `morphology` extra, and ValueError for labels that the dtype cannot hold.
    Source: batchgeneratorsv2 0.3.6, `RemoveRandomConnectedComponentFromOneHotEncodingTransform`, for label maps.
    """

    place: float = number(default=0.0, low=0.0, high=1.0)
    max_fraction: float = number(default=0.15, low=0.0, high=1.0)

    def draw(self, key: Key, grid: Grid) -> Params:
        count = len(self.labels)
        return {"place": jnp.broadcast_to(jnp.asarray(self.place), (count,)), "chosen": jnp.ones(count, bool)}


@transform
class RandomRemoveComponents(MissingComponents):
    """`RemoveComponents` with a component of each label drawn, all that may go equally likely.

    p_per_label: probability that a label loses one.
    Drawn once per image.
    """

    max_fraction: float = number(default=0.15, low=0.0, high=1.0)
    p_per_label: float = number(default=1.0, low=0.0, high=1.0, kw_only=True)

    random = True

    def draw(self, key: Key, grid: Grid) -> Params:
        count, p = len(self.labels), jnp.asarray(self.p_per_label)
        return {
            "place": random.uniform(keys.for_name(key, "place"), (count,), p.dtype),
            "chosen": ranges.coin(keys.for_name(key, "labels"), p, (count,)),
        }
