"""Test-time augmentation: predictions for augmented copies of a subject, brought back and averaged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medjax.arguments import function_of
from medjax.errors import shown
from medjax.image import ScalarImage
from medjax.keys import as_many
from medjax.subject import Subject
from medjax.transforms.call import check_leading
from medjax.transforms.checks import check_subject
from medjax.transforms.host import bare
from medjax.transforms.inverse import invert
from medjax.transforms.program import flatten, flatten_params, runs_of
from medjax.transforms.run import draw, execute
from medjax.transforms.transform import Transform
from medjax.typing import Key, Params


def tta(apply_fn: Callable[[Subject], Any], subject: Subject, pipeline: Transform, keys: Any) -> ScalarImage:
    """The mean of the softmax of a network's predictions for N augmented copies of a subject, on its own grid.

    apply_fn: takes a batch of N subjects, as `jax.vmap` of a network does, and gives logits (N, K, I, J, K') on the
    grid of their first image.  keys: (N,), typed or raw, one for each copy.  pipeline: ends in a shape that does not
    depend on values.  Each prediction is brought back by `invert`, linearly, and a voxel's mean is over the copies that
    show it; one that none shows is 0 for every class.

    Gives a ScalarImage (K, ...) float32 on the grid of the subject's first image.
    Raises ValueError for logits that are not (N, K, I, J, K'), and for a batch; TypeError for one key.
    """
    function_of("apply_fn", apply_fn)
    for name, value, kind in (("subject", subject, Subject), ("pipeline", pipeline, Transform)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be a {kind.__name__}, got {shown(value)}")
    subject, keys = subject.load(), as_many(keys)
    check_leading(subject, 0)
    check_subject(pipeline, subject)
    params, copies = compiled_copies(pipeline, bare(subject), keys)
    first = next(iter(copies.images.values()))
    logits = jnp.asarray(apply_fn(copies))
    if logits.ndim != 5 or (logits.shape[0], *logits.shape[2:]) != (first.shape[0], *first.shape[2:]):
        raise ValueError(
            f"apply_fn must give logits (N, K, I, J, K), here ({first.shape[0]}, K, {first.shape[2:]}), "
            f"got {logits.shape}"
        )
    data = compiled_mean(pipeline, logits, params, bare(subject))
    return ScalarImage(data, np.asarray(next(iter(subject.images.values())).affine, np.float64))


@jax.jit
def compiled_copies(t: Transform, subject: Subject, keys: Key) -> tuple[Params, Subject]:
    """Params and transformed subjects for every key, a batch."""
    steps = flatten(t)

    def copy(key: Key) -> tuple[Params, Subject]:
        params = draw(t, key, subject)
        return params, execute(steps, runs_of(steps), flatten_params(t, params), subject)[0]

    return jax.lax.map(copy, keys)


@jax.jit
def compiled_mean(t: Transform, logits: jax.Array, params: Params, like: Subject) -> jax.Array:
    """The mean of the softmax of logits (N, K, I, J, K'), one copy brought back after the other."""

    def back(scores: jax.Array, params: Params) -> jax.Array:
        """Probabilities on the grid of `like`, and as last channel which voxels are shown."""
        probabilities = jax.nn.softmax(scores.astype(jnp.float32), axis=0)
        shown = jnp.ones((1, *scores.shape[1:]), jnp.float32)
        image = ScalarImage.of(jnp.concatenate([probabilities, shown]), jnp.eye(4))
        return invert(t, Subject(prediction=image), params, like, "linear")["prediction"].data

    def add(total: jax.Array, operands: tuple[jax.Array, Params]) -> tuple[jax.Array, None]:
        return total + back(*operands), None

    shape = jax.eval_shape(back, logits[0], jax.tree.map(lambda leaf: leaf[0], params)).shape
    total, _ = jax.lax.scan(add, jnp.zeros(shape, jnp.float32), (logits, params))
    return total[:-1] / jnp.maximum(total[-1:], 1e-6)
