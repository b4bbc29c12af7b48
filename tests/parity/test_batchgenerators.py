"""The augmentations of nnU-Net give the numbers of batchgeneratorsv2."""

import warnings

import numpy as np
import pytest
import torch
from conftest import blobs

import medjax as mj

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from batchgeneratorsv2.transforms.intensity.brightness import (
        BrightnessAdditiveTransform,
        MultiplicativeBrightnessTransform,
    )
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform
    from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform
    from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
    from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
    from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

SHAPE = (23, 31, 18)
DATA = np.stack([blobs(SHAPE) * 3 - 1, blobs(SHAPE, 1)]).astype(np.float32)


def check(mine, peer, tolerance=1e-5):
    """The same numbers, to a tolerance times the range."""
    want = peer(image=torch.from_numpy(DATA.copy()))["image"].numpy()
    assert np.abs(want - DATA).max() > 1e-3
    np.testing.assert_allclose(mine(DATA), want, atol=tolerance * np.ptp(want))


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_brightness(factor):
    check(mj.Brightness(factor), MultiplicativeBrightnessTransform(factor, True))
    # Synchronised, this peer draws uniformly from (mu, sigma), where its documentation says normally.
    check(mj.Brightness(1, factor), BrightnessAdditiveTransform(factor, factor, True))


@pytest.mark.parametrize("factor", [0.5, 1.6])
@pytest.mark.parametrize("preserve_range", [True, False])
def test_contrast(factor, preserve_range):
    check(mj.Contrast(factor, preserve_range), ContrastTransform(factor, preserve_range, True))


@pytest.mark.parametrize("gamma", [0.7, 1.5])
@pytest.mark.parametrize("invert", [0, 1])
@pytest.mark.parametrize("retain", [0, 1])
def test_gamma(gamma, invert, retain):
    mine = mj.Gamma(gamma, rescale=True, invert_image=bool(invert), retain_stats=bool(retain))
    check(mine, GammaTransform(gamma, invert, True, 1, retain), 2e-5)


@pytest.mark.parametrize("zoom", [0.31, 0.5, 0.77, 0.96])
@pytest.mark.parametrize("kept", [None, (0,)])
def test_low_resolution(zoom, kept):
    axes = (0, 1, 2) if kept is None else (1, 2)
    check(mj.LowResolution(zoom, axes), SimulateLowResolutionTransform(zoom, True, True, kept))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_median(size):
    check(mj.Median(size), MedianFilterTransform(size), 0)


@pytest.mark.parametrize("strength", [0.1, 1.0])
@pytest.mark.parametrize("clamp", [0, 1])
def test_sharpen(strength, clamp):
    mine = mj.Sharpen(strength, preserve_range=bool(clamp))
    check(mine, SharpeningTransform(strength, p_same_for_each_channel=1, p_clamp_intensities=clamp))


PLACES = [((0.5, 0.5, 0.5), (5.0, 12.0, 18.0)), ((-0.4, 1.3, 0.2), (6.0, 9.0, 16.0))]


@pytest.mark.parametrize("location, scale", PLACES)
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("clip", [True, False])
def test_brightness_gradient(location, scale, centered, clip):
    peer = BrightnessGradientAdditiveTransform(
        lambda _, axis: scale[axis], lambda _, axis: location[axis], -3.0, True, centered, clip
    )
    options = dict(mean_centered=centered, preserve_range=clip)
    check(mj.BrightnessGradient(-3, location, np.divide(scale, SHAPE), **options), peer, 1e-4)


@pytest.mark.parametrize("location, scale", PLACES)
@pytest.mark.parametrize("gamma", [0.2, 3.0])
def test_local_gamma(location, scale, gamma):
    peer = LocalGammaTransform(lambda _, axis: scale[axis], lambda _, axis: location[axis], gamma)
    check(mj.LocalGamma(gamma, location, np.divide(scale, SHAPE)), peer, 1e-4)


@pytest.mark.parametrize("value", [np.mean, 0.3])
def test_coarse_dropout(value):
    """Of the boxes that the peer drew."""
    size = (7, 9, 4)
    np.random.seed(0)  # noqa: NPY002 (the peer draws from it)
    peer = BlankRectangleTransform(size, (lambda x: x.mean()) if value is np.mean else value, 6)
    boxes = peer.get_parameters(torch.from_numpy(DATA))["rectangles"]
    corners = [low for low, _ in boxes[0]]
    params = {"apply_channel": [True, True], "rectangles": [boxes[0], boxes[0]]}
    want = peer._apply_to_image(torch.from_numpy(DATA.copy()), **params).numpy()
    got = mj.CoarseDropout(corners, size, None if value is np.mean else value)(DATA)
    assert (want != DATA).any()
    np.testing.assert_allclose(got, want, atol=1e-5)
