"""Channels reduced to their principal components."""

from typing import Any

import jax
import jax.numpy as jnp

from medjax.arguments import flag, maybe, whole
from medjax.image import Image
from medjax.ops import components, pointwise
from medjax.ranges import leaf, limits
from medjax.subject import Subject
from medjax.transforms.masking import mask_of
from medjax.transforms.transform import IntensityTransform, certain, static, transform
from medjax.typing import Params


@transform
class PCA(IntensityTransform):
    """The principal components of the channels, which are features, over all voxels, which are samples.

    y = V (x - mean), the rows of V being the eigenvectors of the covariance of the channels (n - 1) with the
    num_components largest eigenvalues. whiten: divide each component by the root of its eigenvalue; without variance
    (below 1e-6 of the largest, say) it is 0. normalize: divide all by the standard deviation (n) of the first.
    make_skewness_positive: turn a component whose mean cube is negative; else its largest entry in V is positive.
    values_range: (low, high) is mapped to [0, 1], the minimum and maximum of all components if None; x is (-x, x).
    clip: to [0, 1].

    Shapes: (C, I, J, K) -> (num_components, I, J, K), float32; C is at least num_components, and p is 1.
    Gradients are finite, and those of axes with equal eigenvalues 0 (see `ops.components.eigen`). Voxels with a channel
    that is not finite count nowhere, and do not become finite. Under jit equal voxels become 0 before values_range.
    Raises ValueError for too few channels, for fewer than two voxels, and if all are equal.
    Source: TorchIO 1.2.1, by scikit-learn's PCA, whose options (pca_kwargs) are left out.
    """

    num_components: int = static(default=3, convert=whole(low=1))
    whiten: bool = static(default=True, convert=flag, kw_only=True)
    normalize: bool = static(default=True, convert=flag, kw_only=True)
    make_skewness_positive: bool = static(default=True, convert=flag, kw_only=True)
    values_range: Any = leaf(default=(-2.3, 2.3), convert=maybe(limits()), kw_only=True)
    clip: bool = static(default=True, convert=flag, kw_only=True)
    p: float = static(default=1.0, convert=certain, kw_only=True)

    def channels(self, count: int) -> int:
        return self.num_components

    def measure(self, image: Image, subject: Subject) -> Params:
        data = image.data
        if len(data) < self.num_components:
            raise ValueError(f"PCA: num_components={self.num_components} of an image of {len(data)} channels")
        known = jnp.isfinite(data).all(0, keepdims=True)
        real = mask_of(None, image, subject)
        mask = known if real is None else known & real
        mean, covariance, count = components.covariance(data, mask)
        variances, axes = components.principal(covariance, self.num_components)
        varies = variances > len(data) * jnp.finfo(data.dtype).eps * variances[0]
        if self.whiten:
            scale = jnp.where(varies, 1 / jnp.sqrt(jnp.where(varies, variances, 1)), 0)
            axes, variances = axes * scale[:, None], jnp.where(varies, 1, 0).astype(data.dtype)
        if self.normalize:
            size = jnp.maximum(count, 2).astype(data.dtype)
            first = variances[0] * (size - 1) / size
            axes = axes * jnp.where(first > 0, 1 / jnp.sqrt(jnp.where(first > 0, first, 1)), 0)
        low, high = jnp.zeros((), data.dtype), jnp.ones((), data.dtype)
        if self.values_range is not None:
            low, high = jnp.asarray(self.values_range).astype(data.dtype)
        if self.make_skewness_positive or self.values_range is None:
            values = components.project(data, mean, axes)
            turn = jnp.ones(len(axes), data.dtype)
            if self.make_skewness_positive:
                cubes = (jnp.where(mask, jax.lax.stop_gradient(values), 0) ** 3).sum((1, 2, 3))
                turn = jnp.where(cubes < 0, -1, 1).astype(data.dtype)
            if self.values_range is None:
                values = values * turn[:, None, None, None]
                low, high = jnp.where(mask, values, jnp.inf).min(), jnp.where(mask, values, -jnp.inf).max()
            axes = axes * turn[:, None]
        return {"mean": mean, "axes": axes, "low": low, "high": high, "count": count, "varies": varies[0]}

    def verify(self, measured: Params, name: str) -> None:
        if measured["count"] < 2:
            raise ValueError(f"PCA: {name} has no two voxels of finite channels")
        if not measured["varies"]:
            raise ValueError(f"PCA: the voxels of {name} are all equal, they have no components")

    def apply_to(self, image: Image, params: Params, measured: Params) -> Image:
        data = components.project(image.data, measured["mean"], measured["axes"])
        zero, one = jnp.zeros((), data.dtype), jnp.ones((), data.dtype)
        data = pointwise.rescale(data, measured["low"], measured["high"], zero, one)
        return image.replace(data=jnp.clip(data, 0, 1) if self.clip else data)
