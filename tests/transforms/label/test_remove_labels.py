"""RemoveLabels: some labels become background."""

import numpy as np
import pytest
from conftest import small_subject

import medjax as mj


def test_labels_become_background():
    subject = small_subject()
    label = subject.label.numpy()
    assert set(np.unique(label)) == {0, 1, 3}
    np.testing.assert_array_equal(mj.RemoveLabels([1, 9])(subject).label.numpy(), np.where(label == 1, 0, label))
    np.testing.assert_array_equal(mj.RemoveLabels([0, 3], 1)(subject).label.numpy(), 1)


def test_inside_the_mask_alone():
    subject = small_subject()
    label = subject.label.numpy()
    got = mj.RemoveLabels([3], masking_method=(0, 12, 0, 0, 0, 0))(subject).label.numpy()
    want = label.copy()
    want[:, :11][want[:, :11] == 3] = 0
    assert 3 in want and (want != label).any()
    np.testing.assert_array_equal(got, want)


def test_there_is_no_way_back():
    t, subject = mj.RemoveLabels([1]), small_subject()
    got = t(subject)
    back = t.invert(got, t.sample(None, subject), like=subject)
    np.testing.assert_array_equal(back.label.numpy(), got.label.numpy())


def test_labels_are_whole_numbers():
    with pytest.raises(ValueError, match="each of labels must be a whole number, got 1.5"):
        mj.RemoveLabels([1.5])
