"""The patch queue: what it gives, in which order, and that it goes on where it was left."""

import threading

import jax
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.patches.schedule import Schedule

KEY = jax.random.key(0)
SHAPE = (16, 14, 15)
PIPELINE = mj.Compose(
    [mj.ZNormalization(), mj.RandomAffine(p=0.75), mj.RandomFlip((0, 1)), mj.RandomBiasField(p=0.5), mj.RandomNoise()]
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Four subjects in files."""
    folder, made = tmp_path_factory.mktemp("queue"), []
    for i in range(4):
        subject = small_subject(OBLIQUE, SHAPE, seed=i)
        for name in ("t1", "label"):
            subject[name].save(folder / f"{i}_{name}.nii.gz")
        made.append(mj.Subject(t1=mj.ScalarImage(folder / f"{i}_t1.nii.gz"),
                               label=mj.LabelMap(folder / f"{i}_label.nii.gz"), number=i))  # fmt: skip
    return made


def queue(subjects, sampler=None, pipeline=PIPELINE, **options):
    given = {"samples_per_volume": 5, "max_length": 12, "epochs": 2, **options}
    return mj.PatchQueue(mj.SubjectsDataset(subjects, pipeline), sampler or mj.UniformSampler(6), 4, KEY, **given)


def same(one, other):
    for a, b in zip(jax.tree.leaves(mj.Subject(one.images)), jax.tree.leaves(mj.Subject(other.images)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("sampler", [mj.UniformSampler(6), mj.LabelSampler(6, "label", {3: 1, 1: 2})])
def test_every_patch_is_the_box_of_its_transformed_volume(subjects, sampler):
    batches = list(queue(subjects, sampler))
    assert len(batches) == 10 and batches[0].t1.shape == (4, 1, 6, 6, 6)
    for batch in batches[::3]:
        for patch in mj.unstack(batch):
            whole = PIPELINE(subjects[patch.number].load(), patch["key"])
            low, high = np.asarray(patch[mj.LOCATION])[:3], np.asarray(patch[mj.LOCATION])[3:]
            box = (slice(None), *map(slice, low, high))
            np.testing.assert_allclose(patch.t1.data, whole.t1.numpy()[box], atol=2e-4)
            assert (np.asarray(patch.label.data) != whole.label.numpy()[box]).mean() < 0.02
            origin = whole.t1.affine[:3, :3] @ low + whole.t1.affine[:3, 3]
            np.testing.assert_allclose(patch.t1.affine[:3, 3], origin, atol=1e-3)


def test_patches_of_a_label_are_centred_on_it_where_nothing_moves(subjects):
    """The label is looked up before the spatial transforms and followed through them."""
    pipeline = mj.Compose([mj.RandomFlip((0, 1, 2)), mj.RandomNoise()])
    for batch in queue(subjects, mj.LabelSampler(5, "label", {3: 1}), pipeline):
        assert (np.asarray(batch.label.data)[:, 0, 2, 2, 2] == 3).all()


def test_every_patch_comes_once_with_a_key_of_its_own(subjects):
    batches = list(queue(subjects))
    keys = np.concatenate([np.asarray(jax.random.key_data(batch["key"])) for batch in batches])
    assert len(np.unique(keys, axis=0)) == 40
    numbers = np.concatenate([batch.number for batch in batches])
    np.testing.assert_array_equal(np.bincount(numbers), [10] * 4)


def test_it_repeats_for_any_number_of_threads(subjects):
    for one, other in zip(queue(subjects), queue(subjects, num_threads=4), strict=True):
        same(one, other)


@pytest.mark.parametrize("stop", [1, 4, 7])
def test_killed_and_restored_it_gives_the_very_patches_it_would_have(subjects, stop):
    source = queue(subjects)
    iterator = iter(source)
    for _ in range(stop):
        next(iterator)
    state = iterator.get_state()
    rest = list(iterator)
    iterator.close()
    again = iter(queue(subjects))
    again.set_state(state)
    for one, other in zip(rest, again, strict=True):
        same(one, other)


def test_leaving_early_ends_the_threads(subjects):
    before = threading.active_count()
    for _ in queue(subjects, epochs=50):
        break
    iterator = iter(queue(subjects, epochs=50))
    next(iterator)
    iterator.close()
    assert threading.active_count() <= before + 1  # grain keeps one for a while


def test_an_error_names_the_subject(subjects, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    broken = mj.Subject(t1=mj.ScalarImage(tmp_path / "broken.nii.gz"), number=9)
    with pytest.raises(Exception, match=r"number=9.*broken"):
        list(mj.PatchQueue(mj.SubjectsDataset([broken]), mj.UniformSampler(4), 2, KEY))


def test_w51_lengths_are_checked_and_bound_what_waits(subjects):
    with pytest.raises(ValueError, match="max_length=4 holds no volume of 5"):
        queue(subjects, max_length=4)
    with pytest.raises(ValueError, match="larger than the images"):
        list(queue(subjects, mj.UniformSampler(20)))
    for samples, length, size in ((10, 60, 30), (5, 5, 4), (7, 100, 40)):
        schedule = Schedule(size, samples, 8, 3, length - samples, KEY, True)
        assert schedule.slots() <= max(length, 8) + samples
        arrivals = schedule.arrivals(0)
        assert sum(map(len, arrivals.values())) == 3 * size
        assert np.bincount(schedule.order).max() == 1
        if samples >= 8:
            assert max(len(volumes) for batch, volumes in arrivals.items() if batch > length // 8) == 1


def test_patches_of_a_batch_come_from_different_volumes():
    schedule = Schedule(40, 10, 8, 2, 290, KEY, True)
    volumes = [len(np.unique(schedule.patches(b) // 10)) for b in range(20, 80)]
    assert np.mean(volumes) > 7


def test_in_order_without_shuffling(subjects):
    source = queue(subjects, shuffle_subjects=False, shuffle_patches=False, epochs=1)
    assert [n for batch in source for n in batch.number] == [i for i in range(4) for _ in range(5)]


def test_printing_shows_the_three_parts(subjects):
    text = repr(queue(subjects))
    assert "once per volume: ZNormalization" in text and "per patch on the box: RandomAffine" in text


def test_an_epoch_may_be_given_alone_with_an_order_and_numbers_of_its_own(subjects):
    """Epoch 1 of two is what it is alone; a volume that stands twice goes on counting its patches."""
    options = {"shuffle_patches": False, "samples_per_volume": 4}
    both = [patch for batch in queue(subjects, **options) for patch in mj.unstack(batch)]
    alone = [patch for batch in queue(subjects, epochs=range(1, 2), **options) for patch in mj.unstack(batch)]
    for one, other in zip(both[16:], alone, strict=True):
        same(one, other)
    chosen = queue(subjects, order=[2, 0, 2, 1], samples_per_volume=[1, 0, 3, 5], epochs=1)
    patches = [patch for batch in chosen for patch in mj.unstack(batch)]
    assert len({tuple(np.asarray(jax.random.key_data(patch["key"]))) for patch in patches}) == 7
    numbers = [patch.number for patch in patches]
    assert sorted(numbers) == [0] + [2] * 6
    for given, needle in (
        ({"order": [4]}, "indices of the 4"),
        ({"samples_per_volume": [1]}, "each of 4"),
        ({"order": [1], "samples_per_volume": [1, 0, 1, 1]}, "no patch"),
    ):
        with pytest.raises(ValueError, match=needle):
            queue(subjects, **given)


def test_patches_of_a_series_begin_when_their_volumes_do(tmp_path):
    header = nibabel.Nifti1Header()
    header["pixdim"][4] = 2.0
    data = np.broadcast_to(np.arange(9, dtype=np.float32), (8, 8, 8, 9))
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4), header), tmp_path / "bold.nii.gz")
    dataset = mj.SubjectsDataset([mj.Subject(bold=mj.ScalarImage(tmp_path / "bold.nii.gz"))], mj.RandomTemporalCrop(3))
    (batch,) = mj.PatchQueue(dataset, mj.UniformSampler(4), 6, KEY, samples_per_volume=6)
    begin = [metadata["header"]["toffset"] for metadata in batch.bold.metadata]
    np.testing.assert_allclose(begin, 2 * np.asarray(batch.bold.data)[:, 0, 0, 0, 0])
    assert len(set(map(float, begin))) > 1


def test_a_map_that_is_not_there_is_named(subjects):
    with pytest.raises(ValueError, match="number=.*probability_map='nowhere' is no image.*t1, label"):
        list(queue(subjects, mj.WeightedSampler(6, "nowhere")))


def given(pipeline, subject, sampler, n):
    """A batch of n patches of one subject."""
    dataset = mj.SubjectsDataset([subject], pipeline)
    return next(iter(mj.PatchQueue(dataset, sampler, n, KEY, samples_per_volume=n, num_threads=1)))


def spots(shape, *places):
    """A subject whose label map has one voxel of each of 1, 2, ..."""
    label = np.zeros((1, *shape), np.uint8)
    for value, place in enumerate(places, 1):
        label[(0, *place)] = value
    return mj.Subject(t1=mj.ScalarImage(label.astype(np.float32), OBLIQUE), label=mj.LabelMap(label, OBLIQUE))


FLIP = mj.RandomFlip((0, 1, 2))


@pytest.mark.parametrize(
    "name, last, shape, places",
    [
        ("padded", mj.CropOrPad(20), (12, 12, 12), [(0, 0, 0), (11, 5, 0), (6, 6, 6)]),
        ("padded on one side", mj.Pad((0, 3, 0, 0, 0, 0)), (12, 9, 9), [(11, 5, 4), (5, 4, 4)]),
        ("cut", mj.CropOrPad(9), (17, 17, 17), [(0, 8, 8), (6, 8, 8), (3, 3, 3), (10, 9, 8)]),
        ("turned", mj.ToOrientation("SPL"), (9, 14, 20), [(4, 2, 17), (6, 11, 2), (0, 7, 7)]),
        ("finer", mj.Resample((0.5, 1.0, 0.75)), (9, 9, 9), [(2, 4, 5), (0, 4, 4), (5, 6, 2)]),
    ],
)
def test_a_centre_is_any_voxel_around_which_a_patch_fits_in_the_transformed_volume(name, last, shape, places):
    """Those near the border of a volume that is padded too, and none that is cut off; each as likely as another."""
    flip = mj.RandomFlip((1, 2)) if name == "padded on one side" else FLIP
    pipeline, size = mj.Compose([flip, last]), 5
    subject = spots(shape, *places)
    batch = given(pipeline, subject, mj.LabelSampler(size), 40)
    values = np.asarray(batch.label.data)[:, 0, 2, 2, 2]
    whole = mj.Compose([last])(subject).label.numpy()[0]
    room = tuple(slice(2, n - 2) for n in whole.shape)
    assert set(values) == set(np.unique(whole[room])) - {0}
    counts = np.bincount(values, minlength=len(places) + 1)
    assert counts[counts > 0].min() > 40 / (counts > 0).sum() / 2


def test_a_patch_larger_than_the_volume_before_it_is_padded():
    batch = given(mj.Compose([FLIP, mj.CropOrPad(20)]), spots((12, 12, 12), (1, 6, 6)), mj.LabelSampler(16), 8)
    assert batch.label.shape == (8, 1, 16, 16, 16) and (np.asarray(batch.label.data).max((1, 2, 3, 4)) == 1).all()
    weights = mj.WeightedSampler(16, "t1")
    batch = given(mj.Compose([FLIP, mj.CropOrPad(20)]), spots((12, 12, 12), (1, 6, 6)), weights, 8)
    assert (np.asarray(batch.t1.data).max((1, 2, 3, 4)) == 1).all()


def test_without_room_around_a_label_the_patch_is_moved_into_the_volume():
    """A patch as large as the volume has one place; without the label anywhere there is an error."""
    batch = given(mj.Compose([FLIP]), spots((9, 9, 9), (0, 0, 0)), mj.LabelSampler(9), 4)
    assert not np.asarray(batch[mj.LOCATION])[:, :3].any()
    with pytest.raises(ValueError, match="subject 0: no patch of .* can be centred"):
        given(mj.Compose([FLIP]), spots((9, 9, 9)), mj.LabelSampler(5), 4)


def test_a_label_that_comes_from_another_grid_is_followed_from_there():
    subject = spots((12, 12, 12), (3, 7, 4), (8, 6, 9))
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = 11
    stored = mj.LabelMap(subject.label.numpy()[:, ::-1], np.asarray(OBLIQUE) @ turn)
    batch = given(mj.Compose([FLIP, mj.Resample("t1")]), subject.replace(label=stored), mj.LabelSampler(5), 8)
    assert (np.asarray(batch.label.data)[:, 0, 2, 2, 2] > 0).all()


def test_images_on_different_grids_are_refused_for_whichever_patch_they_are(subjects):
    subject = spots((12, 12, 12), (3, 7, 4))
    turn = np.diag([-1.0, 1, 1, 1])
    turn[0, 3] = 11
    stored = subject.replace(label=mj.LabelMap(subject.label.numpy()[:, ::-1], np.asarray(OBLIQUE) @ turn))
    message = r"subject 0: PatchQueue needs images on one grid, but 't1'.*'label'.*voxels apart.*ToCanonical"
    with pytest.raises(ValueError, match=message):
        given(mj.RandomNoise(), stored, mj.UniformSampler(4), 2)
    assert given(mj.Compose([mj.ToCanonical(), mj.RandomNoise()]), stored, mj.LabelSampler(3), 2).t1.shape[0] == 2
    with pytest.raises(ValueError, match=message):  # apart for half of the keys
        given(mj.Compose([mj.RandomNoise(), mj.ToOrientation("LPS", include=["t1"], p=0.5)]), subject,
              mj.UniformSampler(4), 9)  # fmt: skip
    with pytest.raises(ValueError, match=r"patch_size=\(8, 8, 8\) is larger than the images, \(6, 6, 6\)"):
        given(mj.Compose([mj.RandomNoise(), mj.Crop(3, p=0.5)]), subject, mj.UniformSampler(8), 9)
    with pytest.raises(ValueError, match="Mask.*one grid"):
        given(mj.Compose([mj.RandomNoise(), mj.Mask("label"), mj.ToCanonical()]), stored, mj.UniformSampler(4), 2)
