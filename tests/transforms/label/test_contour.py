"""Contour: the surface of each label."""

import jax
import numpy as np
import pytest
from conftest import small_subject
from scipy import ndimage

import medjax as mj


def surfaces(x, connectivity):
    """By scipy: what erosion takes away from each label; beyond the volume nothing is eroded."""
    structure = ndimage.generate_binary_structure(3, connectivity)
    out = np.zeros_like(x)
    for label in np.unique(x[x != 0]):
        inside = ndimage.binary_erosion(x[0] == label, structure, border_value=1)
        out[0] += label * ((x[0] == label) & ~inside)
    return out


@pytest.mark.parametrize("connectivity", [1, 2, 3])
def test_w56_each_label_keeps_its_surface(connectivity):
    """TorchIO hollows out label 1 and leaves label 3 as it is."""
    subject = small_subject()
    label = subject.label.numpy()
    want = surfaces(label, connectivity)
    assert all((want == n).sum() < (label == n).sum() for n in (1, 3))
    got = mj.Contour(connectivity=connectivity)(subject).label
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got.numpy(), want)


def test_binary_hollows_out_label_1_alone():
    subject = small_subject()
    label = subject.label.numpy()
    got = mj.Contour(binary=True)(subject).label.numpy()
    np.testing.assert_array_equal(got, np.where(label == 1, surfaces(label, 1), label))


@pytest.mark.parametrize("dtype", [np.bool_, np.int16, np.float32])
def test_the_dtype_stays(dtype):
    subject = small_subject()
    mask = (subject.label.numpy() == 1).astype(dtype)
    got = mj.Contour()(mj.LabelMap(mask)).numpy()
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, surfaces(mask.astype(np.uint8), 1))


def test_padding_is_not_outside():
    subjects = [small_subject(shape=shape) for shape in ((9, 12, 10), (12, 9, 8))]
    batch = mj.stack(subjects, shape=(12, 12, 12))
    for result in (mj.Contour().batch(batch), jax.jit(jax.vmap(mj.Contour()))(batch)):
        for got, subject in zip(mj.unstack(result), subjects):
            np.testing.assert_array_equal(got.label.numpy(), surfaces(subject.label.numpy(), 1))
