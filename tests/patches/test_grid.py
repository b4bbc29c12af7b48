"""Patches on a grid and the volume put together of them: what they must be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject
from patches.shared import GRIDS, ODD, SHAPE, batches, subject_of, volume

import medjax as mj
from medjax.patches.grid import OVERLAP_MODES


def aggregated(sampler, mode, data, dtype=None, order=None, **options):
    aggregator = mj.GridAggregator(sampler, mode, **options)
    state = aggregator.init(len(data), dtype)
    locations = sampler.locations if order is None else sampler.locations[order]
    for batch, places in batches(data, locations):
        state = aggregator.add(state, batch, places)
    return aggregator.finish(state)


def test_it_is_a_sequence():
    sampler = mj.GridSampler(small_subject(name="x"), 9, 3)
    assert sampler[0].name == "x" and isinstance(sampler[0].label, mj.LabelMap)
    np.testing.assert_array_equal(sampler[-1][mj.LOCATION], sampler.locations[-1])
    assert len(list(sampler)) == len(sampler)
    with pytest.raises(IndexError):
        sampler[len(sampler)]
    assert f"{len(sampler)} patches" in repr(sampler)
    stacked = mj.stack([sampler[n] for n in range(3)])
    np.testing.assert_array_equal(stacked[mj.LOCATION], sampler.locations[:3])
    with compilations() as count:
        sampler[3]
        assert count() == 0


def test_w48_iterating_pads_once():
    """W48: iterating gives the patches that indexing gives, as many as the aggregator expects."""
    sampler = mj.GridSampler(subject_of(volume()), 8, 4, "reflect")
    assert sampler.shape == (27, 35, 22)
    for n, patch in enumerate(sampler):
        np.testing.assert_array_equal(patch[mj.LOCATION], sampler.locations[n])
    assert n + 1 == len(sampler)
    aggregator = mj.GridAggregator(sampler, "hann")
    state = aggregator.init(2)
    for patch in sampler:
        state = aggregator.add(state, patch.image.data[None], patch[mj.LOCATION][None])
    np.testing.assert_allclose(aggregator.finish(state).data, volume(), atol=1e-5)


@pytest.mark.parametrize("mode", OVERLAP_MODES)
@pytest.mark.parametrize("padding_mode", [None, "reflect"])
@pytest.mark.parametrize("size, overlap", [*GRIDS, *ODD])
def test_an_identity_network_returns_the_input(size, overlap, padding_mode, mode):
    data = volume()
    sampler = mj.GridSampler(subject_of(data), size, overlap, padding_mode)
    padded = np.asarray(sampler.subject.image.data)
    result = aggregated(sampler, mode, padded, order=np.random.default_rng(0).permutation(len(sampler)))
    assert isinstance(result, mj.ScalarImage) and result.dtype == np.float32
    np.testing.assert_allclose(result.numpy(), data, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(result.affine, OBLIQUE)


def test_gaussian_weights():
    """Against the sums as written: a Gaussian of an eighth of the patch, in float64."""
    data, size = volume(1), (8, 9, 7)
    sampler = mj.GridSampler(subject_of(data), size, (2, 4, 3))
    line = [np.exp(-(((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) / 2) for n in size]
    window = line[0][:, None, None] * line[1][:, None] * line[2]
    total, weight = np.zeros((1, *SHAPE)), np.zeros((1, *SHAPE))
    aggregator = mj.GridAggregator(sampler, "gaussian")
    state = aggregator.init(1)
    for number, (batch, places) in enumerate(batches(data, sampler.locations, 1)):
        batch = batch + np.float32(number)
        state = aggregator.add(state, batch, places)
        box = (slice(None), *(slice(a, b) for a, b in zip(places[0, :3], places[0, 3:])))
        total[box] += window * batch[0]
        weight[box] += window
    np.testing.assert_allclose(aggregator.finish(state).numpy(), total / weight, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, bool])
def test_whole_numbers_are_kept(dtype):
    data = np.random.default_rng(0).integers(0, 200, (3, *SHAPE)).astype(dtype)
    sampler = mj.GridSampler(subject_of(data.astype(np.int16)), (8, 9, 7), (3, 4, 2))
    result = aggregated(sampler, "crop", data, dtype)
    assert isinstance(result, mj.LabelMap) and result.dtype == dtype
    np.testing.assert_array_equal(result.numpy(), data)


def test_float16_is_summed_in_float32():
    data = volume(1, dtype=np.float16) * 100
    sampler = mj.GridSampler(subject_of(data.astype(np.float32)), 6, 5)
    result = aggregated(sampler, "average", data, jnp.float16)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.numpy(), data.astype(np.float32), rtol=1e-5)


@pytest.mark.parametrize("mode", OVERLAP_MODES)
def test_in_jit_and_in_a_scan(mode):
    data = volume()
    sampler = mj.GridSampler(subject_of(data), (8, 9, 7), (3, 4, 2))
    aggregator = mj.GridAggregator(sampler, mode)
    patches, places = next(batches(data, sampler.locations, len(sampler)))

    @jax.jit
    def whole(patches, places):
        state, _ = jax.lax.scan(
            lambda s, x: (aggregator.add(s, x[0][None], x[1][None]), None), aggregator.init(2), (patches, places)
        )
        return aggregator.finish(state), state

    inside, state = whole(patches, places)
    np.testing.assert_allclose(inside.data, data, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(aggregator.finish(state).data, inside.data)
    np.testing.assert_allclose(aggregated(sampler, mode, data).data, inside.data, rtol=0, atol=1e-6)


def test_what_is_cropped_away_has_no_say():
    """NaN in the part of a patch that another shows is not in the volume."""
    data = volume(1)
    sampler = mj.GridSampler(subject_of(data), 9, 4)
    aggregator = mj.GridAggregator(sampler)
    state = aggregator.init(1)
    for batch, places in batches(data, sampler.locations):
        for patch, place in zip(batch, places):
            for axis in range(3):
                edge = np.moveaxis(patch, axis + 1, 0)
                if place[axis] > 0:
                    edge[:2] = np.nan
                if place[axis + 3] < SHAPE[axis]:
                    edge[-2:] = np.nan
        state = aggregator.add(state, batch, places)
    np.testing.assert_array_equal(aggregator.finish(state).data, data)


def test_a_second_batch_compiles_nothing():
    data = volume(1)
    sampler = mj.GridSampler(subject_of(data), 9, 4)
    aggregator = mj.GridAggregator(sampler, "hann")
    parts = list(batches(data, sampler.locations, 4))
    state = aggregator.add(aggregator.init(1), *parts[0])
    with compilations() as count:
        state = aggregator.add(state, *parts[1])
        assert count() == 0


COARSE = (24, 32, 16)


@pytest.mark.parametrize("mode", OVERLAP_MODES)
@pytest.mark.parametrize("factor", [2, (1, 4, 2)])
@pytest.mark.parametrize("padding_mode", [None, "edge"])
def test_w49_coarser_outputs_in_every_mode_and_order(mode, factor, padding_mode):
    """W49: the factor works in every mode, with overlap, in any order of patches; sums are float32."""
    step = np.broadcast_to(factor, 3)
    data = np.random.default_rng(0).normal(size=(1, *COARSE)).astype(np.float32)
    sampler = mj.GridSampler(subject_of(data), 8, 4 if padding_mode is None else 8 - 8 // 2, padding_mode)
    if padding_mode is not None and step.max() == 4:
        with pytest.raises(ValueError, match="downsampling_factor"):
            mj.GridAggregator(sampler, mode, factor)
        return
    padded = np.asarray(sampler.subject.image.data)[(slice(None), *(slice(None, None, s) for s in step))]
    aggregator = mj.GridAggregator(sampler, mode, factor)
    order = np.random.default_rng(1).permutation(len(sampler))
    state = aggregator.init(1)
    for place in sampler.locations[order]:
        low = place[:3] // step
        patch = padded[(slice(None), *(slice(a, a + n) for a, n in zip(low, 8 // step)))]
        state = aggregator.add(state, patch[None].astype(np.float32), place[None])
    result = aggregator.finish(state)
    np.testing.assert_allclose(result.numpy(), data[(slice(None), *(slice(None, None, s) for s in step))], atol=1e-5)
    np.testing.assert_allclose(result.spacing, np.array(subject_of(data).image.spacing) * step, rtol=1e-9)
    faces = result.affine @ np.append(np.full(3, -0.5), 1), OBLIQUE @ np.append(np.full(3, -0.5), 1)
    np.testing.assert_allclose(*faces, atol=1e-9)


def test_bad_grids(subject):
    with pytest.raises(ValueError, match="larger than the images"):
        mj.GridSampler(subject, 32)
    for overlap in (8, 9, -1, 0.5, (1, 2), (0, 0, 8)):
        with pytest.raises(ValueError, match="patch_overlap"):
            mj.GridSampler(subject, 8, overlap)
    padded = jax.tree.map(lambda x: x[0], mj.stack([subject], shape=(24, 32, 20)))
    with pytest.raises(ValueError, match="unstack"):
        mj.GridSampler(padded, 8)


def test_bad_batches():
    data = volume()
    sampler = mj.GridSampler(subject_of(data), 8, 2)
    aggregator = mj.GridAggregator(sampler)
    (batch, places), *_ = batches(data, sampler.locations)
    with pytest.raises(ValueError, match="comes from elsewhere"):
        aggregator.add(aggregator.init(2), batch, places + 1)
    with pytest.raises(ValueError, match="comes from elsewhere"):
        aggregator.add(aggregator.init(2), batch, jnp.asarray(places).at[0, 3].add(1))
    for wrong in (batch[0], batch[:, :1], batch[..., 1:], batch[:2]):
        with pytest.raises(ValueError, match=r"batch \(B, 2, 8, 8, 8\) and locations \(B, 6\)"):
            aggregator.add(aggregator.init(2), wrong, places)
    with pytest.raises(ValueError, match=r"int32.*float32.*dtype"):
        aggregator.add(aggregator.init(2, jnp.int32), batch, places)
    with pytest.raises(ValueError, match="averages"):
        mj.GridAggregator(sampler, "hann").init(2, jnp.uint8)
    with pytest.raises(ValueError, match="Did you mean 'average'"):
        mj.GridAggregator(sampler, "averge")
    with pytest.raises(ValueError, match="downsampling_factor"):
        mj.GridAggregator(sampler, downsampling_factor=3)


def test_missing_and_repeated_patches():
    data = volume()
    sampler = mj.GridSampler(subject_of(data), 8, 2)
    aggregator = mj.GridAggregator(sampler)
    parts = list(batches(data, sampler.locations, len(sampler) - 3))
    state = aggregator.add(aggregator.init(2), *parts[0])
    with pytest.raises(ValueError, match=f"3 of {len(sampler)} patches are missing"):
        aggregator.finish(state)
    state = aggregator.add(aggregator.add(state, *parts[1]), *parts[1])
    with pytest.raises(ValueError, match="3 of .* added more than once"):
        aggregator.finish(state)
