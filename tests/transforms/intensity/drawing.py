"""Many draws of a transform at once, for tests of distributions."""

import jax
import numpy as np
from scipy import stats

import medjax as mj

COUNT = 4000


@jax.jit
def sampled(t, keys, subject):
    return jax.vmap(lambda key: t.sample(key, subject))(keys)["draw"]["t1"]


def draws(t, channels=2, shape=(5, 6, 7)):
    """What COUNT calls draw for an image: {parameter: (COUNT, ...)}."""
    subject = mj.Subject(t1=mj.ScalarImage(np.zeros((channels, *shape), np.float32)))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(2024), np.arange(COUNT, dtype=np.uint32))
    drawn = sampled(t, keys, subject)
    return {name: np.asarray(value) for name, value in drawn.items() if name != "key"}


def follow(values, distribution):
    """Every column of the draws has a distribution, and no two columns know of each other."""
    columns = np.asarray(values, float).reshape(COUNT, -1)
    for column in columns.T:
        assert stats.kstest(column, distribution.cdf).pvalue > 1e-3
    if columns.shape[1] > 1:
        assert np.all(np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])) < 0.1)


def between(low, high):
    """Uniform from low to high."""
    return stats.uniform(low, high - low)


class Halves:
    """Uniform on one of two ranges, each half the time."""

    def __init__(self, first, second):
        self.parts = [between(*first), between(*second)]

    def cdf(self, x):
        return sum(part.cdf(x) for part in self.parts) / 2


def frequency(coins, p):
    """Every column is True with probability p, on its own."""
    columns = np.asarray(coins).reshape(COUNT, -1)
    for column in columns.T:
        assert stats.binomtest(int(column.sum()), COUNT, p).pvalue > 1e-3
    if columns.shape[1] > 1 and 0 < p < 1:
        assert np.all(np.abs(np.corrcoef(columns.T) - np.eye(columns.shape[1])) < 0.1)
