"""A bias field from control points, against SciPy in float64."""

import jax
import numpy as np
import pytest
from conftest import blobs, small_subject
from scipy import stats
from scipy.interpolate import BSpline
from scipy.ndimage import map_coordinates

import medjax as mj
from transforms.intensity.drawing import COUNT, draws

SHAPE = (23, 31, 18)
POINTS = np.random.default_rng(0).normal(0, 0.5, (4, 6, 5))


def test_linear_is_synthsegs_resize():
    at = np.meshgrid(*(np.arange(n) * s / n for n, s in zip(SHAPE, POINTS.shape)), indexing="ij")
    want = map_coordinates(POINTS, at, order=1, mode="nearest")
    got = np.asarray(mj.BSplineBiasField(POINTS, "linear")(np.ones((1, *SHAPE), np.float32)))
    np.testing.assert_allclose(np.log(got[0]), want, atol=1e-5)


def test_bspline_is_a_cubic_spline_over_the_field_of_view():
    want = POINTS
    for n, s in zip(SHAPE, POINTS.shape):
        spline = BSpline(np.arange(s + 4) - 2.0, np.eye(s), 3)
        want = np.tensordot(want, spline(1 + (np.arange(n) + 0.5) / n * (s - 3)), (0, 1))
    got = np.asarray(mj.BSplineBiasField(POINTS)(np.ones((1, *SHAPE), np.float32)))
    np.testing.assert_allclose(np.log(got[0]), want, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_equal_points_are_a_gain(interpolation):
    data = blobs()[None]
    got = mj.BSplineBiasField(np.full((4, 5, 6), 0.3), interpolation)(data)
    np.testing.assert_allclose(got, data * np.exp(0.3), rtol=1e-5)


def test_the_inverse_divides_by_the_field():
    subject, t = small_subject(), mj.RandomBSplineBiasField(4, (0.5, 0.6), per_channel=True)
    params = t.sample(jax.random.key(3), subject)
    there = t.apply(subject, params)
    assert np.abs(there.t1.numpy() - subject.t1.numpy()).max() > 0.05
    np.testing.assert_allclose(t.invert(there, params, like=subject).t1.numpy(), subject.t1.numpy(), atol=1e-5)


def test_what_is_drawn():
    points = draws(mj.RandomBSplineBiasField((2, 1, 2), (0.7, 0.7), "linear", per_channel=True))["control_points"]
    for column in points.reshape(COUNT, -1).T:
        assert stats.kstest(column.astype(float), stats.norm(0, 0.7).cdf).pvalue > 1e-3
    many = draws(mj.RandomBSplineBiasField(12, (0.2, 0.9), "linear"))["control_points"].reshape(COUNT, -1)
    assert stats.kstest(many.std(1).astype(float)[:300], stats.uniform(0.2, 0.7).cdf).pvalue > 1e-3


def test_arguments_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        mj.RandomBSplineBiasField(3)
    with pytest.raises(ValueError, match="control_points"):
        mj.BSplineBiasField(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="interpolation"):
        mj.RandomBSplineBiasField(4, interpolation="cubic")
    with pytest.raises(ValueError, match="std"):
        mj.RandomBSplineBiasField(4, -1)
