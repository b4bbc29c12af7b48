"""RemapLabels: all at once, and back where that can be."""

import jax
import numpy as np
import pytest
from conftest import small_subject
from hypothesis import given, settings
from hypothesis import strategies as st

import medjax as mj

X = np.random.default_rng(0).integers(0, 6, (2, 5, 6, 7))


def labelled(x, **more):
    return mj.Subject(label=mj.LabelMap(x), **more)


def inverted(t, subject):
    return t.invert(t(subject), t.sample(None, subject), like=subject)


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(6)))
def test_a_permutation_there_and_back(order):
    t, subject = mj.RemapLabels(dict(enumerate(order))), labelled(X.astype(np.uint8))
    np.testing.assert_array_equal(t(subject).label.numpy(), np.array(order)[X])
    np.testing.assert_array_equal(inverted(t, subject).label.numpy(), X)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_a_hundred_labels(dtype):
    x = np.random.default_rng(1).integers(0, 120, (1, 5, 6, 7)).astype(dtype)
    table = np.arange(120)
    table[:100] = 99 - np.arange(100)
    got = mj.RemapLabels({n: 99 - n for n in range(100)})(mj.LabelMap(x)).numpy()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, table[x.astype(int)])


def test_what_no_image_has_changes_nothing():
    x = X.astype(np.uint8)
    np.testing.assert_array_equal(mj.RemapLabels({300: 1, -1: 2, 9: 3})(mj.LabelMap(x)).numpy(), x)
    whole_and_half = np.array([1, 1.5], np.float32).reshape(1, 1, 1, 2)
    np.testing.assert_array_equal(mj.RemapLabels({1: 2})(mj.LabelMap(whole_and_half)).numpy().ravel(), [2, 1.5])


def test_inside_the_mask_alone_there_and_back():
    """One side is given the labels of the other: the mask tells them apart on the way back."""
    x, mask = X.astype(np.uint8) % 2 + 1, (X[:1] > 2).astype(np.uint8)
    x = np.where(mask, x + 2, x).astype(np.uint8)
    subject = labelled(x, side=mj.LabelMap(mask))
    t = mj.RemapLabels({3: 1, 4: 2}, "side", include=["label"])
    got = t(subject)
    np.testing.assert_array_equal(got.label.numpy(), np.where(mask, x - 2, x))
    np.testing.assert_array_equal(inverted(t, subject).label.numpy(), x)


def test_a_map_that_is_its_own_mask():
    subject = labelled(X.astype(np.uint8))
    t = mj.RemapLabels({1: 0, 0: 1}, "label")
    np.testing.assert_array_equal(t(subject).label.numpy(), np.where(X == 1, 0, X))
    back = inverted(t, subject).label.numpy()
    np.testing.assert_array_equal(back, X)


def test_merged_labels_have_no_inverse():
    t, subject = mj.RemapLabels({2: 1, 3: 1}), labelled(X.astype(np.uint8))
    with pytest.raises(ValueError, match="merges labels 2 and 3 into 1, so it has no inverse"):
        inverted(t, subject)


def test_undoing_into_a_type_that_is_too_small_is_an_error():
    t, subject = mj.RemapLabels({1000: 1}), labelled(np.full((1, 2, 2, 2), 1000, np.int16))
    prediction = labelled(np.ones((1, 2, 2, 2), np.uint8))
    with pytest.raises(ValueError, match="label 1000, which type uint8 cannot hold"):
        t.invert(prediction, t.sample(None, subject), like=subject)


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 256), (np.uint8, -1), (np.bool_, 2), (np.float32, 2**24 + 1)])
def test_labels_that_the_dtype_cannot_hold_are_refused(dtype, value):
    subject = labelled(np.zeros((1, 3, 4, 5), dtype))
    for run in (mj.RemapLabels({0: value}), jax.jit(mj.RemapLabels({0: value})), mj.RemoveLabels([0], value)):
        with pytest.raises(ValueError, match=rf"label is of type \w+, which cannot hold label {value}"):
            run(subject)
    assert mj.RemapLabels({0: value}, exclude=["label"])(subject).label.numpy().sum() == 0


@pytest.mark.parametrize("remapping", [{1: 2.5}, {"1": 2}, {1: None}])
def test_labels_are_whole_numbers(remapping):
    with pytest.raises((TypeError, ValueError), match="each (key|value) of remapping must be a whole number"):
        mj.RemapLabels(remapping)


def test_a_mask_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="masking_method='lable' is no label map"):
        mj.RemapLabels({1: 2}, "lable")(small_subject())
