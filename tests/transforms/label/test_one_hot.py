"""OneHot: a channel for each class, and back."""

import jax
import numpy as np
import pytest
from conftest import small_subject
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import medjax as mj

DTYPES = [np.bool_, np.uint8, np.int16, np.int32, np.float32]
FIVE = mj.OneHot(5)


def labelled(x):
    return mj.Subject(label=mj.LabelMap(x))


@settings(max_examples=25, deadline=None)
@given(arrays(np.uint8, (1, 3, 4, 5), elements=st.integers(0, 4)))
def test_the_largest_channel_is_the_label(x):
    subject = labelled(x)
    got = FIVE(subject)
    np.testing.assert_array_equal(got.label.numpy(), np.moveaxis(np.eye(5, dtype=np.uint8)[x[0]], -1, 0))
    np.testing.assert_array_equal(FIVE.invert(got, FIVE.sample(None, subject), like=subject).label.numpy(), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back_the_dtype_stays(dtype):
    x = np.random.default_rng(0).integers(0, 2, (1, 3, 4, 5)).astype(dtype)
    subject = labelled(x)
    got = FIVE(subject)
    assert got.label.shape == (5, 3, 4, 5) and got.label.dtype == dtype
    back = FIVE.invert(got, FIVE.sample(None, subject), like=subject).label.numpy()
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, x)


def test_more_classes_than_the_dtype_has_values():
    x = np.array([0, 44, 255], np.uint8).reshape(1, 1, 1, 3)
    got = mj.OneHot(300)(mj.LabelMap(x)).numpy()
    np.testing.assert_array_equal(got.argmax(0), x[0])
    np.testing.assert_array_equal(got.sum(0), 1)


@pytest.mark.parametrize(("value", "dtype"), [(5, np.uint8), (-1, np.int16), (1.5, np.float32), (255, np.uint8)])
def test_a_label_that_is_no_class_is_an_error_and_under_jit_zero(value, dtype):
    x = np.ones((1, 3, 4, 5), dtype)
    x[0, 1, 2, 3] = value
    with pytest.raises(ValueError, match=f"label has the label {value}, which is none of the 5 classes 0 to 4"):
        FIVE(labelled(x))
    got = np.asarray(jax.jit(FIVE)(mj.LabelMap(x)).data)
    assert got[:, 1, 2, 3].sum() == 0 and got.sum() == 59


def test_padding_may_hold_anything():
    x = np.ones((1, 4, 4, 4), np.uint8)
    x[0, 3] = 9
    image = mj.LabelMap.of(x, np.eye(4), extent=np.array([3, 4, 4], np.int32))
    batch = jax.tree.map(lambda leaf: np.asarray(leaf)[None], mj.Subject(label=image))
    np.testing.assert_array_equal(FIVE.batch(batch).label.data[0, :, :3], np.eye(5)[x[0, :3]].transpose(3, 0, 1, 2))


@pytest.mark.parametrize("count", [-1, 0, None, 2.5])
def test_the_classes_are_not_counted(count):
    with pytest.raises(
        (TypeError, ValueError), match="num_classes must be a whole number of at least 1.*give the largest label"
    ):
        mj.OneHot(count)


def test_several_channels_are_refused():
    with pytest.raises(ValueError, match="one channel"):
        FIVE(mj.LabelMap(np.zeros((2, 3, 4, 5), np.uint8)))


def test_a_coin_is_refused():
    with pytest.raises(ValueError, match="p must be 1"):
        mj.OneHot(3, p=0.5)


def test_undoing_a_map_of_labels_is_an_error():
    subject = small_subject()
    with pytest.raises(ValueError, match="takes 4 channels"):
        mj.OneHot(4).invert(subject, mj.OneHot(4).sample(None, subject), like=subject)


def test_images_are_left_alone():
    subject = small_subject()
    got = mj.OneHot(4)(subject)
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())
    assert got.label.shape == (4, 23, 31, 18)
