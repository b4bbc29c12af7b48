"""What goes wrong in MONAI's lazy resampling, by the number of its report, and how it goes here.

A run that is read once must show what its members show one after the other: each with its own interpolation and
padding, in their order, with every crop carried out, and nothing half a voxel off.
"""

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, blobs, oriented, small_subject
from scipy.ndimage import center_of_mass

import medjax as mj
from medjax.transforms.program import flatten, runs_of

SHAPE = (16, 14, 12)


def one_by_one(members, subject):
    """The members called one after the other."""
    for t in members:
        subject = t(subject)
    return subject


def runs(*members):
    return [len(group) for group in runs_of(flatten(mj.Compose(members)))]


def alike(got, want, atol=1e-4, share=0.0):
    for name, image in want.images.items():
        np.testing.assert_allclose(got[name].affine, image.affine, atol=1e-6)
        apart = np.abs(got[name].numpy().astype(float) - image.numpy())
        assert np.mean(apart > (atol if isinstance(image, mj.ScalarImage) else 0)) <= share


# -- #6850: Spacing(mode="nearest") in a lazy Compose was read linearly, and its padding was lost


def test_6850_a_single_nearest_member_is_read_by_nearest():
    data = np.random.default_rng(0).integers(0, 3, (1, *SHAPE)).astype(np.float32)
    image = mj.ScalarImage(data, np.eye(4))
    for t in (mj.Resample(1.5, image_interpolation="nearest"), mj.Resize((11, 9, 8), "nearest")):
        assert set(np.unique(mj.Compose([t])(image).numpy())) == {0, 1, 2}
    assert len(np.unique(mj.Compose([mj.Resample(1.5)])(image).numpy())) > 30


@pytest.mark.parametrize("modes", [("nearest", "linear"), ("cubic", "nearest"), ("linear", "cubic")])
def test_6850_each_member_keeps_its_interpolation(modes):
    members = [
        mj.Affine(degrees=(5, 0, 10), image_interpolation=modes[0]),
        mj.Resample((1.2, 1.1, 1.4), image_interpolation=modes[1]),
    ]
    subject = small_subject(np.eye(4), SHAPE)
    alike(mj.Compose(members)(subject), one_by_one(members, subject), share=2e-3)


@pytest.mark.parametrize("fills", [("minimum", "edge"), (5, -5), ("edge", 0), ("reflect", "mean")])
def test_6850_each_member_keeps_its_padding(fills):
    """Shifts that show all of what each of them fills."""
    members = [
        mj.Affine(translation=(6, 0, 0), default_pad_value=fills[0], default_pad_label=1),
        mj.Affine(translation=(0, -4, 0), default_pad_value=fills[1], default_pad_label=2),
    ]
    subject = small_subject(np.eye(4), SHAPE)
    got = mj.Compose(members)(subject)
    alike(got, one_by_one(members, subject))
    assert np.all(got.label.numpy()[:, :6, :10] == 1) and np.all(got.label.numpy()[:, :, 10:] == 2)


@pytest.mark.parametrize("mode", ["edge", "reflect", "symmetric", "wrap", "linear_ramp", "minimum", 7])
def test_6850_a_padding_mode_is_kept_beside_resampling(mode):
    """Away from where a number and the image meet, which two readings blur and one does not."""
    members = [mj.Pad((4, 0, 0), mode), mj.Resize((48, 14, 12))]
    image = mj.ScalarImage(blobs(SHAPE)[None])
    got, want = mj.Compose(members)(image).numpy(), one_by_one(members, image).numpy()
    clear = np.ones(48, bool) if mode in ("edge", "reflect", "symmetric", "wrap", "linear_ramp") else ~blurred()
    np.testing.assert_allclose(got[:, clear], want[:, clear], atol=1e-5)
    members = members[::-1]
    got, want = mj.Compose(members)(image).numpy(), one_by_one(members, image).numpy()
    np.testing.assert_allclose(got, want, atol=1e-5)


def blurred():
    """Where 24 voxels read at 48 places mix the padding, 4 on each side, with the image."""
    at = (np.arange(48) + 0.5) / 2 - 0.5
    return ((at > 3) & (at < 4)) | ((at > 19) & (at < 20))


def test_6850_labels_keep_their_own_interpolation_beside_that_of_images():
    members = [mj.Resample(1.3, "linear", "nearest"), mj.Affine(degrees=10, image_interpolation="linear")]
    subject = small_subject(np.eye(4), SHAPE)
    got = mj.Compose(members)(subject)
    assert got.label.dtype == np.uint8 and set(np.unique(got.label.numpy())) <= {0, 1, 3}
    members = [mj.Resample(1.3, "linear", "nearest"), mj.Affine(degrees=10, label_interpolation="linear")]
    assert runs(*members) == [1, 1]
    alike(mj.Compose(members)(subject), one_by_one(members, subject), share=2e-3)


# -- #6439, #6450: transforms that cannot be deferred ran before those that were still pending


def test_6439_what_is_not_spatial_runs_in_its_place():
    """The statistics are those of the turned, cropped image, filled with its minimum; not those of the whole one."""
    turn, cut = mj.Affine(degrees=(0, 0, 30), default_pad_value=0), mj.Crop((4, 3, 2))
    subject = small_subject(np.eye(4), SHAPE)
    members = [turn, cut, mj.ZNormalization(), mj.Flip(0)]
    got = mj.Compose(members)(subject)
    alike(got, one_by_one(members, subject))
    assert abs(got.t1.numpy().mean()) < 1e-4 and abs(got.t1.numpy().std() - 1) < 1e-2
    other = mj.Compose([members[2], turn, cut, members[3]])(subject)
    assert np.abs(got.t1.numpy() - other.t1.numpy()).max() > 0.1


def test_6450_a_member_that_reads_voxels_sees_what_came_before_it():
    """A crop about the label's box, after the label was moved; and a function of the user's."""
    seen = []

    def look(data):
        seen.append(data.shape)
        return data * 2

    members = [
        mj.Affine(translation=(3, -2, 1)), mj.CropOrPad(mask_name="label"), mj.Lambda(look), mj.Affine(degrees=(0, 0, 5))
    ]  # fmt: skip
    label = np.zeros((1, *SHAPE), np.uint8)
    label[:, 2:7, 6:11, 3:8] = 1
    subject = mj.Subject(t1=mj.ScalarImage(blobs(SHAPE)[None]), label=mj.LabelMap(label))
    got = mj.Compose(members)(subject)
    assert set(seen) == {(1, 5, 5, 5)}
    want = members[3](mj.ScalarImage(2 * blobs(SHAPE)[None, 2:7, 6:11, 3:8], got.t1.affine))
    np.testing.assert_allclose(got.t1.numpy(), want.numpy(), atol=1e-4)
    np.testing.assert_array_equal(got.t1.affine[:3, 3], (5, 4, 4))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_6439_members_of_a_run_keep_their_order(order):
    """Turn, mirror and shift do not commute: where a dot comes to tells in which order they were."""
    point = np.array([10.0, 4, 7])
    centre = (np.array(SHAPE) - 1) / 2

    def turn(p):
        x, y, z = p - centre
        return centre + np.array((-y, x, z))

    steps = [
        (mj.Affine(degrees=(0, 0, 90)), turn),
        (mj.Flip(0), lambda p: np.array([15 - p[0], p[1], p[2]])),
        (mj.Affine(translation=(1.5, 0, -1)), lambda p: p + np.array((1.5, 0, -1))),
    ]
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    image = mj.ScalarImage(np.exp(-((index - point) ** 2).sum(-1) / 2)[None].astype(np.float32))
    members = [steps[i][0] for i in order]
    assert runs(*members) == [3]
    for i in order:
        point = steps[i][1](point)
    np.testing.assert_allclose(center_of_mass(mj.Compose(members)(image).numpy()[0]), point, atol=0.03)


# -- #6752: a crop in a lazy chain did not crop


CROPS = {
    "Crop": mj.Crop((4, 3, 2)), "CropOrPad": mj.CropOrPad((8, 8, 8)), "RandomCrop": mj.RandomCrop((8, 8, 8)),
    "RandomCrop around a label": mj.RandomCrop((8, 8, 8), label_name="label"),
    "EnsureShapeMultiple": mj.EnsureShapeMultiple((9, 8, 8), method="crop"),
}  # fmt: skip


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("place", ["middle", "last"])
def test_6752_a_crop_crops_wherever_it_stands(crop, place):
    around = [mj.Flip(0), mj.Affine(degrees=(0, 0, 7), default_pad_value=0)]
    at = {"middle": 1, "last": 2}[place]
    t = mj.Compose([*around[:at], crop, *around[at:]])
    assert runs(*t.members) == [3]
    size = (9, 8, 8) if isinstance(crop, mj.EnsureShapeMultiple) else (8, 8, 8)
    subject = small_subject(np.eye(4), SHAPE)
    params = t.sample(jax.random.key(0), subject)
    got = t.apply(subject, params)
    assert got.t1.spatial_shape == got.label.spatial_shape == size
    if place == "last":  # then it is a box of what there is without it
        whole = mj.Compose(around)(subject)
        first = np.round(np.linalg.inv(whole.t1.affine) @ got.t1.affine)[:3, 3].astype(int)
        box = (slice(None), *(slice(f, f + n) for f, n in zip(first, size)))
        np.testing.assert_allclose(got.t1.numpy(), whole.t1.numpy()[box], atol=1e-5)
        np.testing.assert_array_equal(got.label.numpy(), whole.label.numpy()[box])


def test_6752_a_crop_is_of_the_grid_that_there_is_when_its_turn_comes():
    """Resampled to half as many voxels, then 2 off each side: not 2 of the input's."""
    image = mj.ScalarImage(np.arange(16, dtype=np.float32)[None, :, None, None] * np.ones((1, 16, 14, 12), np.float32))
    got = mj.Compose([mj.Resize((8, 14, 12)), mj.Crop((2, 0, 0))])(image)
    np.testing.assert_allclose(got.numpy()[0, :, 5, 5], [4.5, 6.5, 8.5, 10.5], atol=1e-5)
    got = mj.Compose([mj.Crop((2, 0, 0)), mj.Resize((8, 14, 12))])(image)
    np.testing.assert_allclose(got.numpy()[0, :, 5, 5], 2 + (np.arange(8) + 0.5) * 1.5 - 0.5, atol=1e-5)


def test_6752_the_label_that_a_crop_follows_may_come_after_moves():
    label = np.zeros((1, *SHAPE), np.uint8)
    label[0, 9, 6, 7] = 1
    subject = mj.Subject(t1=mj.ScalarImage(blobs(SHAPE)[None]), label=mj.LabelMap(label))
    t = mj.Compose([mj.Flip((0, 1)), mj.Affine(degrees=(0, 0, 90)), mj.RandomCrop(5, label_name="label")])
    got = t(subject, jax.random.key(0))
    assert np.argwhere(got.label.numpy()[0] == 1).tolist() == [[2, 2, 2]]


# -- half a voxel off: Resize, Zoom, Spacing and flips whose grids and affines disagree


@pytest.mark.parametrize("affine", [np.eye(4), OBLIQUE, oriented("LPS", (1, 2, 1.5))], ids=["RAS", "oblique", "LPS"])
@pytest.mark.parametrize("members", [
    [mj.Resize((32, 28, 24))], [mj.Resize((8, 7, 24))], [mj.Resample(0.8)], [mj.Resample((1.7, 2.3, 2.1))],
    [mj.Flip(0), mj.Resize((25, 9, 17)), mj.ToOrientation("PIR"), mj.Crop(1)],
    [mj.Pad(3), mj.Resample(0.9), mj.Transpose(), mj.CropOrPad((21, 21, 21)), mj.Flip(2)],
    [mj.Resize((9, 8, 7)), mj.Resize((16, 14, 12))],
], ids=["finer", "coarser", "spacing", "coarser spacing", "turned", "padded", "there and back"])  # fmt: skip
def test_nothing_is_half_a_voxel_off(members, affine):
    """An image of its own world positions shows, at every voxel, where the affine says that the voxel is."""
    at = affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + affine[:3, 3:]
    middle = affine @ [*(np.array(SHAPE) - 1) / 2, 1]
    image = mj.ScalarImage((at - middle[:3, None]).reshape(3, *SHAPE).astype(np.float32), affine)
    flips = [t for t in members if isinstance(t, mj.Flip)]
    if flips:  # a mirror moves the content: what is at each place is then its mirror image
        members = [t for t in members if not isinstance(t, mj.Flip)]
    got = mj.Compose(members)(image)
    index = np.indices(got.spatial_shape).reshape(3, -1)
    world = got.affine[:3, :3] @ index + got.affine[:3, 3:] - middle[:3, None]
    source = np.linalg.inv(affine) @ np.vstack([world + middle[:3, None], np.ones(world.shape[1])])
    inside = np.all([(c > 1) & (c < n - 2) for c, n in zip(source, SHAPE)], 0)
    assert inside.mean() > 0.05
    np.testing.assert_allclose(got.numpy().reshape(3, -1)[:, inside], world[:, inside], atol=2e-3)


def test_a_flip_in_a_chain_is_a_mirror_about_the_middle_and_not_half_a_voxel_beside_it():
    data = blobs(SHAPE)[None]
    got = mj.Compose([mj.Flip(0), mj.Resize((32, 28, 24)), mj.Flip(0)])(mj.ScalarImage(data, OBLIQUE))
    want = mj.Resize((32, 28, 24))(mj.ScalarImage(data, OBLIQUE))
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-4)
    np.testing.assert_allclose(got.affine, want.affine, atol=1e-9)


def test_a_zoom_by_two_and_back_of_a_linear_ramp_changes_nothing_inside():
    ramp = np.indices(SHAPE).sum(0).astype(np.float32)[None]
    for t in (
        mj.Compose([mj.Affine(scales=2, image_interpolation="linear"), mj.Affine(scales=0.5)]),
        mj.Compose([mj.Resample(0.5), mj.Resample(1.0)]),
    ):
        got = t(mj.ScalarImage(ramp)).numpy()
        inner = (slice(None), *[slice(5, -5)] * 3)
        np.testing.assert_allclose(got[inner], ramp[inner], atol=1e-3)
