"""A given range of intensities."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax.arguments import flag, label_values, maybe
from medjax.image import Image
from medjax.ops import pointwise, statistics
from medjax.ranges import leaf, limits
from medjax.subject import Subject
from medjax.transforms.masking import Masking, check_masking, mask_of, masking
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params


@transform
class RescaleIntensity(IntensityTransform):
    """Clip to percentiles, then map linearly to a range.

    out_min_max: the new range; x is (-x, x).  percentiles: (low, high) in 0..100 of the masked voxels, to which all
    voxels are clipped; x is (0, x).  masking_method, labels: as in `ZNormalization`.
    in_min_max: the range that goes to out_min_max, instead of the two percentiles; what lies beyond it leaves
    out_min_max, unless clip is true.  per_channel: each channel by its own percentiles, instead of all together.

    Constant images stay as they are. Voxels that are not finite count nowhere: infinite ones are clipped like others,
    NaN stays.  Shapes: (C, I, J, K) -> same, float32.
    Inverse: the linear map back, with the percentiles that were measured; what was clipped stays clipped.
    Raises ValueError for a mask that is not there or empty.  Source: TorchIO 1.2.1, numpy's linear percentiles.
    """

    out_min_max: Any = leaf(default=(0.0, 1.0), convert=limits())
    percentiles: Any = leaf(default=(0.0, 100.0), convert=limits(low=0.0, high=100.0))
    masking_method: Masking = static(default=None, convert=masking)
    in_min_max: Any = leaf(default=None, convert=maybe(limits()))
    clip: bool = static(default=False, convert=flag, kw_only=True)
    per_channel: bool = static(default=False, convert=flag, kw_only=True)
    labels: Sequence[int] | None = static(default=None, convert=maybe(label_values), kw_only=True)

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject, labels=self.labels)

    def measure(self, image: Image, subject: Subject) -> Params:
        mask = mask_of(self.masking_method, image, subject, self.labels)
        levels = jnp.asarray(self.percentiles).astype(image.data.dtype)
        ends = (levels[0] <= 0) & (levels[1] >= 100)

        def cut(data: Array, mask: Array | None) -> tuple[Array, Array]:
            at = jax.lax.cond(
                ends,
                lambda: jnp.stack(statistics.extrema(data, mask)),
                lambda: statistics.quantiles(data, levels / 100, mask),
            )
            return at, jnp.ones_like(data, bool, ()) if mask is None else mask.any()

        measured = partial(statistics.each_channel, cut) if self.per_channel else cut
        at, found = statistics.finite_only(measured, image.data, mask)
        return {"cut": at.reshape(-1, 2), "found": found}

    def verify(self, measured: Params, name: str) -> None:
        if not measured["found"].all():
            raise ValueError(f"RescaleIntensity: the mask {self.masking_method!r} has no voxels in {name}")

    def ranges(self, measured: Params) -> tuple[Array, Array, Array]:
        """The cut (C or 1, 2), the range that is mapped (C or 1, 2) and the range it goes to (1, 2)."""
        cut = measured["cut"]
        given = cut if self.in_min_max is None else jnp.asarray(self.in_min_max).astype(cut.dtype)[None]
        return cut, given, jnp.asarray(self.out_min_max).astype(cut.dtype)[None]

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        cut, given, out = (ends.T[..., None, None, None] for ends in self.ranges(measured))
        data = pointwise.rescale(jnp.clip(image.data, *cut), *given, *out)
        return image.replace(data=jnp.clip(data, *out) if self.clip else data)

    def undo(self, image: Image, params: Params, measured: Params) -> Image:
        _, given, out = (ends.T[..., None, None, None] for ends in self.ranges(measured))
        data = pointwise.rescale(image.data, *out, *given)
        return image.replace(data=jnp.where(given[0] == given[1], image.data, data))
