"""Principal components of the channels of a volume: channels are features, voxels are samples."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from medjax.ops.statistics import AnyMask, count
from medjax.typing import Volume

HIGHEST = jax.lax.Precision.HIGHEST


def covariance(x: Volume, mask: AnyMask = None) -> tuple[Float[Array, "C"], Float[Array, "C C"], Int[Array, ""]]:
    """Mean of each channel, unbiased covariance of the channels (n - 1), and number of voxels n of a mask (1, I, J, K).

    Two passes: the means, then the products of what is left after taking them away.
    """
    n = jnp.asarray(x[0].size, jnp.int32) if mask is None else count(mask)
    size = jnp.maximum(n, 1).astype(x.dtype)
    mean = (x if mask is None else jnp.where(mask, x, 0)).sum((1, 2, 3)) / size
    centred = x - mean[:, None, None, None]
    flat = (centred if mask is None else jnp.where(mask, centred, 0)).reshape(len(x), -1)
    return mean, jnp.matmul(flat, flat.T, precision=HIGHEST) / jnp.maximum(size - 1, 1), n


def principal(matrix: Float[Array, "C C"], number: int) -> tuple[Float[Array, "K"], Float[Array, "K C"]]:
    """The `number` largest eigenvalues of a covariance, descending, not below 0, and their axes as rows.

    Each axis is turned so that its largest entry is positive. Source: scikit-learn's `PCA`, whose rule of signs it is.
    """
    values, vectors = eigen(matrix)
    axes = vectors[:, ::-1].T[:number]
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=1, keepdims=True), axis=1)
    return jnp.maximum(values[::-1][:number], 0), axes * jax.lax.stop_gradient(jnp.where(largest < 0, -1, 1)).astype(
        axes.dtype
    )


@jax.custom_jvp
def eigen(matrix: Float[Array, "C C"]) -> tuple[Float[Array, "C"], Float[Array, "C C"]]:
    """Eigenvalues of a symmetric matrix, ascending, and eigenvectors as columns.

    Axes of equal eigenvalues are arbitrary within the space that they span: their slope there is taken for 0, where
    that of `jnp.linalg.eigh` is not a number.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


@eigen.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    values, vectors = eigen(*primals)
    change = jnp.matmul(jnp.matmul(vectors.T, tangents[0], precision=HIGHEST), vectors, precision=HIGHEST)
    gap = values[None, :] - values[:, None]
    tied = jnp.abs(gap) <= 4 * jnp.finfo(values.dtype).eps * jnp.abs(values).max()
    turn = jnp.where(tied, 0, change / jnp.where(tied, 1, gap))
    return (values, vectors), (jnp.diagonal(change), jnp.matmul(vectors, turn, precision=HIGHEST))


def project(x: Volume, mean: Float[Array, "C"], axes: Float[Array, "K C"]) -> Float[Array, "K X Y Z"]:
    """axes (x - mean) at each voxel."""
    centred = (x - mean[:, None, None, None]).reshape(len(x), -1)
    return jnp.matmul(axes, centred, precision=HIGHEST).reshape(len(axes), *x.shape[1:])
