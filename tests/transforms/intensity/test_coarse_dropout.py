"""Boxes that are blanked."""

import jax
import numpy as np
import pytest
from conftest import blobs
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import COUNT, between, draws, follow

DATA = np.stack([blobs(), blobs(seed=1)])


def blank(x, corners, sizes, fill=None):
    """One box after the other, in NumPy float64."""
    x = x.astype(float)
    for corner, size in zip(corners, sizes, strict=True):
        box = tuple(slice(c, c + s) for c, s in zip(corner, size))
        x[box] = x[box].mean() if fill is None else fill
    return x


CORNERS = [(0, 0, 0), (3, 2, 1), (18, 20, 12)]


@pytest.mark.parametrize("fill", [None, -1.5])
def test_boxes_get_the_mean_of_what_is_there_or_a_number(fill):
    size = (5, 11, 6)
    got = np.asarray(mj.CoarseDropout(CORNERS, size, fill)(DATA))
    for one, x in zip(got, DATA, strict=True):
        np.testing.assert_allclose(one, blank(x, CORNERS, [size] * 3, fill), atol=1e-6)


def test_a_box_that_leaves_the_image_is_cut():
    got = np.asarray(mj.CoarseDropout([(20, 0, 16)], 7, 0)(DATA))
    np.testing.assert_array_equal(got, np.stack([blank(x, [(20, 0, 16)], [(7, 7, 7)], 0) for x in DATA]))
    all_ = np.asarray(mj.CoarseDropout([(0, 0, 0)], 90, 2)(DATA))
    np.testing.assert_array_equal(all_, 2)


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_random_one_blanks_what_it_drew(per_channel):
    t = mj.RandomCoarseDropout(((2, 6), (3, 9), (1, 5)), (1, 4), per_channel=per_channel)
    params = t.sample(jax.random.key(2), mj.ScalarImage(DATA))
    drawn = jax.tree.map(np.asarray, params["draw"]["image"])
    got = np.asarray(t.apply(DATA, params))
    for channel, x in enumerate(DATA):
        corner, size, count = (drawn[n][channel] if per_channel else drawn[n] for n in ("corner", "size", "count"))
        np.testing.assert_allclose(got[channel], blank(x, corner[:count], size[:count]), atol=1e-6)


def test_what_is_drawn():
    shape = (9, 8, 3)
    t = mj.RandomCoarseDropout(((2, 4), (3, 3), (1, 9)), (0, 3), fill=(-1, 2))
    drawn = draws(t, shape=shape)
    corner, size = drawn["corner"].reshape(-1, 3), drawn["size"].reshape(-1, 3)
    assert (corner >= 0).all() and (corner + size <= shape).all()
    assert stats.chisquare(np.bincount(size[:, 0])[2:]).pvalue > 1e-3 and set(size[:, 1]) == {3}
    for length in (2, 3, 4):
        places = np.bincount(corner[size[:, 0] == length, 0], minlength=9 - length + 1)
        assert len(places) == 9 - length + 1 and stats.chisquare(places).pvalue > 1e-3
    counts = np.bincount(drawn["count"])
    assert counts.sum() == COUNT and len(counts) == 4 and stats.chisquare(counts).pvalue > 1e-3
    follow(drawn["fill"], between(-1, 2))


BAD = [
    ({"size": 0}, "size"), ({"size": (5, 2)}, "size"), ({"size": (1, 2, 3)}, "size"), ({"num_boxes": (3, 1)}, "num"),
    ({"num_boxes": 1.5}, "num"), ({"fill": (2, 1)}, "fill"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, message", BAD)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.RandomCoarseDropout(**arguments)
    with pytest.raises(ValueError, match="corners"):
        mj.CoarseDropout([(0.5, 1, 1)])
