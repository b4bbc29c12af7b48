"""Does the cost of a batch follow p? Elastic deformation of 8 volumes of 96^3, at p = 0.1 against p = 1.

python tests/benchmarks/gate.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from timer import seconds

import medjax as mj

KEYS = 12


def main() -> None:
    """Print the ratio of mean times over twelve keys, forward and with the gradient, for batch and for vmap."""
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(8, 1, 96, 96, 96)).astype(np.float32))

    @jax.jit
    def forward(t, x, key):
        return t.batch(x, key)

    @jax.jit
    def gradient(t, x, key):
        return jax.grad(lambda x: (t.batch(x, key) ** 2).sum())(x)

    @jax.jit
    def mapped(t, x, key):
        return jax.vmap(t)(x, jax.random.split(key, len(x)))

    for name, run in (("batch", forward), ("batch, gradient", gradient), ("vmap", mapped)):
        times = {0.1: [], 1.0: []}
        for i in range(KEYS + 1):
            for p, found in times.items():
                t = mj.RandomElasticDeformation(p=p)
                found.append(seconds(lambda t=t, i=i, run=run: run(t, batch, jax.random.key(i))))
        rare, always = (np.mean(found[1:]) for found in times.values())
        print(f"{name:16} p = 0.1 costs {rare / always:.2f} of p = 1 (goal 0.25)")


if __name__ == "__main__":
    main()
