"""Clamp keeps intensities between its bounds."""

import jax
import numpy as np
import pytest
from conftest import blobs

import medjax as mj

KEY = jax.random.key(0)


@pytest.mark.parametrize("low, high", [(0.3, 0.6), (None, 0.6), (0.3, None), (0.5, 0.5)])
@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_it_is_numpys_clip(low, high, dtype):
    data = (blobs() * (1 if dtype == np.float32 else 100)).astype(dtype)[None]
    scale = 1 if dtype == np.float32 else 100
    low, high = (None if b is None else b * scale for b in (low, high))
    got = mj.Clamp(low, high)(data)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.clip(data.astype(float), low, high), rtol=1e-6)


def test_twice_is_once_and_nan_stays():
    data = blobs()[None].copy()
    data[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    t = mj.Clamp(0.2, 0.7)
    once = np.asarray(t(data))
    np.testing.assert_array_equal(t(once), once)
    np.testing.assert_allclose(once[0, 0, 0, :3], [np.nan, 0.7, 0.2])
    assert np.isnan(once).sum() == 1


def test_bounds_are_leaves():
    gradient = jax.grad(lambda t: t(blobs()[None], KEY).sum())(mj.Clamp(0.3, 0.6))
    assert float(gradient.out_min) == (blobs() < 0.3).sum() and float(gradient.out_max) == (blobs() > 0.6).sum()
    assert mj.Clamp(0.3).out_max is None


@pytest.mark.parametrize("arguments, message", [
    ((None, None), "out_min and out_max are both None"), ((2, 1), "out_min=2 is greater than out_max=1"),
    (((1, 2), 3), "out_min must be one number"), ((np.nan, 3), "out_min must be finite"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.Clamp(*arguments)
