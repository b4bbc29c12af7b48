"""Sharper edges."""

import numpy as np
import pytest
from conftest import blobs
from scipy import ndimage

import medjax as mj
from transforms.intensity.drawing import between, draws, follow


@pytest.mark.parametrize("preserve_range", [False, True])
def test_it_adds_what_a_voxel_exceeds_its_neighbours_by(preserve_range):
    x = np.stack([blobs(), 3 * blobs(seed=1)])
    kernel = -ndimage.generate_binary_structure(3, 1).astype(float)
    kernel[1, 1, 1] = 6
    want = np.stack([c + 0.7 * ndimage.correlate(c, kernel, mode="nearest") for c in x.astype(float)])
    if preserve_range:
        want = np.clip(want, x.min((1, 2, 3), keepdims=True), x.max((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(mj.Sharpen(0.7, preserve_range=preserve_range)(x), want, atol=1e-5)


def test_a_ramp_and_no_strength_change_nothing():
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32), (1, 5, 6, 9)).copy()
    np.testing.assert_allclose(np.asarray(mj.Sharpen(1.0)(ramp))[..., 1:-1], ramp[..., 1:-1], atol=1e-6)
    np.testing.assert_array_equal(mj.Sharpen(0.0)(blobs()[None]), blobs()[None])


def test_what_is_drawn():
    follow(draws(mj.RandomSharpen(per_channel=True))["strength"], between(0.1, 1))


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength"):
        mj.RandomSharpen((-1, 1))
