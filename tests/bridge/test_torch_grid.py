"""Patches on a grid, and volumes put together of them."""

import numpy as np
import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader

import torch_bridge as tio


@pytest.mark.parametrize("mode", ["crop", "average", "hann", "gaussian"])
@pytest.mark.parametrize("padding", [None, "reflect"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_volume_comes_back_together(mode, padding, batch_size):
    subject = tensors()
    sampler = tio.GridSampler(subject, 8, 2, padding)
    aggregator = tio.GridAggregator(sampler, mode)
    for patch in DataLoader(sampler, batch_size=batch_size):
        aggregator.add_batch(patch["t1"][tio.DATA], patch[tio.LOCATION])
    output = aggregator.get_output_tensor()
    torch.testing.assert_close(output, subject.t1.data, atol=1e-6, rtol=1e-6)
    assert len(sampler) == len(sampler.locations) == sum(1 for _ in sampler)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bfloat16, torch.float64])
def test_the_output_has_the_type_of_the_patches(dtype):
    subject = tensors()
    sampler = tio.GridSampler(subject, (8, 9, 7), (2, 4, 0))
    aggregator = tio.GridAggregator(sampler)
    for patch in sampler:
        aggregator.add_batch(patch.label.data.to(dtype), patch[tio.LOCATION])
    output = aggregator.get_output_tensor()
    assert output.dtype == dtype and torch.equal(output, subject.label.data.to(dtype))


def test_whole_numbers_are_averaged_as_fractions():
    sampler = tio.GridSampler(tensors(), 8, 2)
    aggregator = tio.GridAggregator(sampler, "average")
    for i, patch in enumerate(sampler):
        aggregator.add_batch(torch.full_like(patch.label.data, i % 2), patch[tio.LOCATION])
    output = aggregator.get_output_tensor()
    assert output.dtype == torch.float32 and ((output > 0) & (output < 1)).any()


@pytest.mark.parametrize("mode", ["average", "hann", "gaussian"])
@pytest.mark.parametrize("size, overlap", [(16, 8), (16, 4), (12, 6)])
def test_a_map_of_0_and_1_comes_back_exactly(mode, size, overlap):
    data = (torch.rand(1, 32, 30, 28, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    sampler = tio.GridSampler(tio.Subject(label=tio.LabelMap(tensor=data)), size, overlap)
    aggregator = tio.GridAggregator(sampler, mode)
    for batch in DataLoader(sampler, batch_size=3):
        aggregator.add_batch(batch["label"][tio.DATA], batch[tio.LOCATION])
    assert torch.equal(aggregator.get_output_tensor(), data)


def test_a_sampler_is_called_and_patches_may_be_coarser():
    subject = tensors()
    sampler = tio.GridSampler(subject, 4)
    first = next(sampler(subject))
    assert torch.equal(first.t1.data, sampler[0].t1.data) and len(list(sampler())) == len(sampler)
    assert sampler.patch_size.tolist() == [4, 4, 4] and sampler.patch_overlap.tolist() == [0, 0, 0]
    aggregator = tio.GridAggregator(sampler, downsampling_factor=2)
    for patch in sampler:
        aggregator.add_batch(patch.t1.data[:, ::2, ::2, ::2], patch[tio.LOCATION])
    assert torch.equal(aggregator.get_output_tensor(), subject.t1.data[:, ::2, ::2, ::2])


def test_patches_are_copies_with_their_affines():
    subject = tensors(name="x")
    patch = tio.GridSampler(subject, 8)[3]
    i, j, k = patch[tio.LOCATION][:3].tolist()
    np.testing.assert_allclose(patch.t1.origin, (subject.t1.affine @ [i, j, k, 1])[:3])
    expected = subject.t1.data.clone()
    patch.t1.data.fill_(4)
    assert torch.equal(subject.t1.data, expected) and patch.name == "x"


def test_what_is_missing_or_foreign_is_said():
    sampler = tio.GridSampler(tensors(), 8)
    aggregator = tio.GridAggregator(sampler)
    with pytest.raises(ValueError, match="no patch"):
        aggregator.get_output_tensor()
    aggregator.add_batch(sampler[0].t1.data, sampler[0][tio.LOCATION])
    with pytest.raises(ValueError, match="missing"):
        aggregator.get_output_tensor()
    with pytest.raises(ValueError, match="none of"):
        aggregator.add_batch(sampler[0].t1.data, torch.tensor([1, 1, 1, 9, 9, 9]))
    with pytest.raises(ValueError, match="larger than the images"):
        tio.GridSampler(tensors(), 64)
