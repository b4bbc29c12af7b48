"""A given range of intensities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.image import Image
from medjax.ops import pointwise, statistics
from medjax.ranges import as_floats, check, leaf, traced, uniform
from medjax.subject import Subject
from medjax.transforms.intensity.masking import Masking, check_masking, mask_of, masking
from medjax.transforms.transform import IntensityTransform, static, transform
from medjax.typing import Params


def optional_pair(name: str, value: Any) -> Any:
    """None, or (low, high) from a pair or from x for (-x, x)."""
    if value is None:
        return None
    array = as_floats(name, value)
    pair = array if array.ndim else (np if isinstance(array, np.ndarray) else jnp).stack([-array, array])
    if pair.shape != (2,):
        raise ValueError(f"{name} must be a number or a pair, got shape {array.shape}")
    check(name, pair)
    if not traced(pair) and pair[0] > pair[1]:
        raise ValueError(f"{name} has low > high: {np.asarray(pair).tolist()}")
    return pair


@transform
class RescaleIntensity(IntensityTransform):
    """Clip to percentiles, then map linearly to a range.

    out_min_max: the new range; x is (-x, x).  percentiles: (low, high) in 0..100 of the masked voxels of all channels,
    to which all voxels are clipped; x is (0, x).  masking_method: as in `ZNormalization`.
    in_min_max: the range that goes to out_min_max, instead of the least and greatest voxel after clipping; what lies
    beyond it leaves out_min_max, unless clip is true.

    Constant images stay as they are.  Shapes: (C, I, J, K) -> same, float32.
    Raises ValueError for a mask that is not there or empty.  Source: TorchIO 1.2.1, numpy's linear percentiles.
    """

    out_min_max: Any = uniform(default=(0.0, 1.0))
    percentiles: Any = uniform(default=(0.0, 100.0), low=0.0, high=100.0)
    masking_method: Masking = static(default=None, convert=masking)
    in_min_max: Any = leaf(default=None, convert=optional_pair)
    clip: bool = static(default=False, kw_only=True)

    measures = True

    def check_subject(self, subject: Subject) -> None:
        check_masking(self.masking_method, subject)

    def measure(self, image: Image, subject: Subject) -> Params:
        data, mask = image.data, mask_of(self.masking_method, image, subject)
        levels = jnp.asarray(self.percentiles).astype(data.dtype)
        ends = (levels[0] <= 0) & (levels[1] >= 100)
        cut = jax.lax.cond(
            ends,
            lambda: jnp.stack(statistics.extrema(data, mask)),
            lambda: statistics.quantiles(data, levels / 100, mask),
        )
        real = mask_of(None, image, subject)
        low, high = statistics.extrema(data, real)
        found = jnp.asarray(True) if mask is None else mask.any()
        return {
            "cut": cut,
            "low": jnp.clip(low, cut[0], cut[1]),
            "high": jnp.clip(high, cut[0], cut[1]),
            "found": found,
        }

    def verify(self, measured: Params, name: str) -> None:
        if not measured["found"]:
            raise ValueError(f"RescaleIntensity: the mask {self.masking_method!r} has no voxels in {name}")

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        data = jnp.clip(image.data, measured["cut"][0], measured["cut"][1])
        low, high = measured["low"], measured["high"]
        if self.in_min_max is not None:
            low, high = jnp.asarray(self.in_min_max).astype(data.dtype)
        out = jnp.asarray(self.out_min_max).astype(data.dtype)
        data = pointwise.rescale(data, low, high, out[0], out[1])
        return image.replace(data=jnp.clip(data, out[0], out[1]) if self.clip else data)
