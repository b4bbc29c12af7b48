"""Transpose: the array turned round, nothing moved in the world."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj

AFFINES = {"oblique": OBLIQUE, "PIR": oriented("PIR", (1, 2, 3), (50, -70, 300))}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_voxels_are_transposed_and_stay_in_the_world(affine):
    data = (np.stack([blobs((5, 7, 6), s) for s in range(2)]) * 99).astype(np.int16)
    got = mj.Transpose()(mj.ScalarImage(data, affine))
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got.numpy(), data.transpose(0, 3, 2, 1))
    for i, j, k in ((0, 0, 0), (4, 6, 5), (2, 1, 3)):
        np.testing.assert_allclose(got.affine @ [k, j, i, 1], affine @ [i, j, k, 1], atol=1e-9)


def test_the_orientation_is_read_backwards():
    image = mj.ScalarImage(blobs((5, 7, 6))[None], oriented("PIR"))
    assert mj.Transpose()(image).orientation == ("R", "I", "P")


def test_twice_is_nothing_and_it_is_its_own_inverse():
    subject = small_subject()
    t = mj.Transpose()
    once = t(subject)
    for back in (t(once), mj.Compose([t, t])(subject), t.invert(once, t.sample(None, subject), like=subject)):
        for name in ("t1", "label"):
            np.testing.assert_array_equal(back[name].numpy(), subject[name].numpy())
            np.testing.assert_allclose(back[name].affine, OBLIQUE, atol=1e-9)


def test_the_shape_is_known_under_jit():
    got = jax.jit(mj.Transpose())(small_subject())
    assert got.t1.shape == got.label.shape == (1, 18, 31, 23)
