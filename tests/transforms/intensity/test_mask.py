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
        with pytest.raises(ValueError, match="labels must be whole numbers"):
            mj.Mask("label", labels=labels)
