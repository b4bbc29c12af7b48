"""The other spatial transforms give TorchIO 1.2.1's numbers, on a small oblique volume of any orientation.

Indexing is compared everywhere, interpolation between the centres of the outermost voxels; where TorchIO misses a
shape or invents labels (W13, W24), what it does right is compared.
"""

import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject

import medjax as mj
from parity.peer import agree, equal, interior, read_at, run, same_space, tio, untied

SHAPE = (23, 31, 18)
PERMUTED = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
GRIDS = {"oblique": OBLIQUE, "permuted": OBLIQUE @ PERMUTED, "PIR": oriented("PIR", (1, 2, 1.5), (40, -30, 25))}


@pytest.fixture(params=GRIDS)
def small(request):
    return small_subject(GRIDS[request.param])


def same(mine, peer, subject, tolerance=0.0):
    """Indexing: the same grid and voxels, bit for bit unless told, and the dtypes that came."""
    got, want = mine(subject), run(peer, subject)
    for name, image in subject.images.items():
        same_space(got[name], want[name])
        assert got[name].dtype == image.dtype
        agree(got[name], want[name], tolerance=tolerance)


SIDES = [0, 3, (1, 2, 3), (0, 1, 2, 3, 4, 5)]


@pytest.mark.parametrize("sides", SIDES)
def test_crop(small, sides):
    same(mj.Crop(sides), tio.Crop(sides), small)


@pytest.mark.parametrize("sides", SIDES)
def test_pad(small, sides):
    same(mj.Pad(sides), tio.Pad(sides), small)


MODES = [2, -1.5, "constant", "minimum", "maximum", "mean", "median", "edge", "reflect", "symmetric", "wrap",
         "linear_ramp"]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_pad_modes(mode):
    """Statistics and ramps stand for 0 in a label map, where TorchIO's are new labels (W24)."""
    subject = small_subject()
    if mode not in (2, "constant", "edge", "reflect", "symmetric", "wrap"):
        subject = mj.Subject(t1=mj.ScalarImage(np.concatenate([blobs()[None], -2 * blobs(seed=1)[None]]), OBLIQUE))
    tolerance = 1e-6 if mode in ("mean", "median", "linear_ramp") else 0
    same(mj.Pad((1, 2, 3, 0, 20, 4), mode), tio.Pad((1, 2, 3, 0, 20, 4), mode), subject, tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_crop_and_pad_of_integers(dtype):
    data = (blobs() * 200).astype(dtype)[None]
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), label=mj.LabelMap(data, OBLIQUE))
    same(mj.Compose([mj.Crop(2), mj.Pad(4, 7)]), tio.Compose([tio.Crop(2), tio.Pad(4, padding_mode=7)]), subject)


@pytest.mark.parametrize("multiple", [4, 7, (5, 8, 3), 40])
@pytest.mark.parametrize("method", ["pad", "crop"])
def test_ensure_shape_multiple(multiple, method):
    mine, peer = (cls(multiple, method=method) for cls in (mj.EnsureShapeMultiple, tio.EnsureShapeMultiple))
    subject = small_subject()
    if method == "crop" and multiple == 40:  # one voxel: nothing to compare a range with
        subject = mj.Subject(t1=mj.ScalarImage(1 + blobs()[None], OBLIQUE))
        np.testing.assert_array_equal(mine(subject).t1.numpy(), run(peer, subject).t1.numpy())
        same_space(mine(subject).t1, run(peer, subject).t1)
    else:
        same(mine, peer, subject)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_to_orientation(small, codes):
    same(mj.ToOrientation(codes), tio.ToOrientation(codes), small)


def test_transpose(small):
    same(mj.Transpose(), tio.Transpose(), small)


def test_copy_affine():
    subject = small_subject()
    other = OBLIQUE + np.array([[0, 0.01, 0, 0.3], [0.02, 0, 0, -0.2], [0, 0, 0.01, 0.1], [0, 0, 0, 0]])
    subject = subject.replace(t2=subject.t1.replace(affine=other), label=subject.label.replace(affine=other))
    for target in ("t1", "t2"):
        same(mj.CopyAffine(target), tio.CopyAffine(target), subject)


@pytest.mark.parametrize("shape", [(11, 31, 9), (5, 7, 6), (23, 31, 18)])
def test_to_reference_space(shape):
    """Where the floor of TorchIO's ratio gives the shape asked for; where it does not its affine is off (W13)."""
    data = blobs(shape)[None]
    mine = mj.ToReferenceSpace(small_subject().t1)
    theirs = tio.ScalarImage(tensor=small_subject().t1.numpy(), affine=OBLIQUE)
    want = tio.ToReferenceSpace.from_tensor(data, theirs)
    got = mine(mj.ScalarImage(data))
    np.testing.assert_array_equal(got.numpy(), want.numpy())
    np.testing.assert_allclose(got.affine, want.affine, atol=1e-4)
    np.testing.assert_array_equal(mj.ToReferenceSpace.from_tensor(data, small_subject().t1).affine, got.affine)


@pytest.mark.parametrize("target", [(40, 37, 12), (34, -1, 21), 16])
def test_resize(small, target):
    """To shapes that TorchIO hits; a 30 or a 15 it misses here (W13)."""
    peer = tio.Resize(target)
    got, want = mj.Resize(target)(small), run(peer, small)
    assert small.t1.spatial_shape == SHAPE and got.t1.spatial_shape == want.t1.spatial_shape
    index = read_at(tio.Resize(target), small.t1)
    inside = interior(index, SHAPE)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
    agree(got.t1, want.t1, inside)
    equal(got.label, want.label, inside & untied(index))


@pytest.mark.parametrize("interpolation", ["nearest", "bspline"])
def test_resize_by_other_interpolations(interpolation):
    subject = small_subject()
    got = mj.Resize((40, 37, 25), interpolation)(subject)
    want = run(tio.Resize((40, 37, 25), image_interpolation=interpolation), subject)
    index = read_at(tio.Resize((40, 37, 25)), subject.t1)
    agree(got.t1, want.t1, interior(index, SHAPE) & untied(index))


# -- cubic B-splines


def test_affine_by_cubic_splines(small):
    parameters = {"scales": (1.1, 0.9, 1.05), "degrees": (10, -5, 15), "translation": (1, 2, -1)}
    index = read_at(tio.Affine(**parameters), small.t1)
    got = mj.Affine(**parameters, image_interpolation="bspline")(small)
    want = run(tio.Affine(**parameters, image_interpolation="bspline"), small)
    agree(got.t1, want.t1, interior(index, SHAPE))


def test_resample_by_cubic_splines():
    subject = small_subject()
    got = mj.Resample((0.8, 1.7, 1.9), "bspline")(subject)
    want = run(tio.Resample((0.8, 1.7, 1.9), image_interpolation="bspline"), subject)
    same_space(got.t1, want.t1)
    agree(got.t1, want.t1, interior(read_at(tio.Resample((0.8, 1.7, 1.9)), subject.t1), SHAPE))


# -- affine and elastic at once


@pytest.mark.parametrize("affine_first", [True, False])
def test_affine_elastic_deformation(small, affine_first):
    affine = {"scales": (1.1, 0.9, 1.05), "degrees": (10, -5, 15), "translation": (1, 2, -1), "default_pad_value": -3}
    points = np.random.default_rng(0).uniform(-1, 1, (7, 5, 6, 3)) * (3, 2, 4)
    peer = tio.AffineElasticDeformation(
        affine_first, affine_params=affine, elastic_params={"control_points": points, "max_displacement": (3, 2, 4)}
    )
    got = mj.AffineElasticDeformation(affine_first, affine, {"control_points": points})(small)
    want = run(peer, small)
    # -3 lies below every index, so that the ramp's clamped outer half voxel is told from the outside
    index = read_at(peer, small.t1)
    inside = interior(index, SHAPE)
    for name in ("t1", "label"):
        same_space(got[name], want[name])
    agree(got.t1, want.t1, inside)
    equal(got.label, want.label, inside & untied(index))
    outside = (index == -3).all(0) & (got.t1.numpy()[0] == -3)
    assert outside.sum() > 0.9 * (index == -3).all(0).sum() > 50
