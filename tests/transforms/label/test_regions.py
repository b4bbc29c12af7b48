"""Regions: channels of groups of labels."""

import jax
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

import medjax as mj

GROUPS = ((1, 2, 3), (2, 3), 3, 300)


def labels(dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 6, (1, 5, 6, 7)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_they_are_those_of_batchgenerators(dtype):
    x, t = labels(dtype), mj.Regions(GROUPS)
    peer = ConvertSegmentationToRegionsTransform(GROUPS)
    want = peer(segmentation=torch.from_numpy(x.astype(np.int16)))["segmentation"].numpy()
    for run in (t, jax.jit(t)):
        got = run(mj.LabelMap(x))
        assert got.dtype == np.uint8 and got.shape == (4, 5, 6, 7)
        np.testing.assert_array_equal(got.numpy(), want)


def test_foreground_labels_give_one_hot_channels_without_background():
    x = labels()
    want = np.concatenate([x == n for n in range(1, 6)])
    np.testing.assert_array_equal(mj.Regions((1, 2, 3, 4, 5))(mj.LabelMap(x)).numpy(), want)
    np.testing.assert_array_equal(mj.OneHot(6)(mj.LabelMap(x)).numpy()[1:], want)


@pytest.mark.parametrize("regions", [(), 3, None, "12", ((),), ((1.5,),)])
def test_what_is_no_sequence_of_groups_is_refused(regions):
    with pytest.raises((TypeError, ValueError), match="regions"):
        mj.Regions(regions)


def test_several_channels_and_a_coin_are_refused():
    with pytest.raises(ValueError, match="one channel"):
        mj.Regions((1,))(mj.LabelMap(np.zeros((2, 3, 3, 3), np.uint8)))
    with pytest.raises(ValueError, match="p must be 1"):
        mj.Regions((1,), p=0.5)
