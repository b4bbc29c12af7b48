"""What bears a label, from another subject."""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from medjax.arguments import maybe, some_labels, text, whole
from medjax.between.base import Between, between, check_one_grid, laid, mixed, pairs_of
from medjax.image import LabelMap
from medjax.subject import Subject
from medjax.transforms.masking import marked
from medjax.transforms.transform import static
from medjax.typing import Params, working


@between
class CopyPaste(Between):
    """Paste what bears a label in the partner, as its lesions, into each element where it is in the partner.

    label_name: the label map that says what is pasted, and into which it is pasted.
    labels: which of its labels.
    mask_name: a label map of the element, beyond whose nonzero voxels nothing is pasted; None for none.
    rim: voxels over which the images are blended on both sides of the edge of what is pasted. The weight of the partner
    is the pasted mask, convolved along each axis by a Gaussian of deviation rim / 2 that is cut off at rim, and divided
    by that of all that may be pasted into; it is 1 further inside and 0 further outside. 0 pastes without blending.
    p: probability for each element.

    Scalar images and `label_name` are pasted into, the label map without blending; other label maps stay, and so does
    every voxel beyond the rim. Padding is neither pasted nor pasted into.
    Shapes: (B, C, I, J, K) -> same; images become float32, label maps keep their dtype and hold labels of the two
    alone.
    Raises ValueError for a label_name or mask_name that is no label map of one channel, and for images of an element on
    different grids.
    Source: Ghiasi et al., "Simple copy-paste is a strong data augmentation method for instance segmentation", CVPR
    2021; for lesions Zhang et al., "CarveMix", MICCAI 2021, and Zhu et al., "SelfMix", MICCAI 2022.

    >>> more = mj.CopyPaste("label", labels=(2,), mask_name="brain", p=0.5).batch(batch, jax.random.key(0))
    """

    label_name: str = static(default="label", convert=text)
    labels: Sequence[int] = static(default=(1,), convert=some_labels)
    mask_name: str | None = static(default=None, convert=maybe(text), kw_only=True)
    rim: int = static(default=1, convert=whole(low=0), kw_only=True)

    def check(self, batch: Subject) -> None:
        for argument in ("label_name", "mask_name"):
            name = getattr(self, argument)
            image = batch.images.get(name)
            if name is not None and (not isinstance(image, LabelMap) or image.shape[1] != 1):
                maps = {n: i.shape for n, i in batch.images.items() if i.is_label}
                raise ValueError(f"{argument}={name!r} is no label map of one channel of the batch, which has {maps}")
        check_one_grid(self, batch)

    def give(self, batch: Subject, params: Params) -> dict[str, Array]:
        pairs = {name: pairs_of(image, params["partner"]) for name, image in batch.images.items()}
        label, other, _ = pairs[self.label_name]
        allowed = jnp.broadcast_to(laid(params["on"]), label.shape)
        for pair in pairs.values():
            allowed = allowed if pair.both is None else allowed & pair.both
        if self.mask_name is not None:
            allowed &= pairs[self.mask_name].own != 0
        pasted = marked(other, self.labels) & allowed
        weight = blended(pasted, allowed, self.rim)
        given = {self.label_name: jnp.where(pasted, other, label)}
        for name, (own, other, _) in pairs.items():
            if not batch[name].is_label:
                dtype = working(own.dtype)
                given[name] = mixed(own.astype(dtype), other.astype(dtype), weight.astype(dtype))
        return given


def blended(pasted: Bool[Array, "B 1 I J K"], allowed: Bool[Array, "B 1 I J K"], rim: int) -> Float[Array, "B 1 I J K"]:
    """The weight of what is pasted: its mask blurred over what is allowed, 0 elsewhere.

    The same sums above and below the line, so that it is exactly 1 where all within reach is pasted.
    """
    above, below = (smoothed(mask.astype(jnp.float32), rim) for mask in (pasted, allowed))
    return jnp.where(allowed, above / jnp.where(allowed, below, 1), 0)


def smoothed(x: Float[Array, "B 1 I J K"], rim: int) -> Float[Array, "B 1 I J K"]:
    """Convolved along each spatial axis by exp(-2 (d / rim)^2), |d| <= rim, with zeros around."""
    weights = np.exp(-2 * (np.arange(-rim, rim + 1) / max(rim, 1)) ** 2).astype(np.float32)
    for axis in (2, 3, 4):
        size = x.shape[axis]
        padded = jnp.pad(x, [(rim, rim) if a == axis else (0, 0) for a in range(5)])
        parts = (weight * jax.lax.slice_in_dim(padded, d, d + size, axis=axis) for d, weight in enumerate(weights))
        x = reduce(jnp.add, parts)
    return x
