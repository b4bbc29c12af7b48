"""Images that are averaged with those of another subject."""

import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Int

from medjax import keys
from medjax.between.base import Between, between, laid, mixed, pairs_of
from medjax.ranges import number
from medjax.subject import Subject
from medjax.typing import Key, Params, working


@between
class MixUp(Between):
    """Average each element with its partner: lambda x + (1 - lambda) x', label maps alike, which become soft.

    alpha: lambda is drawn from Beta(alpha, alpha) for each element; small values keep it near 0 or 1, 1 is uniform.
    p: probability for each element.

    The element is `apply` of what `sample` draws: `own`, (B,), is lambda, with which targets that are no images are
    mixed: own y + (1 - own) y[partner].
    Where a voxel is padding in one of the two, the element keeps its own.
    Shapes: (B, C, I, J, K) -> same; images and label maps become float32, and what was one-hot still sums to 1.
    Raises ValueError for a label map of one channel and whole numbers, whose averages are no labels.
    Source: Zhang et al., "mixup: Beyond empirical risk minimization", ICLR 2018.

    >>> one_hot = mj.OneHot(4).batch(batch)
    >>> soft = mj.MixUp(0.4).batch(one_hot, jax.random.key(0))
    """

    alpha: float = number(default=0.2, low=1e-3)

    def check(self, batch: Subject) -> None:
        for name, image in batch.images.items():
            if image.is_label and image.shape[1] == 1 and not jnp.issubdtype(image.dtype, jnp.floating):
                raise ValueError(
                    f"MixUp averages label maps, and an average of the labels of {name!r} ({image.dtype}, one channel) "
                    f"is no label: put OneHot(num_classes) before it"
                )

    def draw_for(self, key: Key, batch: Subject, partner: Int[Array, "B"]) -> Params:
        alpha = jnp.asarray(self.alpha, jnp.float32)
        return {"own": random.beta(keys.for_name(key, "own"), alpha, alpha, partner.shape, jnp.float32)}

    def give(self, batch: Subject, params: Params) -> dict[str, Array]:
        given = {}
        for name, image in batch.images.items():
            own, other, both = pairs_of(image, params["partner"])
            dtype = working(own.dtype)
            share = laid(jnp.where(params["on"], 1 - params["own"], 0)).astype(dtype)
            share = share if both is None else jnp.where(both, share, 0)
            given[name] = mixed(own.astype(dtype), other.astype(dtype), share)
        return given
