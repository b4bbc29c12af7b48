"""A channel for each group of labels."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from medjax.arguments import entries, label_values, many
from medjax.errors import shown
from medjax.image import Image
from medjax.transforms.masking import marked
from medjax.transforms.transform import LabelTransform, certain, static, transform
from medjax.typing import Params


def groups(name: str, value: Any) -> tuple[tuple[int, ...], ...]:
    """Groups of labels, at least one; a label alone is a group."""
    if not entries(value):
        kind = TypeError if entries(value) is None else ValueError
        raise kind(f"{name} must be a sequence of labels or of groups of labels, as ((1, 2, 3), (2, 3), 3), got "
                   f"{shown(value)}")  # fmt: skip
    return many(label_values)(name, value)


@transform
class Regions(LabelTransform):
    """Turn a label map into a channel for each region, 1 where the label is one of the region's, else 0.

    regions: groups of labels, or labels, as ((1, 2, 3), (2, 3), 3); they may overlap. Foreground labels alone give
    their one-hot map without background.

    p must be 1.  Shapes: (1, I, J, K) -> (len(regions), I, J, K), uint8.  No inverse, for regions may overlap.
    Raises ValueError for several channels.
    Source: batchgeneratorsv2 0.3.6, `ConvertSegmentationToRegionsTransform`.
    """

    regions: Sequence[Sequence[int] | int] = static(convert=groups)
    p: float = static(default=1.0, convert=certain, kw_only=True)

    pointwise = True

    def channels(self, count: int) -> int:
        return len(self.regions)

    def apply_to(self, image: Image, params: Params) -> Image:
        if image.shape[0] != 1:
            raise ValueError(f"Regions takes label maps of one channel, got shape {image.shape}")
        channels = [marked(image.data, group) for group in groups("regions", self.regions)]
        return image.replace(data=jnp.concatenate(channels).astype(jnp.uint8))
