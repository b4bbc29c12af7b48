"""ToCanonical against nibabel."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented
from scipy.spatial.transform import Rotation

import medjax as mj


def canonical(image):
    """What nibabel makes of an image: array and affine."""
    found = nibabel.as_closest_canonical(nibabel.Nifti1Image(image.numpy()[0], image.affine))
    return np.asarray(found.dataobj)[None], found.affine


CODES = ["".join(c) for order in permutations(range(3)) for c in product(*(("RL", "AP", "SI")[a] for a in order))]


def test_every_orientation_is_nibabels():
    data = blobs((5, 7, 6))[None]
    assert len(CODES) == 48
    for codes in CODES[::3]:
        image = mj.ScalarImage(data, oriented(codes, (1, 2, 3), (100, -200, 300)))
        got, (want, affine) = mj.ToCanonical()(image), canonical(image)
        assert got.orientation == ("R", "A", "S")
        np.testing.assert_array_equal(got.numpy(), want)
        np.testing.assert_allclose(got.affine, affine, atol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_oblique_images_are_nibabels(seed):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix() * (1, 2, 1.5)
    image = mj.ScalarImage(blobs((5, 7, 6))[None], affine)
    got, (want, affine) = mj.ToCanonical()(image), canonical(image)
    np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_allclose(got.affine, affine, atol=1e-9)


def test_w20_include_and_exclude_are_honoured():
    images = {name: mj.ScalarImage(blobs((5, 7, 6))[None], oriented("PIR")) for name in ("t1", "t2")}
    subject = mj.Subject(images)
    for options in ({"include": ["t1"]}, {"exclude": ["t2"]}):
        got = mj.ToCanonical(**options)(subject)
        assert got.t1.orientation == ("R", "A", "S") and got.t2.orientation == ("P", "I", "R")
        np.testing.assert_array_equal(got.t2.numpy(), subject.t2.numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.bool_])
def test_dtypes_stay(dtype):
    data = (blobs((5, 7, 6)) * 99).astype(dtype)[None]
    for cls in (mj.ScalarImage, mj.LabelMap):
        image = mj.ToCanonical()(cls(data, oriented("LPS")))
        assert image.dtype == dtype
        np.testing.assert_array_equal(image.numpy(), data[:, ::-1, ::-1])


def test_a_canonical_image_is_left_alone():
    image = mj.ScalarImage(blobs((5, 7, 6))[None], OBLIQUE)
    got = mj.ToCanonical()(image)
    np.testing.assert_array_equal(got.affine, OBLIQUE)
    np.testing.assert_array_equal(got.numpy(), image.numpy())
