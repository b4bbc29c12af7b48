"""Artefacts of k-space give TorchIO 1.2.1's numbers, to 1e-4 of the range."""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from scipy.spatial.transform import Rotation

import medjax as mj
from parity.peer import agree, run, strided, tio

RAS = np.diag([1.0, 2, 1.5, 1])
DEGREES = np.array([(2.5, -3, 4), (-4, 1.5, 2)], np.float32)
SHIFTS = np.array([(1, -0.7, 0.4), (-1.3, 0.6, 1)], np.float32)


@pytest.fixture(scope="module")
def head(mni):
    """The real T1, every fourth voxel: 50 x 59 x 48."""
    return strided(mni)


def check(mine, peer, subject, tolerance=1e-4, where=True):
    agree(mine(subject).t1, run(peer, subject).t1, where, tolerance)


def untied(image, degrees, shifts):
    """Lines along the last axis (I, J, 1) of which no voxel is read within 2e-3 voxels of the end of the image."""
    shape, flip = image.spatial_shape, np.diag([-1, -1, 1, 1])
    index = np.stack([*np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), np.ones(shape)], -1)
    kept = np.ones(shape[:2], bool)
    for angles, shift in zip(degrees, shifts, strict=True):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = Rotation.from_euler("yxz", angles[[1, 0, 2]], degrees=True).as_matrix(), shift
        read = index @ (np.linalg.inv(image.affine) @ flip @ matrix @ flip @ image.affine).T
        gap = np.minimum(np.abs(read[..., :3] + 0.5), np.abs(read[..., :3] + 0.5 - np.array(shape)))
        kept &= (gap > 2e-3).all((2, 3))
    return kept[None, :, :, None]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("count, intensity, restore", [(4, 0.7, None), (5, 1.0, None), (3, 0.6, 0.13), (2, 0.9, 0.3)])
def test_ghosting(axis, count, intensity, restore):
    subject = small_subject()
    n = subject.t1.spatial_shape[axis]
    if restore is not None:  # an even number of planes; of an odd one TorchIO loses one
        restore = 2 * round(restore * n / 2) / n
    arguments = dict(num_ghosts=count, axis=axis, intensity=intensity, restore=restore)
    check(mj.Ghosting(**arguments), tio.Ghosting(**arguments), subject)


def test_ghosting_of_a_head(head):
    arguments = dict(num_ghosts=7, axis=1, intensity=0.8, restore=None)
    check(mj.Ghosting(**arguments), tio.Ghosting(**arguments), head)


@pytest.mark.parametrize("point", [(0.31, 0.62, 0.7), (0, 0, 0), (0.97, 0.51, 0.03)])
@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_a_spike(point, offset):
    subject = mj.Subject(t1=mj.ScalarImage(blobs()[None] + np.float32(offset), OBLIQUE))
    point = np.array([point], np.float32)
    check(mj.Spike(point, 1.7), tio.Spike(point, 1.7), subject)


def test_spikes_one_after_the_other():
    subject = mj.Subject(t1=mj.ScalarImage(blobs()[None] - np.float32(0.4), OBLIQUE))
    points = np.array([(0.31, 0.62, 0.7), (0.5, 0.51, 0.5), (0.31, 0.62, 0.7)], np.float32)
    check(mj.Spike(points, 0.8, cumulative=True), tio.Spike(points, 0.8), subject)


def test_a_spike_in_a_head(head):
    point = np.array([(0.4, 0.53, 0.61)], np.float32)
    check(mj.Spike(point, 0.8), tio.Spike(point, 0.8), head)


@pytest.mark.parametrize("times", [(0.31, 0.66), (0.6, 0.8), (0.2, 0.4)])
@pytest.mark.parametrize("shape", [(23, 31, 18), (14, 17, 13)])
def test_motion_as_torchio_means_it(times, shape):
    # At the world's origin: TorchIO turns about it, so that an origin far away would move the head out of sight.
    subject = small_subject(RAS, shape)
    times = np.array(times, np.float32)
    mine = mj.Motion(DEGREES, SHIFTS, times, legacy=True)
    where = untied(subject.t1, DEGREES, SHIFTS)
    check(mine, tio.Motion(DEGREES, SHIFTS, times, "linear"), subject, 1e-4, where)


def test_motion_of_an_oblique_volume():
    affine = OBLIQUE.copy()
    affine[:3, 3] = (-7, 12, -9)
    subject = small_subject(affine)
    times = np.array((0.31, 0.66), np.float32)
    mine = mj.Motion(DEGREES, SHIFTS, times, legacy=True)
    where = untied(subject.t1, DEGREES, SHIFTS)
    check(mine, tio.Motion(DEGREES, SHIFTS, times, "linear"), subject, 1e-4, where)


def test_motion_by_a_cubic_spline():
    # Near the ends ITK continues the image otherwise: the volume fades out before them.
    shape, times = (23, 31, 18), np.array([0.2, 0.66], np.float32)
    window = np.einsum(
        "i,j,k->ijk", *(np.clip((n / 2 - np.abs(np.arange(n) - (n - 1) / 2) - 3) / 3, 0, 1) for n in shape)
    )
    subject = mj.Subject(t1=mj.ScalarImage((blobs(shape) * window)[None].astype(np.float32), RAS))
    mine = mj.Motion(DEGREES / 4, SHIFTS, times, "bspline", legacy=True)
    check(mine, tio.Motion(DEGREES / 4, SHIFTS, times, "bspline"), subject, 1e-3)


def test_motion_of_a_head(head):
    times = np.array((0.3, 0.72), np.float32)
    mine = mj.Motion(DEGREES, SHIFTS, times, legacy=True)
    check(mine, tio.Motion(DEGREES, SHIFTS, times, "linear"), head)


def test_w28_without_legacy_it_is_the_reverse_in_lps():
    # A shift alone, of which neither knows a centre: LPS and output to input is RAS and forward for R and A.
    subject = small_subject(RAS)
    shifts = np.array([(1.3, -2.1, 0), (0.6, 1, 0)], np.float32)
    times, still = np.array((0.31, 0.66), np.float32), np.zeros((2, 3), np.float32)
    check(mj.Motion(still, shifts, times), tio.Motion(still, shifts, times, "linear"), subject)
