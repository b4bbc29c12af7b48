"""A box of another subject."""

import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Int

from medjax import keys
from medjax.between.base import Between, between, check_one_grid, mask_of, pairs_of, shared
from medjax.ranges import number
from medjax.subject import Subject
from medjax.typing import Key, Params


@between
class CutMix(Between):
    """Paste a box of the partner into each element, images and label maps.

    alpha: lambda, the share of the volume that an element keeps, is drawn from Beta(alpha, alpha); 1 is uniform.
    p: probability for each element.

    The box has the shape of the volume, each axis longer than one voxel scaled by (1 - lambda)^(1/3) and rounded (by
    the square root for a slice), and lies anywhere that it fits, all places equally likely; the volume is what is real
    in both, so that no padding is pasted. `sample` gives it as `low` and `high`, (B, 3) int32, [low, high).
    Shapes: (B, C, I, J, K) -> same, dtypes kept; a label map holds labels of the two alone.
    Raises ValueError for images of an element on different grids.
    Source: Yun et al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV
    2019, where the centre of the box is uniform and what sticks out of the image is cut off.

    >>> pasted = mj.CutMix(p=0.5).batch(batch, jax.random.key(0))
    """

    alpha: float = number(default=1.0, low=1e-3)

    def check(self, batch: Subject) -> None:
        check_one_grid(self, batch)

    def draw_for(self, key: Key, batch: Subject, partner: Int[Array, "B"]) -> Params:
        alpha = jnp.asarray(self.alpha, jnp.float32)
        own = random.beta(keys.for_name(key, "own"), alpha, alpha, partner.shape, jnp.float32)
        place = random.uniform(keys.for_name(key, "place"), (*partner.shape, 3), jnp.float32)
        boxes = [shared(image, partner) for image in batch.images.values()]
        low = jnp.stack([low for low, _ in boxes]).max(0)
        room = jnp.maximum(jnp.stack([high for _, high in boxes]).min(0) - low, 0)
        thick = room > 1
        axes = jnp.maximum(thick.sum(1, dtype=jnp.int32), 1).astype(jnp.float32)
        side = jnp.where(thick, ((1 - own) ** (1 / axes))[:, None], jnp.asarray(1, jnp.float32))
        size = jnp.round(side * room.astype(jnp.float32)).astype(jnp.int32)
        free = room - size
        first = low + jnp.minimum(jnp.floor(place * (free + 1).astype(jnp.float32)).astype(jnp.int32), free)
        return {"low": first, "high": first + size}

    def give(self, batch: Subject, params: Params) -> dict[str, Array]:
        low = params["low"]
        high = jnp.where(params["on"][:, None], params["high"], low)
        given = {}
        for name, image in batch.images.items():
            own, other, _ = pairs_of(image, params["partner"])
            given[name] = jnp.where(mask_of(low, high, image), other, own)
        return given
