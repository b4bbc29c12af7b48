"""SequentialLabels: labels without gaps, and back."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import medjax as mj

T = mj.SequentialLabels()


def labelled(x):
    return mj.Subject(label=mj.LabelMap(np.asarray(x)))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([np.uint8, np.int16, np.int32]).flatmap(lambda dtype: arrays(dtype, (1, 2, 3, 4))))
def test_the_places_among_the_sorted_labels_and_back(x):
    subject = labelled(x)
    got = T(subject)
    want = np.unique(x, return_inverse=True)[1].reshape(x.shape)
    assert got.label.dtype == x.dtype
    np.testing.assert_array_equal(got.label.numpy(), want)
    np.testing.assert_array_equal(T.invert(got, T.sample(None, subject), like=subject).label.numpy(), x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_inside_the_mask_alone_there_and_back(dtype):
    x = np.random.default_rng(0).choice(np.array([3, 7, 100], dtype), (2, 6, 5, 4))
    t, subject = mj.SequentialLabels("Right"), labelled(x)
    got = t(subject)
    want = x.copy()
    want[:, 3:] = np.unique(x, return_inverse=True)[1].reshape(x.shape)[:, 3:]
    np.testing.assert_array_equal(got.label.numpy(), want)
    np.testing.assert_array_equal(t.invert(got, t.sample(None, subject), like=subject).label.numpy(), x)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_padding_has_no_label(dtype):
    subjects = [labelled(np.full((1, 3, 4, 2), 7, dtype)), labelled(np.full((1, 4, 3, 3), 5, dtype))]
    for got in mj.unstack(T.batch(mj.stack(subjects, shape=(4, 4, 4)))):
        np.testing.assert_array_equal(got.label.numpy(), 0)


@pytest.mark.parametrize("scale", [1, 10**7], ids=["close", "far apart"])
def test_too_many_labels_are_an_error(scale):
    x = np.arange(24).reshape(1, 2, 3, 4).astype(np.int32) * np.int32(scale)
    with pytest.raises(ValueError, match="label has more than max_labels=5 labels"):
        mj.SequentialLabels(max_labels=5)(labelled(x))
    np.testing.assert_array_equal(mj.SequentialLabels(max_labels=24)(labelled(x)).label.numpy().ravel(), range(24))
    merged = jax.jit(mj.SequentialLabels(max_labels=5))(labelled(x)).label.numpy().ravel()
    np.testing.assert_array_equal(merged, np.minimum(range(24), 5))


def test_a_dtype_that_cannot_count_its_labels_is_an_error():
    x = np.arange(-128, 128).astype(np.int8).reshape(1, 4, 8, 8)
    with pytest.raises(ValueError, match="int8 of label cannot number its 256 labels"):
        T(labelled(x))


def test_undoing_into_a_type_that_is_too_small_is_an_error():
    subject = labelled(np.full((1, 2, 2, 2), 1000, np.int16))
    with pytest.raises(ValueError, match="labels of type int16, which uint8 cannot hold"):
        T.invert(labelled(np.zeros((1, 2, 2, 2), np.uint8)), T.sample(None, subject), like=subject)
