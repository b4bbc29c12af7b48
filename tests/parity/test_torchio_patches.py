"""Grids, aggregation and the shares of samplers against TorchIO 1.2.1."""

import warnings

import numpy as np
import pytest
import torch
from conftest import OBLIQUE
from patches.shared import (
    GRIDS,
    SIZE,
    N,
    batches,
    drawn_labels,
    histogram,
    labelled,
    mapped,
    starts,
    subject_of,
    volume,
)
from scipy.stats import chisquare

import medjax as mj
from parity.peer import tio


def peer_sampler(data, size, overlap, padding_mode=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        subject = tio.Subject(image=tio.ScalarImage(tensor=torch.from_numpy(data), affine=OBLIQUE))
        return tio.GridSampler(subject, size, overlap, padding_mode)


@pytest.mark.parametrize("padding_mode", [None, "reflect", 0])
@pytest.mark.parametrize("size, overlap", GRIDS)
def test_locations_are_torchios(size, overlap, padding_mode):
    data = volume()
    got, want = (
        mj.GridSampler(subject_of(data), size, overlap, padding_mode),
        peer_sampler(data, size, overlap, padding_mode),
    )
    np.testing.assert_array_equal(got.locations, want.locations)
    assert got.locations.dtype == np.int32 and len(got) == len(want)


@pytest.mark.parametrize("padding_mode", [None, "reflect"])
def test_patches_are_torchios(padding_mode):
    data = volume()
    got = mj.GridSampler(subject_of(data), (8, 9, 7), (2, 4, 2), padding_mode)
    want = peer_sampler(data, (8, 9, 7), (2, 4, 2), padding_mode)
    for mine, peer in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine.image.numpy(), peer["image"].numpy())
        np.testing.assert_array_equal(mine[mj.LOCATION], peer[tio.LOCATION])
        np.testing.assert_allclose(mine.image.affine, peer["image"].affine, rtol=0, atol=1e-9)
        assert mine.image.affine.dtype == np.float64


@pytest.mark.parametrize("mode", ["crop", "average", "hann"])
@pytest.mark.parametrize("padding_mode", [None, "reflect"])
@pytest.mark.parametrize("size, overlap", [g for g in GRIDS if g[0][0] > 1])
def test_aggregation_is_torchios(size, overlap, padding_mode, mode):
    """Patches that do not agree where they overlap."""
    data = volume()
    sampler = mj.GridSampler(subject_of(data), size, overlap, padding_mode)
    peer = tio.GridAggregator(peer_sampler(data, size, overlap, padding_mode), mode)
    aggregator = mj.GridAggregator(sampler, mode)
    state = aggregator.init(2)
    for number, (batch, places) in enumerate(batches(np.asarray(sampler.subject.image.data), sampler.locations)):
        batch = batch + np.random.default_rng(number).normal(size=batch.shape).astype(np.float32)
        state = aggregator.add(state, batch, places)
        peer.add_batch(torch.from_numpy(batch), torch.from_numpy(places))
    got = aggregator.finish(state).numpy()
    np.testing.assert_allclose(got, peer.get_output_tensor().numpy(), rtol=0, atol=2e-5)


def test_weighted_has_torchios_centres():
    """The centres that TorchIO 1.2.1 allows are those that can be drawn here."""
    weights = np.ones((7, 9, 8), np.float32)
    for size in ((4, 5, 3), (1, 2, 7)):
        allowed = weights.astype(np.float64)
        tio.WeightedSampler.clear_probability_borders(allowed, np.array(size))
        centres = np.unique(
            starts(mj.WeightedSampler(size, "map"), mapped(weights), 3000) + np.array(size) // 2, axis=0
        )
        np.testing.assert_array_equal(centres, np.argwhere(allowed))


def test_label_shares_are_torchios():
    """The probability map that TorchIO 1.2.1 makes of ratios is the one drawn from here."""
    ratios = {0: 1, 1: 2, 2: 5}
    want = tio.LabelSampler.get_probabilities_from_label_map(
        torch.from_numpy(labelled()[None]).float(), ratios, np.array(SIZE)
    )[0].numpy()
    _, centre = drawn_labels(mj.LabelSampler(SIZE, "seg", ratios), mapped(labelled(), mj.LabelMap, "seg"))
    got, want = histogram(centre, (7, 9, 8)), want.ravel().astype(float)
    assert not got[want == 0].any()
    assert chisquare(got[want > 0], N * want[want > 0] / want.sum()).pvalue > 1e-3
