"""FillHoles: the background inside of a label becomes that label."""

import sys

import jax
import numpy as np
import pytest
from conftest import small_subject
from scipy import ndimage

import medjax as mj

SHAPE = (14, 16, 15)


def spongy(seed=0, dtype=np.uint8):
    """Labels 0, 1, 2 and 5, with holes of all sizes."""
    rng = np.random.default_rng(seed)
    x = ndimage.zoom(rng.choice([0, 1, 2, 5], (4, 4, 4)), np.array(SHAPE) / 4, order=0)
    return np.where(rng.random(SHAPE) < 0.15, 0, x).astype(dtype)[None]


def shells():
    """A ball of 1 around a cavity, in which a ball of 2 with a cavity of its own lies, and on the whole 5 to the side."""
    x = np.zeros((17, 15, 15), np.uint8)
    square = sum((i - 7) ** 2 for i in np.ogrid[:17, :15, :15])
    for radius, label in ((6, 1), (5, 0), (3.2, 2), (1.8, 0)):
        x[square <= radius**2] = label
    x[15:] = 5
    return x[None]


@pytest.mark.parametrize("connectivity", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_label_is_filled_as_scipy_fills_its_mask(dtype, connectivity):
    x, structure = spongy(dtype=dtype), ndimage.generate_binary_structure(3, connectivity)
    got = mj.FillHoles(connectivity=connectivity)(mj.LabelMap(x))
    filled = {label: ndimage.binary_fill_holes(x[0] == label, structure) for label in (1, 2, 5)}
    inside = np.any(list(filled.values()), 0)
    assert got.dtype == dtype and (inside & (x[0] == 0)).any()
    np.testing.assert_array_equal(got.numpy()[0][x[0] != 0], x[0][x[0] != 0])
    np.testing.assert_array_equal(got.numpy()[0] != 0, (x[0] != 0) | inside)
    for label, mask in filled.items():
        assert mask[got.numpy()[0] == label].all()


def test_the_innermost_label_fills_and_labels_inside_stay():
    x = shells()
    want = x.copy()
    want[0][ndimage.binary_fill_holes(x[0] == 1) & (x[0] == 0)] = 1
    want[0][ndimage.binary_fill_holes(x[0] == 2) & (x[0] == 0)] = 2
    for run in (mj.FillHoles(), jax.jit(mj.FillHoles())):
        np.testing.assert_array_equal(run(mj.LabelMap(x)).numpy(), want)
    only = mj.FillHoles(labels=(1,))(mj.LabelMap(x)).numpy()
    np.testing.assert_array_equal(only, np.where(want == 2, np.where(x == 2, 2, 1), want))


def test_a_slice_is_filled_as_a_slice():
    x = spongy()[:, :, :, 7:8]
    got = mj.FillHoles(labels=(1,))(mj.LabelMap(x)).numpy()
    mask = ndimage.binary_fill_holes(x[0, ..., 0] == 1)
    np.testing.assert_array_equal(got[0, ..., 0], np.where(mask & (x[0, ..., 0] == 0), 1, x[0, ..., 0]))


def test_what_is_padded_is_no_wall_and_no_way_out():
    one, other = (mj.Subject(label=mj.LabelMap(spongy(seed))) for seed in range(2))
    batch = mj.stack([one, other], shape=(16, 16, 20))
    for got, alone in zip(mj.unstack(mj.FillHoles().batch(batch)), (one, other)):
        np.testing.assert_array_equal(got.label.numpy(), mj.FillHoles()(alone).label.numpy())


def test_twice_is_once():
    once = mj.FillHoles()(mj.LabelMap(spongy()))
    np.testing.assert_array_equal(mj.FillHoles()(once).numpy(), once.numpy())


def test_without_the_labeller_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cc3d", None)
    with pytest.raises(ImportError, match=r"FillHoles needs connected-components-3d.*medjax\[morphology\]"):
        mj.FillHoles()(small_subject())
