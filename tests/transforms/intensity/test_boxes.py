"""A box of the image, with the margin that a transform asks for, becomes the box of the transformed image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import blobs

import medjax as mj
from medjax.transforms.box import continued

SHAPE = (23, 31, 18)
SIZE = (9, 11, 9)
POINTS = np.random.default_rng(0).normal(0, 0.5, (4, 5, 6))
CASES = {
    "sharpen": (mj.Sharpen(0.7), 1),
    "median": (mj.Median(4), 2),
    "bspline bias field": (mj.BSplineBiasField(POINTS), 0),
    "linear bias field": (mj.BSplineBiasField(POINTS, "linear"), 0),
    "gradient": (mj.BrightnessGradient(2, (0.2, 1.1, 0.6), (0.3, 0.5, 0.4), mean_centered=True), 0),
    "rician noise": (mj.Noise(0, 1, distribution="rician"), 0),
    "brightness": (mj.Brightness(1.2, 0.3), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_box_is_the_box_of_the_whole(name):
    t, margin = CASES[name]
    assert t.margin(np.ones(3)) == (margin,) * 3
    x = blobs(SHAPE)[None]
    whole = np.asarray(t(x))
    wide = np.pad(x, [(0, 0), *[(margin, margin)] * 3])
    for start in ((0, 0, 0), (5, 7, 3), (14, 20, 9)):
        data = wide[(slice(None), *(slice(s, s + n + 2 * margin) for s, n in zip(start, SIZE, strict=True)))]
        offset, full = (np.array(v, np.int32) for v in (np.subtract(start, margin), SHAPE))
        box = continued(mj.ScalarImage.of(jnp.asarray(data), np.eye(4), None, offset, full))
        got = np.asarray(t.apply_to(box, t.draw(jax.random.key(0), None)).data)
        got = got[(slice(None), *(slice(margin, margin + n) for n in SIZE))]
        want = whole[(slice(None), *(slice(s, s + n) for s, n in zip(start, SIZE, strict=True)))]
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_what_needs_the_range_or_the_mean_of_the_image_needs_all_of_it():
    needing = [
        mj.Contrast(2), mj.LocalGamma(2), mj.Sharpen(preserve_range=True), mj.BrightnessGradient(preserve_range=True),
        mj.Gamma(2, rescale=True), mj.Anisotropy(0), mj.LowResolution(), mj.RandomSwap(), mj.RandomCoarseDropout(),
    ]  # fmt: skip
    assert all(t.margin(np.ones(3)) is None for t in needing)
