"""Where CropOrPad does better than TorchIO 1.2.1, and what it keeps of it."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, compilations, small_subject

import medjax as mj

SHAPE = (23, 31, 18)


def line(size, dtype=np.float32):
    """A row of voxels 1, 2, ... along the first axis."""
    return mj.ScalarImage(np.arange(1, size + 1, dtype=dtype).reshape(1, size, 1, 1))


def row(image):
    return image.numpy().ravel().tolist()


@pytest.mark.parametrize("size, target, want", [
    (7, 4, [3, 4, 5, 6]), (8, 3, [4, 5, 6]), (8, 6, [2, 3, 4, 5, 6, 7]), (4, 7, [0, 0, 1, 2, 3, 4, 0]),
])  # fmt: skip
def test_w18_an_odd_voxel_is_cut_or_added_at_the_low_end_about_the_centre(size, target, want):
    assert row(mj.CropOrPad((target, 1, 1))(line(size))) == want


@pytest.mark.parametrize("low, high, target, want", [
    (0, 8, 3, [3, 4, 5]), (2, 5, 4, [2, 3, 4, 5]), (2, 5, 3, [3, 4, 5]), (0, 2, 5, [0, 0, 1, 2, 3]),
])  # fmt: skip
def test_w18_an_odd_voxel_goes_to_the_low_end_about_a_mask(low, high, target, want):
    mask = np.zeros((1, 8, 1, 1), np.uint8)
    mask[:, low:high] = 1
    subject = mj.Subject(t1=line(8), mask=mj.LabelMap(mask))
    assert row(mj.CropOrPad((target, 1, 1), mask_name="mask")(subject).t1) == want


def test_w19_only_the_images_that_are_cropped_must_share_a_grid():
    subject = small_subject()
    other = subject.t1.replace(affine=OBLIQUE + np.eye(4, k=3))
    subject = subject.replace(other=other)
    got = mj.CropOrPad(10, exclude=["other"])(subject)
    assert got.t1.spatial_shape == (10, 10, 10) and got.other.spatial_shape == SHAPE
    with pytest.raises(ValueError, match=r"'t1' .* 'other' .* Resample\('t1'\)"):
        mj.CropOrPad(10)(subject)


@pytest.mark.parametrize("error, fits", [(2e-4, True), (5e-3, False)])
def test_w19_grids_are_one_within_a_thousandth_of_a_voxel(error, fits):
    """A header in float32 is off by 3e-5 mm at 300 mm, beyond TorchIO's tolerance."""
    subject = small_subject()
    moved = OBLIQUE.copy()
    moved[:3, 3] += error
    subject = subject.replace(label=subject.label.replace(affine=moved))
    if fits:
        assert mj.CropOrPad(10)(subject).label.spatial_shape == (10, 10, 10)
    else:
        with pytest.raises(ValueError, match="one grid"):
            mj.CropOrPad(10)(subject)
        assert mj.CropOrPad(10, tolerance=0.1)(subject).label.spatial_shape == (10, 10, 10)


@pytest.mark.parametrize("mode", ["mean", "median", "minimum", "maximum"])
def test_w24_a_statistic_of_labels_is_no_label(mode):
    subject = small_subject()
    subject = subject.replace(label=subject.label.replace(data=subject.label.data + np.uint8(2)))
    got = mj.CropOrPad((25, 31, 18), padding_mode=mode)(subject)
    np.testing.assert_array_equal(np.unique(got.label.numpy()), [0, 2, 3, 5])
    want = {"mean": np.mean, "median": np.median, "minimum": np.min, "maximum": np.max}[mode](subject.t1.data)
    np.testing.assert_allclose(got.t1.numpy()[0, 0], want, atol=1e-6)


@pytest.mark.parametrize("fill", [-1, 300, 1.7])
def test_w24_a_fill_that_a_label_map_cannot_hold_is_refused(fill):
    with pytest.raises(ValueError, match="'label' of uint8"):
        mj.CropOrPad(40, padding_mode=fill)(small_subject())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.bool_])
def test_dtypes_stay(dtype):
    data = (blobs() * 9).astype(dtype)[None]
    for cls in (mj.ScalarImage, mj.LabelMap):
        got = mj.CropOrPad((30, 20, 18))(cls(data))
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.numpy(), np.pad(data[:, :, 6:26], [(0, 0), (4, 3), (0, 0), (0, 0)]))


def test_a_random_crop_is_one_of_all_places_and_keeps_the_world():
    ramp = mj.ScalarImage(np.indices(SHAPE).astype(np.float32), OBLIQUE)
    t = mj.CropOrPad((20, 29, 19), location="random")
    starts = []
    for seed in range(12):
        got = t(ramp, jax.random.key(seed))
        first = got.numpy()[:, 0, 0, 1]
        np.testing.assert_allclose(got.affine[:3, 3], (OBLIQUE @ [*first[:2], first[2] - 1, 1])[:3], atol=1e-9)
        assert first[2] == 0  # padding stays centred: one voxel before
        starts.append(first[:2])
    assert len({*map(tuple, starts)}) > 3
    assert np.all(np.array(starts) <= (3, 2))


def test_a_fixed_shape_is_found_under_jit_and_a_box_of_a_mask_is_not():
    subject = small_subject()
    assert jax.jit(mj.CropOrPad((10, 40, 18)))(subject).t1.shape == (1, 10, 40, 18)
    assert jax.jit(mj.CropOrPad((10, 12, 14), mask_name="label"))(subject).t1.shape == (1, 10, 12, 14)
    with pytest.raises(TypeError, match="CropOrPad"):
        jax.jit(mj.CropOrPad(mask_name="label"))(subject)


def test_another_mask_compiles_nothing():
    subject = small_subject()
    t = mj.CropOrPad((10, 12, 14), mask_name="label")
    t(subject)
    with compilations() as count:
        moved = t(subject.replace(label=subject.label.replace(data=np.roll(subject.label.data, 3, 1))))
    assert count() == 0 and moved.t1.spatial_shape == (10, 12, 14)


@pytest.mark.parametrize("arguments, message", [
    ({}, "target_shape"), ({"target_shape": 0}, "target_shape"), ({"target_shape": (1, 2)}, "target_shape"),
    ({"target_shape": 2.5}, "whole"), ({"target_shape": 3, "labels": 1}, "mask_name"),
    ({"target_shape": 3, "only_crop": True, "only_pad": True}, "only_crop and only_pad"),
    ({"target_shape": 3, "location": "randm"}, "Did you mean 'random'"), ({"target_shape": 3, "units": "m"}, "units"),
    ({"target_shape": 3, "padding_mode": "edges"}, "Did you mean 'edge'"),
    ({"target_shape": 3, "location": "random", "mask_name": "label"}, "location"),
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mj.CropOrPad(**arguments)


def test_label_maps_may_be_padded_with_a_label_of_their_own():
    s = small_subject(shape=(5, 6, 7))
    s = s.replace(label=s.label.replace(data=s.label.numpy().astype(np.int16)))
    got = mj.CropOrPad(8, padding_mode=0.5, padding_label=-1)(s)
    inside = (slice(None), slice(2, 7), slice(1, 7), slice(1, 8))
    for name, value in (("t1", 0.5), ("label", -1)):
        want = np.full((1, 8, 8, 8), value, s[name].numpy().dtype)
        want[inside] = s[name].numpy()
        np.testing.assert_array_equal(got[name].numpy(), want)
    with pytest.raises(ValueError, match="-1 does not fit label map"):
        mj.CropOrPad(8, padding_label=-1)(small_subject(shape=(5, 6, 7)))
