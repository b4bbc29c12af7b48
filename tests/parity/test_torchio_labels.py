"""Label transforms give TorchIO 1.2.1's labels, on grey matter and on a small map of labels 0, 1 and 3."""

import numpy as np
import pytest
from conftest import small_subject

import medjax as mj
from parity.peer import run, strided, tio

RAS = np.diag([1.0, 2, 1.5, 1])


@pytest.fixture(scope="module")
def head(mni):
    """The real grey matter, every fourth voxel."""
    return strided(mni)


def check(mine, peer, subject):
    """Labels and dtypes are equal, and something has changed; images stay."""
    got, want = mine(subject), run(peer, subject)
    before = subject.label.numpy()
    assert got.label.dtype == want.label.dtype
    assert before.shape != want.label.shape or (before != want.label.numpy()).any()
    np.testing.assert_array_equal(got.label.numpy(), want.label.numpy())
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())


@pytest.mark.parametrize("num_classes", [4, 6])
def test_one_hot(num_classes):
    check(mj.OneHot(num_classes), tio.OneHot(num_classes), small_subject(RAS))


def test_one_hot_of_a_head(head):
    check(mj.OneHot(2), tio.OneHot(), head)


REMAPPINGS = [{1: 3, 3: 1}, {0: 7, 3: 200}, {3: 1, 9: 4}, {0: 1, 1: 3, 3: 0}]


@pytest.mark.parametrize("remapping", REMAPPINGS, ids=str)
def test_remap_labels(remapping):
    check(mj.RemapLabels(remapping), tio.RemapLabels(remapping), small_subject(RAS))


def odd(x):
    return x % 2 == 1


MASKS = ["label", "Left", "sUPERIOR", odd, 2, (3, 1, 5, 8, 2, 0)]


@pytest.mark.parametrize("method", MASKS, ids=lambda method: getattr(method, "__name__", str(method)))
def test_remapping_in_a_mask(method):
    subject = small_subject(RAS)
    remapping = {1: 3, 3: 1, 0: 5}
    check(mj.RemapLabels(remapping, method), tio.RemapLabels(remapping, method), subject)
    check(mj.RemoveLabels([1], 4, method), tio.RemoveLabels([1], 4, method), subject)
    check(mj.SequentialLabels(method), tio.SequentialLabels(method), shifted(subject))


def shifted(subject):
    """The labels 0, 1 and 3 as 2, 7 and 21."""
    return subject.replace(label=subject.label.replace(data=np.array([2, 7, 9, 21], np.uint8)[subject.label.numpy()]))


@pytest.mark.parametrize("arguments", [([1],), ([0, 3], 1), ([9, 3, 1],)], ids=str)
def test_remove_labels(arguments):
    check(mj.RemoveLabels(*arguments), tio.RemoveLabels(*arguments), small_subject(RAS))


def test_sequential_labels():
    check(mj.SequentialLabels(), tio.SequentialLabels(), small_subject(RAS))
    check(mj.SequentialLabels(), tio.SequentialLabels(), shifted(small_subject(RAS)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_contour(dtype):
    subject = small_subject(RAS)
    subject = subject.replace(label=subject.label.replace(data=subject.label.numpy().astype(dtype)))
    check(mj.Contour(binary=True), tio.Contour(), subject)


def test_contour_of_a_head(head):
    check(mj.Contour(binary=True), tio.Contour(), head)
    check(mj.Contour(), tio.Contour(), head)


def test_keep_largest_component():
    check(mj.KeepLargestComponent(binary=True), tio.KeepLargestComponent(), small_subject(RAS))


def test_keep_largest_component_of_a_head(head):
    """One label: for each label is for all."""
    check(mj.KeepLargestComponent(binary=True), tio.KeepLargestComponent(), head)
    check(mj.KeepLargestComponent(), tio.KeepLargestComponent(), head)
