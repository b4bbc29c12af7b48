"""Boxes that change places: what is exchanged, what is drawn, and the way back."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats

import medjax as mj

SHAPE = (23, 31, 18)
SIZE = (5, 4, 3)


def exchanged(x, size, locations):
    """Voxel by voxel, in NumPy."""
    x = x.copy()
    for first, second in locations:
        one, other = (tuple(slice(c, c + s) for c, s in zip(corner, size)) for corner in (first, second))
        x[(..., *one)], x[(..., *other)] = x[(..., *other)].copy(), x[(..., *one)].copy()
    return x


def test_boxes_change_places_one_pair_after_the_other():
    x = np.stack([blobs(SHAPE), blobs(SHAPE, 1)])
    locations = [((0, 0, 0), (18, 27, 15)), ((16, 25, 13), (3, 3, 3)), ((0, 4, 0), (0, 0, 0))]
    got = np.asarray(mj.Swap(SIZE, locations)(x))
    np.testing.assert_array_equal(got, exchanged(x, SIZE, locations))
    assert (got != x).any()


def test_the_inverse_is_exact():
    subject, t = small_subject(), mj.RandomSwap(SIZE, 60)
    params = t.sample(jax.random.key(0), subject)
    there = t.apply(subject, params)
    assert (there.t1.numpy() != subject.t1.numpy()).mean() > 0.3
    np.testing.assert_array_equal(np.sort(there.t1.numpy(), None), np.sort(subject.t1.numpy(), None))
    np.testing.assert_array_equal(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy())


def pairs(t, shape, seed=0):
    subject = mj.Subject(t1=mj.ScalarImage(np.zeros((1, *shape), np.float32)))
    return np.asarray(t.sample(jax.random.key(seed), subject)["draw"]["t1"]["locations"])


@pytest.mark.parametrize("shape", [(9, 12, 7), (9, 4, 3), (40, 50, 30)])
def test_w35_boxes_are_disjoint_and_within(shape):
    drawn = pairs(mj.RandomSwap(SIZE, 5000), shape)
    assert (drawn >= 0).all() and (drawn <= np.array(shape) - SIZE).all()
    apart = np.abs(drawn[:, 0] - drawn[:, 1]) >= SIZE
    disjoint = apart.any(1)
    same = (drawn[:, 0] == drawn[:, 1]).all(1)
    assert (disjoint | same).all()
    room = np.array(shape) - SIZE
    alone = ((drawn[:, 0] - np.array(SIZE) < 0) & (drawn[:, 0] + SIZE > room)).all(1)
    np.testing.assert_array_equal(same, alone)


def test_w35_every_place_is_equally_likely_the_last_one_too():
    drawn = pairs(mj.RandomSwap((2, 2, 1), 60000), (4, 3, 2))
    first = np.ravel_multi_index(drawn[:, 0].T, (3, 2, 2))
    assert stats.chisquare(np.bincount(first, minlength=12)).pvalue > 1e-3
    places = np.stack(np.unravel_index(np.arange(12), (3, 2, 2)), 1)
    for corner in ((0, 0, 0), (1, 1, 1), (2, 0, 1)):
        second = drawn[(drawn[:, 0] == corner).all(1), 1]
        counts = np.bincount(np.ravel_multi_index(second.T, (3, 2, 2)), minlength=12)
        allowed = (np.abs(places - corner) >= (2, 2, 1)).any(1)
        assert (counts[~allowed] == 0).all()
        assert stats.chisquare(counts[allowed]).pvalue > 1e-3


def test_a_box_as_large_as_the_image_stays():
    x = blobs(SHAPE)[None]
    np.testing.assert_array_equal(mj.RandomSwap(SHAPE, 3)(x, jax.random.key(0)), x)


BAD = [
    (dict(patch_size=0, locations=[]), "patch_size"),
    (dict(patch_size=(1, 2), locations=[]), "patch_size"),
    (dict(patch_size=2, locations=[(0, 0, 0)]), "locations"),
    (dict(patch_size=2, locations=[((0, 0, 0), (1, 1, 1))]), "overlap"),
    (dict(patch_size=2, locations=[((0, 0, 0.5), (4, 4, 4))]), "whole"),
    (dict(patch_size=2, locations=[((0, 0, -1), (4, 4, 4))]), "locations"),
]


@pytest.mark.parametrize("arguments, message", BAD)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.Swap(**arguments)


def test_boxes_that_leave_the_image_are_refused():
    x = blobs(SHAPE)[None]
    with pytest.raises(ValueError, match=r"locations reach \[24, 5, 5\], beyond image"):
        mj.Swap(5, [((0, 0, 0), (19, 0, 0))])(x)
    with pytest.raises(ValueError, match="does not fit"):
        mj.RandomSwap(19)(x, jax.random.key(0))
    with pytest.raises(ValueError, match="num_iterations"):
        mj.RandomSwap(3, -1)


def test_no_pair_changes_nothing():
    x = blobs(SHAPE)[None]
    for t in (mj.RandomSwap(SIZE, 0), mj.Swap(SIZE, np.zeros((0, 2, 3)))):
        np.testing.assert_array_equal(np.asarray(t(x, jax.random.key(0))), x)
