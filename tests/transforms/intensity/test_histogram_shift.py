"""A histogram that is shifted: NumPy's interpolation, MONAI's, and what is drawn."""

import jax
import numpy as np
import pytest
from conftest import blobs
from monai.transforms import RandHistogramShift
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import COUNT, between, draws, follow, frequency

X = np.stack([blobs(), 300 * blobs(seed=1) - 100])
POINTS = (0, 0.05, 0.05, 0.7, 0.9, 1)


def shifted(x, points):
    """The line in float64."""
    low, high = float(x.min()), float(x.max())
    knots = np.linspace(0, 1, len(points))
    return np.interp((x.astype(float) - low) / (high - low), knots, points) * (high - low) + low


def test_each_channel_follows_the_line_over_its_range():
    want = np.stack([shifted(channel, POINTS) for channel in X])
    np.testing.assert_allclose(mj.HistogramShift(POINTS)(X), want, rtol=1e-5, atol=1e-4)


def test_it_is_monais():
    theirs = RandHistogramShift(num_control_points=7, prob=1.0)
    theirs.set_random_state(3)
    for channel in X:
        want = theirs(channel[None])
        ours = mj.HistogramShift(theirs.floating_control_points)(channel[None])
        np.testing.assert_allclose(ours, np.asarray(want), rtol=1e-5, atol=1e-4)


def test_where_the_line_rises_it_is_taken_back():
    t = mj.HistogramShift((0, 0.1, 0.7, 1))
    back = t.invert(t(X), t.sample(jax.random.key(0), X), like=X)
    np.testing.assert_allclose(back, X, atol=1e-3)


def test_an_even_line_and_an_image_of_one_value_stay():
    np.testing.assert_allclose(mj.HistogramShift((0, 0.5, 1))(X), X, rtol=1e-6, atol=1e-5)
    constant = np.full((1, 3, 4, 5), 7, np.float32)
    np.testing.assert_array_equal(mj.HistogramShift(POINTS)(constant), constant)


def test_each_point_is_drawn_between_its_neighbours():
    drawn = draws(mj.RandomHistogramShift(5, per_channel=True, p_per_channel=0.3))
    knots, points = drawn["knots"], drawn["points"]
    np.testing.assert_array_equal(knots[0, 0], np.linspace(0, 1, 5, dtype=np.float32))
    assert (points[..., 0] == 0).all() and (points[..., -1] == 1).all()
    follow((points[..., 1:-1] - points[..., :-2]) / (knots[..., 2:] - points[..., :-2]), between(0, 1))
    frequency(drawn["channels"], 0.3)


def test_the_number_of_points_is_drawn_too():
    drawn = draws(mj.RandomHistogramShift((3, 6)))
    knots, points = drawn["knots"], drawn["points"]
    counts = (knots < 1).sum(-1) + 1
    assert stats.chisquare(np.bincount(counts, minlength=7)[3:]).pvalue > 1e-3
    assert (points[knots == 1] == 1).all() and (np.diff(points, axis=-1) >= 0).all() and len(points) == COUNT


@pytest.mark.parametrize("points", [(0, 0.5), (0.1, 1), (0, 0.8, 0.3, 1), (1,), (0, 2, 1)])
def test_points_that_do_not_rise_from_0_to_1_are_refused(points):
    with pytest.raises(ValueError, match="control_points"):
        mj.HistogramShift(points)


def test_fewer_than_three_points_leave_nothing_to_draw():
    with pytest.raises(ValueError, match="num_control_points"):
        mj.RandomHistogramShift(2)
