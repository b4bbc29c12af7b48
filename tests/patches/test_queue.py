"""The patch queue: what it gives, in which order, and that it goes on where it was left."""

import threading

import jax
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, small_subject

import medjax as mj
from medjax.patches.queue import Schedule

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
