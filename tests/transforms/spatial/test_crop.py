"""Crop is a slice. RandomCrop: the places drawn, what they contain, and the whole volume that the patch is a box of."""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, small_subject
from scipy.stats import chisquare

import medjax as mj

SHAPE = (23, 31, 18)
LITTLE = (5, 4, 3)
KEYS = jax.random.split(jax.random.key(7), 1200)


def numbered(shape=LITTLE):
    """An image (1, I, J, K) whose voxels hold their own place in the array."""
    return np.arange(np.prod(shape), dtype=np.int32).reshape(1, *shape)


def first_voxels(t, subject, name="t1"):
    """Where `numbered` boxes begin, (N, 3), by the voxel at their corner, for every key."""
    run = jax.jit(jax.vmap(lambda key: t.apply(subject, t.sample(key, subject))[name].data[0, 0, 0, 0]))
    return np.stack(np.unravel_index(np.asarray(run(KEYS)), subject[name].spatial_shape), -1)


def counted(places, among):
    """How often each of the places `among` was drawn; the places are those and no others."""
    want = [tuple(p) for p in among]
    found = [want.index(tuple(p)) for p in places.tolist()]
    return np.bincount(found, minlength=len(want))


# -- Crop


@pytest.mark.parametrize("cropping, low, high", [
    (2, (2, 2, 2), (2, 2, 2)), ((1, 2, 3), (1, 2, 3), (1, 2, 3)), ((0, 1, 2, 3, 4, 5), (0, 2, 4), (1, 3, 5)),
])  # fmt: skip
def test_a_crop_is_a_slice_and_nothing_moves_in_the_world(cropping, low, high):
    data = np.random.default_rng(0).integers(-500, 500, (2, *SHAPE)).astype(np.int16)
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), label=mj.LabelMap((data > 0).astype(np.uint8), OBLIQUE))
    got = mj.Crop(cropping)(subject)
    box = (slice(None), *(slice(a, n - b) for a, b, n in zip(low, high, SHAPE)))
    for name in ("t1", "label"):
        assert got[name].dtype == subject[name].dtype
        np.testing.assert_array_equal(got[name].numpy(), subject[name].numpy()[box])
        np.testing.assert_array_equal(got[name].affine[:3, :3], OBLIQUE[:3, :3])
        np.testing.assert_allclose(got[name].affine[:3, 3], (OBLIQUE @ [*low, 1])[:3], atol=1e-12)


def test_every_image_is_cropped_on_its_own():
    other = mj.ScalarImage(blobs((9, 8, 7))[None], OBLIQUE @ np.diag([2.0, 3, 2, 1]))
    got = mj.Crop((1, 0, 2))(small_subject().replace(other=other))
    assert got.t1.spatial_shape == (21, 31, 14)
    np.testing.assert_array_equal(got.other.numpy(), other.numpy()[:, 1:-1, :, 2:-2])


def test_crops_add_up_and_the_way_back_fills_with_zeros():
    subject = small_subject()
    t = mj.Compose([mj.Crop((1, 0, 2, 3, 0, 4)), mj.Crop((2, 1, 0, 0, 3, 0))])
    params = t.sample(None, subject)
    got = t(subject)
    np.testing.assert_array_equal(got.t1.numpy(), mj.Crop((3, 1, 2, 3, 3, 4))(subject).t1.numpy())
    back = t.invert(got, params, like=subject)
    for name in ("t1", "label"):
        want = np.zeros_like(subject[name].numpy())
        want[:, 3:-1, 2:-3, 3:-4] = subject[name].numpy()[:, 3:-1, 2:-3, 3:-4]
        np.testing.assert_array_equal(back[name].numpy(), want)
        np.testing.assert_array_equal(back[name].affine, subject[name].affine)


def test_a_crop_of_nothing_changes_nothing():
    subject = small_subject()
    np.testing.assert_array_equal(mj.Crop(0)(subject).t1.numpy(), subject.t1.numpy())


# -- RandomCrop: places


def test_a_box_lies_anywhere_with_the_same_probability():
    subject = mj.Subject(t1=mj.ScalarImage(numbered()))
    places = first_voxels(mj.RandomCrop((3, 2, 3)), subject)
    counts = counted(places, [(i, j, 0) for i in range(3) for j in range(3)])
    assert chisquare(counts).pvalue > 1e-3


def test_a_voxel_of_the_label_is_chosen_each_with_the_same_probability():
    """A box of one voxel is the voxel chosen; those at the border, and of any channel, count like the others."""
    mask = np.zeros((2, *LITTLE), np.uint8)
    voxels = [(0, 0, 0), (4, 3, 2), (2, 1, 1), (0, 3, 1), (3, 0, 2), (4, 0, 0)]
    for number, voxel in enumerate(voxels):
        mask[number % 2][voxel] = 1 + number
    subject = mj.Subject(t1=mj.ScalarImage(numbered(), OBLIQUE), label=mj.LabelMap(mask, OBLIQUE))
    places = first_voxels(mj.RandomCrop(1, label_name="label"), subject)
    assert chisquare(counted(places, voxels)).pvalue > 1e-3
    some = first_voxels(mj.RandomCrop(1, label_name="label", labels=(2, 5)), subject)
    assert chisquare(counted(some, [voxels[1], voxels[4]])).pvalue > 1e-3


def test_every_crop_around_a_label_contains_a_voxel_of_it():
    """Its centre is a voxel of the label, unless the border of the image is nearer than half the box."""
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0, 0, 30, 17] = mask[0, 22, 0, 0] = mask[0, 11, 14, 9] = mask[0, 3, 28, 5] = 7
    subject = mj.Subject(t1=mj.ScalarImage(numbered(SHAPE), OBLIQUE), label=mj.LabelMap(mask, OBLIQUE))
    size = np.array((5, 4, 7))
    t = mj.RandomCrop(size, label_name="label", labels=[7])
    places = first_voxels(t, subject)
    voxels = np.argwhere(mask[0])
    centred = np.clip(voxels - size // 2, 0, np.array(SHAPE) - size)
    counts = counted(places, centred)
    assert chisquare(counts).pvalue > 1e-3
    assert all((mask[0][tuple(slice(p, p + n) for p, n in zip(place, size))] == 7).any() for place in places)


def test_without_a_voxel_of_the_label_the_place_is_anywhere():
    empty = mj.LabelMap(np.zeros((1, *LITTLE), np.uint8))
    subject = mj.Subject(t1=mj.ScalarImage(numbered()), label=empty)
    places = first_voxels(mj.RandomCrop((4, 3, 3), label_name="label"), subject)
    assert chisquare(counted(places, [(i, j, 0) for i in range(2) for j in range(2)])).pvalue > 1e-3


def test_images_are_cropped_at_one_place_and_keep_their_dtype():
    data = numbered(SHAPE)
    subject = mj.Subject(t1=mj.ScalarImage(data, OBLIQUE), label=mj.LabelMap(data.astype(np.int16), OBLIQUE))
    got = mj.RandomCrop((6, 5, 4))(subject, jax.random.key(3))
    assert got.t1.dtype == np.int32 and got.label.dtype == np.int16
    np.testing.assert_array_equal(got.t1.numpy(), got.label.numpy())
    start = np.array(np.unravel_index(got.t1.numpy()[0, 0, 0, 0], SHAPE))
    box = tuple(slice(a, a + n) for a, n in zip(start, (6, 5, 4)))
    np.testing.assert_array_equal(got.t1.numpy()[0], data[0][box])
    np.testing.assert_allclose(got.t1.affine[:3, 3], (OBLIQUE @ [*start, 1])[:3], atol=1e-9)


def test_padding_of_a_batch_is_never_cropped():
    subjects = [
        mj.Subject(t1=mj.ScalarImage(np.ones((1, *shape), np.float32)), label=mj.LabelMap(np.ones((1, *shape), np.uint8)))
        for shape in ((5, 9, 6), (8, 6, 7))
    ]  # fmt: skip
    for options in ({}, {"label_name": "label"}):
        got = mj.RandomCrop(5, **options).batch(mj.stack(subjects * 4, shape=(9, 9, 9)), jax.random.key(0))
        assert got.t1.shape == (8, 1, 5, 5, 5) and np.all(np.asarray(got.t1.data) == 1)


def test_the_label_may_lie_on_another_grid_than_what_is_cropped():
    """Twice as fine as the image, and not cropped itself: the box must hold the voxel where it is in the world."""
    fine = np.zeros((1, 40, 44, 36), np.uint8)
    fine[0, 33, 7, 29] = 1
    data = np.zeros((1, 20, 22, 18), np.float32)
    data[0, 16, 3, 14] = 1  # where that voxel lies in the image
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = 0.5
    subject = mj.Subject(t1=mj.ScalarImage(data, affine), label=mj.LabelMap(fine, np.eye(4)))
    got = mj.RandomCrop(3, label_name="label", include=["t1"])(subject, jax.random.key(0))
    assert got.t1.numpy()[0, 1, 1, 1] == 1
    assert got.label.spatial_shape == (40, 44, 36)


# -- RandomCrop after moves


def dotted(voxel, affine):
    """A subject of a Gaussian at a voxel, 1.5 voxels wide, that voxel as a label, and as a landmark."""
    distance = ((np.moveaxis(np.indices(SHAPE), 0, -1) - voxel) ** 2).sum(-1)
    mask = np.zeros((1, *SHAPE), np.uint8)
    mask[0][tuple(voxel)] = 1
    return mj.Subject(
        t1=mj.ScalarImage(np.exp(-distance / 4.5)[None].astype(np.float32), affine),
        label=mj.LabelMap(mask, affine),
        mark=mj.Points((np.asarray(affine) @ [*voxel, 1])[None, :3]),
    )


MOVES = [mj.RandomAffine(0.1, 15, 3), mj.RandomElasticDeformation(max_displacement=2.5, locked_borders=0)]


@pytest.mark.parametrize("moves", [MOVES, MOVES[::-1]], ids=["affine, elastic", "elastic, affine"])
def test_a_crop_follows_the_label_through_moves_and_is_a_box_of_the_whole(moves):
    voxel, size = np.array((9, 18, 7)), 9
    subject = dotted(voxel, OBLIQUE)
    t = mj.Compose([*moves, mj.RandomCrop(size, label_name="label")])
    assert repr(t).count("one gather") == 1
    for seed in range(4):
        params = t.sample(jax.random.key(seed), subject)
        patch = t.apply(subject, params)
        whole = mj.Compose(moves).apply(subject, {**params, "members": params["members"][:2]})
        into = np.linalg.inv(whole.t1.affine)
        corner = (into @ patch.t1.affine[:, 3])[:3]
        first = np.round(corner).astype(int)
        np.testing.assert_allclose(corner, first, atol=1e-4)
        box = (slice(None), *(slice(a, a + size) for a in first))
        np.testing.assert_allclose(patch.t1.numpy(), whole.t1.numpy()[box], atol=1e-4)
        mark = (into @ [*np.asarray(whole.mark.xyz[0]), 1])[:3]
        centred = np.clip(np.round(mark).astype(int) - size // 2, 0, np.array(SHAPE) - size)
        assert np.abs(first - centred).max() <= 1 and np.abs(mark - voxel).max() > 0.5
        assert np.all(mark > first - 0.5) and np.all(mark < first + size - 0.5)
        peak = np.array(np.unravel_index(np.argmax(patch.t1.numpy()[0]), (size,) * 3))
        assert np.abs(peak + first - mark).max() < 1.2


def test_a_crop_follows_the_label_through_a_resampling_and_a_flip():
    subject = dotted(np.array((19, 4, 12)), OBLIQUE)
    t = mj.Compose([mj.Resample((1.3, 1.4, 1.2)), mj.Flip((0, "AP")), mj.RandomCrop(7, label_name="label")])
    got = t(subject, jax.random.key(0))
    np.testing.assert_array_equal(got.t1.spatial_shape, (7, 7, 7))
    at = (np.linalg.inv(got.t1.affine) @ [*np.asarray(got.mark.xyz[0]), 1])[:3]
    assert np.all(at > -0.5) and np.all(at < 6.5)
    assert np.abs(at - np.unravel_index(np.argmax(got.t1.numpy()[0]), (7, 7, 7))).max() < 1
