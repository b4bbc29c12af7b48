"""Spatial transforms give TorchIO 1.2.1's numbers, on the real T1 and on a small oblique volume of any orientation.

Linear interpolation is compared between the centres of the outermost voxels (`peer.interior`), fills a voxel outside
of the image (`peer.exterior`), labels wherever no coordinate is a tie (`peer.untied`); affine transforms everywhere
but within EDGE of the edge of the field of view, by their formula.
"""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject
from scipy.spatial.transform import Rotation

import medjax as mj
from parity.peer import EDGE, agree, equal, exterior, interior, read_at, run, same_space, strided, tio, untied

SHAPE = (23, 31, 18)
PERMUTED = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
GRIDS = {
    "oblique": OBLIQUE,
    "permuted": OBLIQUE @ PERMUTED,
    "LAS": oriented("LAS", (1, 2, 1.5), (40, -30, 25)),
    "PIR": oriented("PIR", (1, 2, 1.5), (40, -30, 25)),
}


@pytest.fixture(params=GRIDS)
def small(request):
    return small_subject(GRIDS[request.param])


@pytest.fixture(scope="module")
def head(mni):
    """The real T1 and its grey matter, every fourth voxel."""
    return strided(mni)


# -- affine


def read_by_affine(affine, shape, scales, degrees, translation, center):
    """The voxel that is read at each voxel: p_in = c + R^T (S^-1 (p_out - c) - t), R = Rz Rx Ry, in float64."""
    rotation = Rotation.from_euler("yxz", np.array(degrees)[[1, 0, 2]], degrees=True).as_matrix()
    c = affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3] if center == "image" else np.zeros(3)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    moved = ((world - c) / scales - translation) @ rotation + c
    return np.moveaxis((moved - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T, -1, 0)


def clear_of_edges(index, shape):
    return np.all([(np.abs(c + 0.5) > EDGE) & (np.abs(c - n + 0.5) > EDGE) for c, n in zip(index, shape)], axis=0)


def affine_parameters(seed, center):
    rng = np.random.default_rng(seed)
    scales, degrees, translation = (rng.uniform(*ends, 3).tolist() for ends in ((0.8, 1.25), (-25, 25), (-8, 8)))
    return {"scales": scales, "degrees": degrees, "translation": translation, "center": center}


def check_affine(subject, parameters, **fills):
    got = mj.Affine(**parameters, **fills)(subject)
    want = run(tio.Affine(**parameters, **fills), subject)
    index = read_by_affine(np.asarray(subject.t1.affine), subject.t1.spatial_shape, **parameters)
    clear = clear_of_edges(index, subject.t1.spatial_shape)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
    agree(got.t1, want.t1, clear)
    equal(got.label, want.label, clear & untied(index))
    outside = ~interior(index, subject.t1.spatial_shape) & clear
    assert outside.sum() > 100


@pytest.mark.parametrize("center", ["image", "origin"])
def test_affine(small, center):
    parameters = affine_parameters(0 if center == "image" else 1, center)
    if center == "origin":  # near it, or all of the image leaves the field of view
        affine = np.asarray(small.t1.affine).copy()
        affine[:3, 3] = (-15, 10, 5) - affine[:3, :3] @ (np.array(SHAPE) / 2)
        small = mj.Subject({n: i.replace(affine=affine) for n, i in small.images.items()})
    check_affine(small, parameters)


@pytest.mark.parametrize("seed", [2, 3])
def test_affine_with_other_parameters(seed):
    check_affine(small_subject(), affine_parameters(seed, "image"))


@pytest.mark.parametrize("pad", [-2.5, "minimum", "mean", "otsu"])
def test_affine_fills(pad):
    subject = small_subject()
    data = subject.t1.data + np.float32(0.2)  # no zero on the border: W9
    subject = subject.replace(t1=subject.t1.replace(data=data))
    check_affine(subject, affine_parameters(3, "image"), default_pad_value=pad, default_pad_label=3)


def test_affine_of_channels():
    data = np.concatenate([factor * blobs(seed=seed)[None] for seed, factor in enumerate((1, -2, 5))])
    subject = small_subject().replace(t1=mj.ScalarImage(data, OBLIQUE))
    check_affine(subject, affine_parameters(4, "image"))


def test_affine_nearest():
    subject, parameters = small_subject(), affine_parameters(5, "image")
    got = mj.Affine(**parameters, image_interpolation="nearest")(subject)
    want = run(tio.Affine(**parameters, image_interpolation="nearest"), subject)
    index = read_by_affine(OBLIQUE, SHAPE, **parameters)
    equal(got.t1, want.t1, clear_of_edges(index, SHAPE) & untied(index))


def test_affine_of_one_slice():
    subject = small_subject(shape=(23, 31, 1), affine=np.diag([1.0, 2, 1.5, 1]))
    parameters = {"scales": (1.1, 0.9, 1.3), "degrees": (20, 10, 15), "translation": (3, -2, 0)}
    got, want = mj.Affine(**parameters)(subject), run(tio.Affine(**parameters), subject)
    index = read_at(tio.Affine(**parameters), subject.t1)
    inside = interior(index[:2], (23, 31))
    agree(got.t1, want.t1, inside)
    equal(got.label, want.label, inside & untied(index[:2]))


@pytest.mark.parametrize("pad", ["minimum", "mean"])
def test_affine_of_a_head(head, pad):
    check_affine(head, affine_parameters(6, "image"), default_pad_value=pad)


# -- elastic


def check_elastic(subject, shape, reach, seed=0):
    points = np.random.default_rng(seed).uniform(-1, 1, (*shape, 3)) * reach
    peer = tio.ElasticDeformation(points, max_displacement=reach)
    got, want = mj.ElasticDeformation(points)(subject), run(peer, subject)
    index = read_at(peer, subject.t1)
    inside = interior(index, subject.t1.spatial_shape)
    assert np.abs(index - np.indices(subject.t1.spatial_shape))[:, inside].max() > 0.3
    for name in ("t1", "label"):
        same_space(got[name], want[name])
    agree(got.t1, want.t1, inside)
    equal(got.label, want.label, inside & untied(index))
    outside = exterior(index)
    np.testing.assert_allclose(got.t1.numpy()[0][outside], want.t1.numpy()[0][outside], atol=1e-6)


def test_elastic_deformation(small):
    check_elastic(small, (7, 5, 6), np.array([3.0, 2.0, 4.0]))


def test_elastic_deformation_by_the_fewest_points():
    check_elastic(small_subject(), (4, 9, 5), np.array([4.0, 2.0, 3.0]), seed=1)


def test_elastic_deformation_of_a_head(head):
    check_elastic(head, (6, 8, 7), np.array([9.0, 7.0, 11.0]))


# -- resample


def check_resample(subject, target, peer_target=None, names=("t1", "label"), **options):
    peer = tio.Resample(target if peer_target is None else peer_target, **options)
    got, want = mj.Resample(target, **options)(subject), run(peer, subject)
    for name in names:
        index = read_at(peer, subject[name])
        inside = interior(index, subject[name].spatial_shape)
        same_space(got[name], want[name])
        if isinstance(subject[name], mj.LabelMap):
            equal(got[name], want[name], inside & untied(index))
        else:
            agree(got[name], want[name], inside)
            outside = exterior(index)
            np.testing.assert_array_equal(got[name].numpy()[:, outside], want[name].numpy()[:, outside])


def test_resample_to_a_spacing(small):
    check_resample(small, (2.0, 1.1, 3.1))


@pytest.mark.parametrize("spacing", [1.3, (0.7, 2.5, 1.6)])
def test_resample_to_other_spacings(spacing):
    check_resample(small_subject(), spacing)


def test_resample_a_head(head):
    check_resample(head, (5.0, 3.3, 7.0))


def other_grid():
    """The affine of a rotated grid that overlaps the small oblique volume, and a shape."""
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", (20, -15, 40), degrees=True).as_matrix() * 1.7
    middle = OBLIQUE @ np.array([11, 15, 9, 1.0])
    turn[:3, 3] = middle[:3] - turn[:3, :3] @ np.array([8, 8, 6.0]) + (2, -1, 3)
    return turn, (17, 20, 15)


@pytest.mark.parametrize("kind", ["shape and affine", "image", "path", "name"])
def test_resample_to_a_reference(kind, tmp_path):
    affine, shape = other_grid()
    subject = small_subject()
    reference = mj.ScalarImage(np.zeros((1, *shape), np.float32), affine)
    path = tmp_path / "reference.nii.gz"
    if kind == "name":
        check_resample(subject.replace(other=reference), "other", (shape, affine))
    elif kind == "path":
        reference.save(path)
        check_resample(subject, path)
    elif kind == "image":
        check_resample(subject, reference, tio.ScalarImage(tensor=reference.numpy(), affine=affine))
    else:
        check_resample(subject, (shape, affine))


def test_resample_of_scalars_only(small):
    got = mj.Resample(1.3, scalars_only=True)(small)
    want = run(tio.Resample(1.3, scalars_only=True), small)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
    equal(got.label, want.label)


def test_resample_with_antialiasing():
    """TorchIO's Gaussian is recursive, 2e-3 of the range from a true one (W23); without smoothing it would be 0.1."""
    subject = small_subject(np.eye(4))
    for spacing in ((1, 2, 3), (1.3, 2.1, 2.7)):
        inside = interior(read_at(tio.Resample(spacing), subject.t1), SHAPE)
        got = mj.Resample(spacing, antialias=True)(subject)
        want = run(tio.Resample(spacing, antialias=True), subject)
        agree(got.t1, want.t1, inside, 5e-3)


# -- crop, pad, orientation, flip

MASKED = {"mask_name": "label"}
CROPS = {
    "crop, odd": {"target_shape": (10, 20, 7)},
    "crop, even": {"target_shape": (11, 21, 8)},
    "pad": {"target_shape": (30, 40, 21)},
    "pad by one": {"target_shape": (24, 32, 19)},
    "both": {"target_shape": (30, 20, 25)},
    "one number": {"target_shape": 22},
    "an axis kept": {"target_shape": (None, 20, 25)},
    "only crop": {"target_shape": (30, 20, 9), "only_crop": True},
    "only pad": {"target_shape": (30, 20, 25), "only_pad": True},
    "mm": {"target_shape": (17.2, 80, 20), "units": "mm"},
    "cm": {"target_shape": (1.72, 8, 2), "units": "cm"},
    "mask": {**MASKED},
    "mask, odd": {**MASKED, "target_shape": (9, 13, 7)},
    "mask, even": {**MASKED, "target_shape": (10, 14, 8)},
    "mask, beyond": {**MASKED, "target_shape": (26, 40, 8)},
    "labels": {**MASKED, "labels": (3,)},
    "labels, odd": {**MASKED, "labels": (3,), "target_shape": (9, 35, 7)},
}  # fmt: skip


@pytest.mark.parametrize("arguments", CROPS.values(), ids=CROPS)
def test_crop_or_pad(arguments):
    subject = small_subject()
    corner = np.zeros((1, *SHAPE), np.uint8)  # a mask off the middle, with odd and even sides
    corner[:, 2:9, 10:28, 3:14] = 1
    corner[:, 4:7, 12:22, 5:13] = 3
    corner[:, 5, 14:20, 7:9] = 0
    subject = subject.replace(label=mj.LabelMap(corner, OBLIQUE))
    got, want = mj.CropOrPad(**arguments)(subject), run(tio.CropOrPad(**arguments), subject)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
        equal(got[name], want[name])
        assert got[name].dtype == subject[name].dtype


MODES = [2, -1.5, "constant", "minimum", "maximum", "mean", "median", "edge", "reflect", "symmetric", "wrap"]


@pytest.mark.parametrize("target", [(30, 20, 25)])
@pytest.mark.parametrize("mode", MODES)
def test_padding_modes(mode, target):
    """Statistics of an image stand for 0 in a label map, whose mean would be a new label (W24)."""
    subject = small_subject()
    names = ("t1",) if mode in ("minimum", "maximum", "mean", "median", -1.5) else ("t1", "label")
    subject = mj.Subject({n: subject[n] for n in names})
    got, want = mj.CropOrPad(target, padding_mode=mode)(subject), run(tio.CropOrPad(target, padding_mode=mode), subject)
    for name in names:
        same_space(got[name], want[name])
        agree(got[name], want[name], tolerance=1e-6 if mode in ("mean", "median") else 0)


def test_to_canonical(small):
    got, want = mj.ToCanonical()(small), run(tio.ToCanonical(), small)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
        equal(got[name], want[name])


def test_a_head_cropped_flipped_and_reoriented(head):
    for mine, peer in (
        (mj.CropOrPad((40, 60, 41)), tio.CropOrPad((40, 60, 41))),
        (mj.Flip("LR"), tio.Flip("Left")),
        (mj.ToCanonical(), tio.ToCanonical()),
    ):
        got, want = mine(head), run(peer, head)
        for name in ("t1", "label"):
            same_space(got[name], want[name])
            equal(got[name], want[name])


@pytest.mark.parametrize("axes", [0, (0, 1, 2), "Left", ("Anterior", "Inferior")])
def test_flip(small, axes):
    got, want = mj.Flip(axes)(small), run(tio.Flip(axes), small)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
        equal(got[name], want[name])
