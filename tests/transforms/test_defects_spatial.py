"""What TorchIO 1.2.1 gets wrong in space, by its number in the conventions, and how it goes here.

Tested elsewhere, by name: W1, W2, W3, W5, W10 in spatial/test_elastic_deformation.py; W6, W7, W9, W10, W11, W24 in
spatial/test_affine.py; W11 to W13, W15, W16, W23 in spatial/test_resample.py; W13, W14 in spatial/test_resize.py; W18,
W19 in spatial/test_crop_or_pad.py; W20 in spatial/test_to_canonical.py and test_to_orientation.py; W21 in
spatial/test_flip.py; W24 in spatial/test_pad.py.
Elsewhere too: W8 (Motion has Affine's convention), as W28 in parity/test_torchio_kspace.py, and W17 in
intensity/test_anisotropy.py.
Left out: W22 (older releases of TorchIO: the parity tests pin 1.2.1).
"""

import warnings

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject

import medjax as mj

SHAPE = (23, 31, 18)


def test_w2_in_the_voxel_frame_the_same_points_deform_voxels_alike_in_any_orientation():
    """Along L, P, S, as in TorchIO, they do not."""
    points = np.random.default_rng(2).uniform(-3, 3, (6, 5, 7, 3)).astype(np.float32)
    turned = np.array([[0, 0, -1.0, 30], [1, 0, 0, -7], [0, -1, 0, 12], [0, 0, 0, 1]])
    voxels = {}
    for frame in ("voxel", "world"):
        t = mj.ElasticDeformation(points, frame=frame)
        voxels[frame] = [t(mj.ScalarImage(blobs()[None], affine)).numpy() for affine in (np.eye(4), turned)]
    np.testing.assert_allclose(*voxels["voxel"], atol=1e-4)
    assert np.abs(np.subtract(*voxels["world"])).max() > 0.05
    lps = points * [
        -1,
        -1,
        1,
    ]  # with the identity for affine, R = -L and A = -P run along voxel axes 0 and 1, backwards
    same = mj.ElasticDeformation(lps[::-1, ::-1], frame="voxel")(mj.ScalarImage(blobs()[None])).numpy()
    assert np.abs(same - voxels["world"][0]).max() < 0.05  # but for the quarter of a voxel by which ITK's grid is wider


def test_w4_capped_displacements_do_not_fold_a_thin_stack():
    t = mj.RandomElasticDeformation(max_displacement=(7.5, 7.5, 40.0), capped=True)
    thin = mj.Subject(t1=mj.ScalarImage(blobs((40, 40, 20))[None]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(3):
            params = t.sample(jax.random.key(seed), thin)
            points = np.asarray(params["draw"]["control_points"])
            assert (np.abs(points) < np.array([5.03, 5.03, 2.54])).all() and np.abs(points[..., 2]).max() > 1.5
            grid = np.stack(np.meshgrid(*[np.arange(n, dtype=float) for n in (40, 40, 20)], indexing="ij"), -1)
            moved = t.apply(thin.replace(at=mj.Points(grid.reshape(-1, 3))), params).at.xyz
            slopes = np.stack(np.gradient(np.asarray(moved).reshape(*grid.shape), axis=(0, 1, 2)), -1)
            assert np.linalg.det(slopes).min() > 0


def test_w4_a_thin_stack_is_warned_of_before_it_folds():
    """20 slices of 1 mm leave 5 mm between control points: TorchIO's default of 7.5 mm folds."""
    image = mj.ScalarImage(blobs((40, 40, 20))[None])
    with pytest.warns(UserWarning, match=r"exceeds half the spacing of control points, .* 2\.53\) mm.*may fold"):
        mj.RandomElasticDeformation()(image, jax.random.key(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mj.RandomElasticDeformation(max_displacement=(5.0, 5.0, 2.5))(image, jax.random.key(0))


def test_w4_displacements_are_in_mm_whatever_the_spacing():
    """The same image with voxels of 1 and of 2 mm: 4 mm are 4 voxels of the one and 2 of the other."""
    points = np.zeros((5, 5, 5, 3))
    points[..., 0] = -4.0  # everything is read 4 mm further right
    for spacing in (1.0, 2.0):
        got = mj.ElasticDeformation(points)(mj.ScalarImage(blobs()[None], np.diag([spacing] * 3 + [1])))
        voxels = int(4 / spacing)
        np.testing.assert_allclose(got.numpy()[:, : 23 - voxels], blobs()[None, voxels:], atol=1e-4)


def test_w6_scales_in_object_order_do_not_shear_what_is_turned():
    """TorchIO scales along world axes after the rotation; order='object' before it, so that right angles stay right."""
    turn = {"scales": (1.5, 1, 1), "degrees": (0, 0, 45)}
    corner = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    image = mj.ScalarImage(np.zeros((1, 9, 9, 9), np.float32))
    angle = {}
    for order in ("world", "object"):
        subject = mj.Subject(t1=image, corner=mj.Points(corner))
        at, one, other = np.asarray(mj.Affine(**turn, order=order)(subject).corner.xyz, float)
        first, second = one - at, other - at
        angle[order] = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        if order == "object":
            np.testing.assert_allclose([np.linalg.norm(first), np.linalg.norm(second)], [1.5, 1], atol=1e-5)
    assert abs(angle["object"]) < 1e-6 and abs(angle["world"]) > 0.3


@pytest.mark.parametrize("make", [
    lambda **fills: mj.Affine(translation=(15, 0, 0), **fills),
    lambda **fills: mj.ElasticDeformation(np.full((5, 5, 5, 3), 15.0), **fills),
    lambda **fills: mj.Resample((SHAPE, OBLIQUE @ np.array(np.eye(4) + 5 * np.eye(4, k=3))), **fills),
    lambda **fills: mj.AffineElasticDeformation(
        True, {"translation": (15, 0, 0), **fills}, {"control_points": np.zeros((4, 4, 4, 3))}
    ),
], ids=["Affine", "ElasticDeformation", "Resample", "AffineElasticDeformation"])  # fmt: skip
def test_w11_every_transform_that_shows_the_outside_takes_both_fills(make):
    got = make(default_pad_value=-5, default_pad_label=7)(small_subject())
    assert 0.05 < np.mean(got.t1.numpy() == -5) < 0.95
    np.testing.assert_array_equal(got.label.numpy() == 7, got.t1.numpy() == -5)


def test_w14_no_transform_remembers_what_it_has_seen():
    """Its leaves, its structure and its text are the same before and after, whatever it was used on."""
    used = [
        mj.Resize((9, -1, 12)), mj.Resample("t2"), mj.CropOrPad(mask_name="label"), mj.ToCanonical(),
        mj.RandomCrop(7, label_name="label"), mj.EnsureShapeMultiple(4), mj.CopyAffine("t1"),
    ]  # fmt: skip
    for t in used:
        before, text = jax.tree.flatten(t), repr(t)
        for shape in (SHAPE, (12, 14, 10)):
            subject = small_subject(shape=shape)
            t(subject.replace(t2=subject.t1), jax.random.key(0))
        leaves, structure = jax.tree.flatten(t)
        assert structure == before[1] and repr(t) == text
        for now, then in zip(leaves, before[0], strict=True):
            np.testing.assert_array_equal(now, then)


def test_w15_no_axis_can_vanish_in_a_chain_either():
    for t in (mj.Resample((1, 2, 60)), mj.Compose([mj.Resample(60.0), mj.Flip(0)])):
        with pytest.raises(ValueError, match=r"no voxels.*larger than the image"):
            t(small_subject())
    assert mj.Compose([mj.Resample(60.0), mj.CropOrPad(4)])(small_subject()).t1.spatial_shape == (4, 4, 4)


@pytest.mark.parametrize("t", [mj.Affine(translation=0.5), mj.Resize((46, 62, 36))], ids=["Affine", "Resize"])
def test_w16_interpolated_integers_are_not_cut_towards_zero(t):
    """TorchIO's mean is half a level nearer to zero."""
    data = np.random.default_rng(0).integers(-200, 200, (1, *SHAPE)).astype(np.int16)
    got = t(mj.ScalarImage(data, np.eye(4)))
    want = t(mj.ScalarImage(data.astype(np.float32), np.eye(4)))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.numpy(), want.numpy())
    assert np.any(got.numpy() != np.round(got.numpy()))


def test_w21_every_name_of_an_axis_is_taken():
    data = blobs((5, 7, 6))[None]
    for axis, names in enumerate((("Width", "Left", "R", 0), ("Height", "Anterior", "P", 1), ("Depth", "IS", 2))):
        for name in names:
            np.testing.assert_array_equal(mj.Flip(name)(data), np.flip(data, axis + 1))


def test_w21_what_was_done_in_the_world_can_be_read_from_landmarks():
    """TorchIO leaves affine and history apart: here a frame of points carries the applied transform."""
    frame = np.vstack([np.zeros(3), np.eye(3)]) * 5 + (205, -140, 330)
    subject = small_subject().replace(frame=mj.Points(frame))
    got = mj.Compose([mj.Flip("LR"), mj.Affine((1.1, 1, 1), (0, 0, 20), (1, 2, 3))])(subject)
    linear = (np.asarray(got.frame.xyz[1:]) - np.asarray(got.frame.xyz[:1])).T / 5
    turn = np.deg2rad(20)
    rotated = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    normal = OBLIQUE[:3, 0] / np.linalg.norm(OBLIQUE[:3, 0])  # the mirror is that of the grid
    np.testing.assert_allclose(
        linear, np.diag([1.1, 1, 1]) @ rotated @ (np.eye(3) - 2 * np.outer(normal, normal)), atol=1e-4
    )


@pytest.mark.parametrize("shape", [(3, 2, 30), (1, 9, 12)])
def test_w23_thin_images_can_be_antialiased(shape):
    """TorchIO's recursive filter needs four voxels along every axis."""
    data = 1 + blobs(shape)[None]
    got = mj.Resample((1, 1, 2.5), antialias=True)(mj.ScalarImage(data))
    assert got.spatial_shape == (*shape[:2], int(shape[2] / 2.5))
    assert np.all(got.numpy() >= data.min()) and np.all(got.numpy() <= data.max())
    flat = mj.Resample((1, 1, 2.5), antialias=True)(mj.ScalarImage(np.ones_like(data)))
    np.testing.assert_allclose(flat.numpy(), 1, atol=1e-6)


def test_w25_an_image_is_intensities_or_labels_and_every_transform_agrees():
    """There is no image that an affine takes for intensities and a resampling for labels."""
    with pytest.raises(TypeError, match="ScalarImage for intensities or LabelMap for labels"):
        mj.Image(blobs()[None])
    data = (4 * (blobs() > 0.5)).astype(np.uint8)[None]
    for t in (
        mj.Affine(degrees=20),
        mj.Resample(1.3),
        mj.ElasticDeformation(np.full((4, 4, 4, 3), 0.4)),
        mj.Resize(19),
    ):
        got = t(mj.Subject(image=mj.ScalarImage(data, OBLIQUE), label=mj.LabelMap(data, OBLIQUE)))
        assert got.image.dtype == np.float32 and len(np.unique(got.image.numpy())) > 10
        assert got.label.dtype == np.uint8 and set(np.unique(got.label.numpy())) == {0, 4}


def test_w26_the_median_of_more_voxels_than_torch_can_sort():
    """2^24 and more: padding a volume of 256^3 by its median fails in TorchIO, or is at its limit."""
    data = np.zeros((1, 2, 2900, 2900), np.int16)
    data[0, 1], data[0, 0, :3] = 7, 9  # more than half of them are 7 or 9
    assert data.size > 2**24
    got = mj.Pad((0, 1, 0, 0, 0, 0), "median")(data)
    assert np.median(data) == 7
    np.testing.assert_array_equal(got[0, 2], 7)
