"""What is thin is moved within itself: single slices and lines, in any orientation."""

import jax
import numpy as np
import pytest
from conftest import blobs, oriented
from scipy.spatial.transform import Rotation

import medjax as mj

KEY = jax.random.key(0)
PLANE = 100 * blobs((40, 36, 1))[None]
STILL = {"image_interpolation": "linear", "default_pad_value": -999.0}
MOVES = [
    mj.RandomAffine(0.1, 12, 2, shears=0.1, **STILL),
    mj.RandomAffine(0.1, 12, 2, order="object", **STILL),
    mj.RandomElasticDeformation(6, 3.0, **STILL),
    mj.RandomElasticDeformation(6, 3.0, frame="voxel", **STILL),
    mj.RandomVoxelAffine((0.9, 1.1), 20, default_pad_value=-999.0),
    mj.RandomDiffeomorphicDeformation(4, 2.0, **STILL),
]
AFFINES = {
    "axial": oriented("RAS", (1, 1, 5)),
    "coronal": oriented("RSA", (1, 1, 5), (3, 400, -20)),
    "sagittal": oriented("ASR", (1, 1, 5), (-90, 3, 7)),
}


def turned(affine, degrees):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return matrix @ affine


@pytest.mark.parametrize("t", MOVES, ids=lambda t: type(t).__name__)
def test_nothing_leaves_the_plane_of_a_slice_however_it_lies(t):
    """Fill comes in at its rim alone: none in the middle, though slices of 5 mm are tilted by up to 40 degrees."""
    for affine in (*AFFINES.values(), *(turned(a, (25, -30, 15)) for a in AFFINES.values())):
        for plane, matrix in ((PLANE, affine), (np.moveaxis(PLANE, 3, 1), affine[:, [2, 0, 1, 3]])):
            for key in jax.random.split(KEY, 2):
                got = np.asarray(t(mj.ScalarImage(plane, matrix), key).data)
                middle = got[0, 10:-10, 10:-10] if plane is PLANE else got[0, :, 10:-10, 10:-10]
                assert middle.min() >= PLANE.min() - 1e-3
                assert np.abs(got - plane)[got > -900].max() > 3  # it has moved


@pytest.mark.parametrize("t", [t for t in MOVES if type(t).__name__ in ("RandomAffine", "RandomVoxelAffine")])
def test_a_tilted_slice_is_moved_as_one_that_is_not(t):
    affine = AFFINES["axial"]
    want = np.asarray(t(mj.ScalarImage(PLANE, affine), KEY).data)
    for degrees in ((20, 0, 0), (0, 35, 0), (15, -20, 10)):
        got = np.asarray(t(mj.ScalarImage(PLANE, turned(affine, degrees)), KEY).data)
        np.testing.assert_allclose(got, want, atol=0.05)


def test_what_would_only_leave_the_plane_does_nothing():
    for name, normal in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        along = np.eye(3)[normal]
        t = mj.Affine(1 + 0.3 * along, 15 * (1 - along), 9 * along, **STILL)
        got = t(mj.ScalarImage(PLANE, turned(AFFINES[name], (10, 5, -8))))
        np.testing.assert_allclose(got.data, PLANE, atol=2e-2)


def test_a_line_is_moved_along_itself_alone():
    line = PLANE[:, :, :1]
    for t in MOVES[:1] + MOVES[2:3]:
        got = np.asarray(t(mj.ScalarImage(line, turned(AFFINES["coronal"], (12, 20, 30))), KEY).data)
        assert got[0, 12:-12].min() >= line.min() - 1e-3


def test_a_slice_does_not_warn_of_folding_across_itself(recwarn):
    mj.RandomElasticDeformation(6, 1.0)(mj.ScalarImage(PLANE, AFFINES["coronal"]), KEY)
    assert not recwarn.list


def test_the_images_beside_a_slice_move_with_it():
    """A volume that shares its world: what the slice shows stays what the volume shows there."""
    data = 100 * blobs((40, 36, 9), 3)[None]
    affine = turned(oriented("RAS", (1, 1, 2)), (20, 10, 0))
    middle = affine.copy()
    middle[:3, 3] = (affine @ [0, 0, 4, 1])[:3]
    subject = mj.Subject(plane=mj.ScalarImage(data[..., 4:5], middle), volume=mj.ScalarImage(data, affine))
    got = mj.RandomAffine(0.05, 10, 1, default_pad_value=0)(subject, KEY)
    inner = (0, slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(
        np.asarray(got.plane.data)[inner][..., 0], np.asarray(got.volume.data)[inner][..., 4], atol=0.05
    )
