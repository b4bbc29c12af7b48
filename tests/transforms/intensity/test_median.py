"""The median of a neighbourhood, by the size that was drawn."""

import jax
import numpy as np
import pytest
from conftest import blobs
from scipy import ndimage, stats

import medjax as mj
from transforms.intensity.drawing import COUNT, draws


def test_it_is_scipys():
    x = np.stack([blobs(), blobs(seed=1)])
    got = np.asarray(mj.Median(3)(x))
    np.testing.assert_array_equal(got, np.stack([ndimage.median_filter(c, size=3) for c in x]))


def test_each_channel_has_the_size_that_it_drew():
    x = np.stack([blobs((9, 8, 7), seed) for seed in range(4)])
    t = mj.RandomMedian((1, 4), per_channel=True)
    params = t.sample(jax.random.key(4), mj.ScalarImage(x))
    sizes = np.asarray(params["draw"]["image"]["size"])
    assert len(set(sizes)) > 1
    want = np.stack([ndimage.median_filter(c, size=int(size)) for c, size in zip(x, sizes, strict=True)])
    np.testing.assert_array_equal(t.apply(x, params), want)


def test_what_is_drawn():
    sizes = draws(mj.RandomMedian(per_channel=True))["size"]
    for column in sizes.T:
        counts = np.bincount(column, minlength=8)
        assert counts.sum() == counts[2:].sum() == COUNT and stats.chisquare(counts[2:]).pvalue > 1e-3


@pytest.mark.parametrize("size", [0, 2.5, (3, 2), (1, 2, 3)])
def test_sizes_that_make_no_sense_are_refused(size):
    with pytest.raises(ValueError, match="size"):
        mj.RandomMedian(size)
