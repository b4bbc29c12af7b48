"""ToOrientation against nibabel."""

from itertools import permutations, product

import jax
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject
from nibabel import orientations
from scipy.spatial.transform import Rotation

import medjax as mj
from medjax.geometry import Grid

CODES = ["".join(c) for order in permutations(range(3)) for c in product(*(("RL", "AP", "SI")[a] for a in order))]


def turned(image, codes):
    """What nibabel makes of an image: array (C, I, J, K) and affine."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(tuple(codes))
    )
    data = np.stack([orientations.apply_orientation(channel, turn) for channel in image.numpy()])
    return data, image.affine @ orientations.inv_ornt_aff(turn, image.spatial_shape)


def test_every_grid_in_every_orientation_is_nibabels():
    assert len(CODES) == 48
    for start in CODES[::5]:
        affine = oriented(start, (1, 2, 3), (100, -200, 300))
        grid = Grid(affine, np.array((5, 7, 6), np.int32), (5, 7, 6))
        for codes in CODES:
            got = mj.ToOrientation(codes).regrid(grid, {}, grid)
            want, moved = turned(mj.ScalarImage(np.zeros((1, 5, 7, 6), np.float32), affine), codes)
            assert tuple(got.shape) == want.shape[1:]
            np.testing.assert_allclose(got.affine, moved, atol=1e-9)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "ILP"])
@pytest.mark.parametrize("seed", range(3))
def test_voxels_of_oblique_images_are_nibabels(codes, seed):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix() * (1, 2, 1.5)
    affine[:3, 3] = (120, -80, 333)
    image = mj.ScalarImage(np.stack([blobs((5, 7, 6), s) for s in range(2)]), affine)
    got, (want, moved) = mj.ToOrientation(codes)(image), turned(image, codes)
    assert "".join(got.orientation) == codes == "".join(nibabel.aff2axcodes(got.affine))
    np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_allclose(got.affine, moved, atol=1e-9)


def test_codes_can_be_written_small_or_one_by_one():
    image = mj.ScalarImage(blobs((5, 7, 6))[None], OBLIQUE)
    for codes in ("pir", ("P", "I", "R"), ["p", "i", "r"]):
        np.testing.assert_array_equal(mj.ToOrientation(codes)(image).affine, mj.ToOrientation("PIR")(image).affine)


def test_the_orientation_that_is_there_changes_no_bit():
    subject = small_subject()
    got = mj.ToOrientation("".join(subject.t1.orientation))(subject)
    np.testing.assert_array_equal(got.t1.affine, OBLIQUE)
    np.testing.assert_array_equal(got.t1.numpy(), subject.t1.numpy())


def test_w20_include_and_exclude_are_honoured():
    images = {name: mj.ScalarImage(blobs((5, 7, 6))[None], oriented("PIR")) for name in ("t1", "t2")}
    subject = mj.Subject(images)
    for options in ({"include": ["t1"]}, {"exclude": ["t2"]}):
        got = mj.ToOrientation("LAS", **options)(subject)
        assert got.t1.orientation == ("L", "A", "S") and got.t2.orientation == ("P", "I", "R")
        np.testing.assert_array_equal(got.t2.numpy(), subject.t2.numpy())


def test_images_of_different_orientation_come_to_one_and_back():
    data = (blobs((5, 7, 6)) * 99).astype(np.int16)[None]
    subject = mj.Subject(t1=mj.ScalarImage(data, oriented("PIR")), label=mj.LabelMap(data, oriented("LSA")))
    t = mj.ToOrientation("RPI")
    got = t(subject)
    assert got.t1.orientation == got.label.orientation == ("R", "P", "I")
    back = t.invert(got, t.sample(None, subject), like=subject)
    for name in ("t1", "label"):
        assert back[name].dtype == np.int16
        np.testing.assert_array_equal(back[name].numpy(), data)
        np.testing.assert_array_equal(back[name].affine, subject[name].affine)


def test_a_cube_can_be_turned_under_jit():
    image = mj.ScalarImage(blobs((6, 6, 6))[None], oriented("PIR", (1, 2, 3)))
    got = jax.jit(mj.ToOrientation("LAS"))(image)
    np.testing.assert_array_equal(got.data, turned(image, "LAS")[0])


@pytest.mark.parametrize("codes", ["RA", "RASS", "RRS", "RLS", "XYZ", "", 3, None, ("R", "A"), "LRA"])
def test_codes_that_make_no_sense_are_refused(codes):
    with pytest.raises((TypeError, ValueError), match="orientation must hold one of L/R, one of P/A and one of I/S"):
        mj.ToOrientation(codes)
