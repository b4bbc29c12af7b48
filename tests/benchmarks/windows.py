"""What `sliding_window` costs beside the network, and how much memory many classes take.

python tests/benchmarks/windows.py
"""

import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from timer import alternate, volume

import medjax as mj
from medjax.demo import UNet

SIZE, OVERLAP, BATCH = 64, 16, 4
SIDE, CLASSES = 384, 100


def overhead() -> None:
    """The windows of a volume through the demo's network, against the same windows, cut before, through it alone."""
    data, _, affine = volume()
    subject = mj.Subject(t1=mj.ScalarImage(jax.device_put(data.astype(np.float32)), affine))
    graph, weights = nnx.split(UNet(4, nnx.Rngs(0)))

    def network(weights, batch: mj.Subject) -> jax.Array:
        return jnp.moveaxis(nnx.merge(graph, weights)(mj.channels_last(batch["t1"])), -1, 1)

    bound = jax.tree_util.Partial(network, weights)
    patches = list(mj.GridSampler(subject, SIZE, OVERLAP))
    batches = [jax.device_put(mj.stack(patches[n : n + BATCH])) for n in range(0, len(patches), BATCH)]
    alone = jax.jit(network)
    best = alternate(
        {
            "sliding_window": lambda: mj.sliding_window(bound, subject, SIZE, OVERLAP, BATCH).data,
            "the network alone": lambda: [alone(weights, batch) for batch in batches],
        },
        repeats=3,
    )
    ours, bare = best.values()
    print(f"{len(patches)} windows of {SIZE}^3: {ours / bare - 1:+.1%} beside the network (goal 3%)")


def many_classes() -> None:
    """The most likely of 100 classes at every voxel of 384^3, reduced slab by slab."""
    x = np.random.default_rng(0).random((1, SIDE, SIDE, SIDE), np.float32)
    subject = mj.Subject(t1=mj.ScalarImage(x))
    shift = jnp.arange(CLASSES, dtype=jnp.float32)[None, :, None, None, None]

    def scores(batch: mj.Subject) -> jax.Array:
        return -jnp.abs(batch["t1"].data * CLASSES - shift)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = mj.sliding_window(scores, subject, 96, 24, 1, reduce=lambda s: s.argmax(0, keepdims=True)).numpy()
    elapsed = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wrong = np.mean(found[0] != np.clip(np.rint(x[0] * CLASSES), 0, CLASSES - 1))
    print(
        f"{CLASSES} classes at {SIDE}^3: {peak / 2**20:.1f} GiB at most, {(peak - before) / 2**20:.1f} more than before "
        f"(all scores are {CLASSES * SIDE**3 * 4 / 2**30:.1f}); {elapsed:.0f} s; {wrong:.1e} of the voxels differ"
    )


if __name__ == "__main__":
    overhead()
    many_classes()
