"""Mask puts one value wherever a mask is not."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj


def bright(x):
    return x > 0.5


@pytest.mark.parametrize("labels, value", [(None, 0), ([1], -2), ([1, 3], 5), ([0, 3], 1.5), ([7], 9), (3, 0)])
def test_labels_are_united(labels, value):
    s = small_subject()
    label = s.label.numpy()
    inside = label > 0 if labels is None else np.isin(label, labels)
    got = mj.Mask("label", value, labels)(s)
    np.testing.assert_array_equal(got.t1.numpy(), np.where(inside, s.t1.numpy(), np.float32(value)))
    np.testing.assert_array_equal(got.label.numpy(), label)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_label_that_the_type_cannot_hold_is_nowhere(dtype):
    s = small_subject()
    s = s.replace(label=mj.LabelMap(s.label.numpy().astype(dtype), OBLIQUE))
    got = mj.Mask("label", labels=[-1, 300, 3])(s).t1.numpy()
    np.testing.assert_array_equal(got, np.where(s.label.numpy() == 3, s.t1.numpy(), 0))


def flipped(image):
    """The image as another program stores it: the last voxel along each of two axes first, the affine says so."""
    turn = np.diag([-1.0, -1, 1, 1])
    turn[:2, 3] = np.array(image.spatial_shape[:2]) - 1
    return type(image)(image.numpy()[:, ::-1, ::-1], np.asarray(image.affine) @ turn)


BY_NAME = [
    mj.Mask("label"), mj.ZNormalization(masking_method="label"), mj.RescaleIntensity(masking_method="label"),
    mj.HistogramStandardization(np.linspace(0, 100, 13), "label"),
    mj.HistogramStandardization({"t1": np.linspace(0, 100, 13)}, "label"),
    mj.RemoveLabels([1], masking_method="label", include=["other"]),
    mj.RemapLabels({1: 2}, masking_method="label", include=["other"]),
    mj.SequentialLabels(masking_method="label", include=["other"]),
]  # fmt: skip


@pytest.mark.parametrize("t", BY_NAME, ids=lambda t: type(t).__name__)
def test_a_mask_of_one_shape_on_another_grid_is_refused_and_canonical_is_right(t):
    s = small_subject()
    s = s.replace(other=s.label)
    stored = s.replace(label=flipped(s.label))
    message = rf"{type(t).__name__}\('label'\) needs images on one grid.*voxels apart.*ToCanonical.*Resample\('"
    with pytest.raises(ValueError, match=message):
        t(stored)
    with pytest.raises(ValueError, match=message):
        t.batch(mj.stack([stored, stored]))
    both = mj.Compose([mj.ToCanonical(), t])
    for name, image in both(s).images.items():
        np.testing.assert_allclose(both(stored)[name].numpy(), image.numpy(), rtol=1e-5, atol=1e-5)


def test_grids_come_apart_and_together_inside_of_a_pipeline():
    """What counts is where images are when a mask is read, to half a voxel at a corner."""
    s = small_subject()
    apart = mj.Compose([mj.Flip((0,), include=["label"]), mj.ToOrientation("LPS", include=["t1"]), mj.Mask("label")])
    with pytest.raises(ValueError, match="one grid"):
        apart(s)
    moved = np.asarray(OBLIQUE) @ np.array([[1, 0, 0, 3.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    elsewhere = s.replace(label=mj.LabelMap(s.label.numpy(), moved))
    with pytest.raises(ValueError, match="3 voxels apart"):
        mj.Mask("label")(elsewhere)
    got = mj.Compose([mj.Resample("t1"), mj.Mask("label", -1)])(elsewhere)
    want = np.roll(s.label.numpy(), 3, 1)
    want[:, :3] = 0
    np.testing.assert_array_equal(got.t1.numpy() != -1, want > 0)
    moved[:3, 3] = OBLIQUE[:3, 3] + 0.3 * OBLIQUE[:3, 0]
    mj.Mask("label")(s.replace(label=mj.LabelMap(s.label.numpy(), moved)))


def test_a_window_about_a_mask_that_it_leaves_alone_is_placed_on_its_grid():
    s = small_subject()
    with pytest.raises(ValueError, match="one grid"):
        mj.CropOrPad(8, mask_name="label", include=["t1"])(s.replace(label=flipped(s.label)))


def test_functions_and_borders():
    data = blobs()[None]
    np.testing.assert_array_equal(mj.Mask(bright, 2)(data), np.where(data > 0.5, data, 2))
    inside = np.zeros_like(data, bool)
    inside[:, 3:-1, 5:-8, 2:] = True
    np.testing.assert_array_equal(mj.Mask((3, 1, 5, 8, 2, 0), -1)(data), np.where(inside, data, -1))
    np.testing.assert_array_equal(mj.Mask(None, -1)(data), data)


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_w41_a_half_is_that_of_the_world(codes):
    image = mj.ScalarImage(blobs((9, 9, 9))[None], oriented(codes))
    got = mj.ToCanonical()(mj.Mask("Right", -1)(image)).numpy()
    data = mj.ToCanonical()(image).numpy()
    np.testing.assert_array_equal(got, np.where((np.arange(9) >= 4)[None, :, None, None], data, -1))


def test_w40_a_mask_of_one_channel_serves_all_and_one_of_each_its_own():
    data = np.stack([blobs(), blobs(seed=1)])
    for mask in ((blobs() > 0.5)[None], data > 0.5):
        s = mj.Subject(t1=mj.ScalarImage(data), mask=mj.LabelMap(mask.astype(np.uint8)))
        np.testing.assert_array_equal(mj.Mask("mask")(s).t1.numpy(), np.where(mask, data, 0))


def test_what_is_outside_has_no_influence_not_even_as_nan():
    s = small_subject()
    data = np.where(s.label.numpy() > 0, s.t1.numpy(), np.nan)
    s = s.replace(t1=mj.ScalarImage(data, OBLIQUE))
    assert np.isfinite(mj.Mask("label")(s).t1.numpy()).all()
    slope = jax.grad(lambda x: mj.Mask("label")(s.replace(t1=s.t1.replace(data=x))).t1.data.sum())(s.t1.data)
    np.testing.assert_array_equal(slope, (s.label.numpy() > 0).astype(np.float32))


def test_a_box_is_masked_where_it_lies():
    """What was measured in the whole image is read at the place of a box of it."""
    s = small_subject()
    t = mj.Mask("label", -1)
    measured = t.measure(s.t1, s)
    box = mj.ScalarImage.of(
        s.t1.data[:, 4:12, 9:14, 3:18], OBLIQUE, offset=np.array([4, 9, 3]), full=np.array([23, 31, 18])
    )
    np.testing.assert_array_equal(t.apply_to(box, {}, measured).data, t(s).t1.numpy()[:, 4:12, 9:14, 3:18])


def test_names_and_labels_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="masking_method='lable' is no label map.*Did you mean 'label'"):
        mj.Mask("lable")(small_subject())
    for method in (bright, "Left", None):
        with pytest.raises(ValueError, match="labels=.* are those of a label map"):
            mj.Mask(method, labels=[1])(small_subject())
    for labels in ([], [1.5], "label", [[1]]):
        with pytest.raises((TypeError, ValueError), match="labels must"):
            mj.Mask("label", labels=labels)
