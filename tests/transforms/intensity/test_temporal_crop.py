"""A stretch of a series."""

import jax
import numpy as np
import pytest
from conftest import blobs
from scipy import stats

import medjax as mj
from transforms.intensity.drawing import draws

SERIES = np.stack([blobs((5, 6, 7), seed) for seed in range(8)])


def test_it_takes_time_points_from_the_start():
    np.testing.assert_array_equal(mj.TemporalCrop(2, 5)(SERIES), SERIES[2:7])
    subject = mj.Subject(bold=mj.ScalarImage(SERIES), label=mj.LabelMap((SERIES > 0.5).astype(np.uint8)))
    got = mj.TemporalCrop(0, 1)(subject)
    assert got.bold.shape == (1, 5, 6, 7) and got.label.shape == (8, 5, 6, 7)


def test_each_start_is_equally_likely():
    starts = draws(mj.RandomTemporalCrop(3), channels=8)["start"]
    counts = np.bincount(starts)
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_series_of_a_subject_are_cut_alike_on_request():
    subject = mj.Subject(bold=mj.ScalarImage(SERIES), other=mj.ScalarImage(SERIES))
    got = mj.RandomTemporalCrop(2, shared=True)(subject, jax.random.key(0))
    np.testing.assert_array_equal(got.bold.numpy(), got.other.numpy())


def test_steps_after_it_draw_for_the_channels_that_are_left():
    t = mj.Compose([mj.RandomTemporalCrop(3), mj.RandomGamma(), mj.RandomBlur(per_channel=True)])
    assert t(SERIES, jax.random.key(0)).shape == (3, 5, 6, 7)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(ValueError, match="8 time points, but 9"):
        mj.TemporalCrop(6, 3)(SERIES)
    with pytest.raises(ValueError, match="8 time points"):
        mj.RandomTemporalCrop(9)(SERIES, jax.random.key(0))
    with pytest.raises(ValueError, match="p must be 1"):
        mj.RandomTemporalCrop(3, p=0.5)
    for arguments in ((0.5, 3), (-1, 3)):
        with pytest.raises(ValueError, match="start"):
            mj.TemporalCrop(*arguments)
    with pytest.raises(ValueError, match="length"):
        mj.RandomTemporalCrop(0)
