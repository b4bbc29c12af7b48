"""Random patches and the queue of them."""

import gc
import json
import threading
import time
from collections import Counter
from itertools import islice

import jax
import numpy as np
import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import medjax as mj
import torch_bridge as tio
from medjax import keys

SAMPLERS = [
    tio.UniformSampler(8),
    tio.WeightedSampler(8, "label"),
    tio.LabelSampler(8),
    tio.LabelSampler(8, "label", {0: 1, 2: 3}),
]


def is_box(patch, subject, tolerance=1e-6):
    i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
    for name, image in subject.get_images_dict(intensity_only=False).items():
        assert torch.equal(patch[name].data, image.data[:, i0:i1, j0:j1, k0:k1]), name
        corner = image.affine @ [i0, j0, k0, 1]
        assert abs(corner[:3] - patch[name].origin).max() < tolerance


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_patch_is_a_box_of_its_subject(sampler):
    subject = tensors(name="x")
    torch.manual_seed(0)
    patch, several = sampler(subject), list(sampler(subject, 5))
    assert len(several) == 5
    for each in (patch, *several):
        is_box(each, subject)
        assert each.name == "x" and each.t1.shape == (1, 8, 8, 8) and each[tio.LOCATION].dtype == torch.int64
    assert len({tuple(p[tio.LOCATION].tolist()) for p in several}) > 1
    torch.manual_seed(0)
    assert torch.equal(sampler(subject)[tio.LOCATION], patch[tio.LOCATION])
    expected = subject.t1.data.clone()
    patch.t1.data.fill_(3)
    assert torch.equal(subject.t1.data, expected)


def test_patches_follow_the_map():
    subject = tensors()
    for patch in tio.WeightedSampler(8, "label")(subject, 20):
        assert patch.label.data[0, 4, 4, 4] > 0
    classes = Counter(int(p.label.data[0, 4, 4, 4]) for p in tio.LabelSampler(8, "label", {0: 1, 2: 3})(subject, 200))
    assert set(classes) == {0, 2} and 1.8 < classes[2] / classes[0] < 5


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    return files(tmp_path_factory.mktemp("queue"))


AUGMENTATION = tio.Compose([tio.ZNormalization(), tio.RandomAffine(degrees=10, p=0.7), tio.RandomNoise(std=(0, 0.5))])
CUT = tio.UniformSampler(8)


def queue(subjects, t=None, seed=5, **options):
    dataset = subjects if isinstance(subjects, Dataset) else tio.SubjectsDataset(subjects, t)
    options = {"max_length": 7, "samples_per_volume": 3, "sampler": CUT, **options}
    return tio.Queue(dataset, generator=torch.Generator().manual_seed(seed), **options)


def same(one, other):
    return all(
        a.number == b.number and torch.equal(a.t1.data, b.t1.data) and torch.equal(a[tio.LOCATION], b[tio.LOCATION])
        for a, b in zip(one, other, strict=True)
    )


def words(patch):
    """The key of a patch, as transforms take it."""
    return patch["key"].numpy().astype(np.uint32)


def test_an_epoch_has_every_volume_as_often_as_asked(subjects):
    patches = queue(subjects)
    assert len(patches) == 12
    first, second = list(patches), list(patches)
    for epoch in (first, second):
        assert Counter(p.number for p in epoch) == dict.fromkeys(range(4), 3)
    assert [p.number for p in first] != [p.number for p in second]
    assert not same(first, second)
    assert same(first, list(queue(subjects)))
    assert not same(first, list(queue(subjects, seed=6)))


@pytest.mark.parametrize("whole", [False, True])
def test_every_patch_is_the_box_of_a_volume_transformed_by_its_key(subjects, whole):
    """Cut, each has a key of its own; of a data set that hides its transform, those of a volume share one."""
    dataset = tio.SubjectsDataset(subjects, AUGMENTATION)
    patches = list(queue(ConcatDataset([dataset]) if whole else dataset))
    for patch in patches[::2]:
        volume = AUGMENTATION(subjects[patch.number], words(patch))
        i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
        torch.testing.assert_close(patch.t1.data, volume.t1.data[:, i0:i1, j0:j1, k0:k1], atol=2e-4, rtol=0)
        differs = patch.label.data != volume.label.data[:, i0:i1, j0:j1, k0:k1]
        assert differs.float().mean() < 0.02
        corner = volume.t1.affine @ [i0, j0, k0, 1]
        np.testing.assert_allclose(patch.t1.origin, corner[:3], atol=1e-3)
    assert len({tuple(words(patch)) for patch in patches}) == (4 if whole else 12)
    assert len({tuple(patch[tio.LOCATION].tolist()) for patch in patches}) > 6


def test_it_gives_what_medjaxs_queue_gives_by_the_same_key(subjects):
    patches = queue(subjects, AUGMENTATION)
    ours = list(patches) + list(patches)
    seed = np.array(patches.state_dict()["seed"], np.uint32)
    dataset = mj.SubjectsDataset([subject.as_medjax() for subject in subjects], AUGMENTATION)
    for epoch in range(2):
        given = {"samples_per_volume": 3, "max_length": 7, "epochs": range(epoch, epoch + 1)}
        batches = mj.PatchQueue(dataset, CUT, 5, seed, **given)
        theirs = [patch for batch in batches for patch in mj.unstack(batch)]
        for a, b in zip(ours[12 * epoch : 12 * (epoch + 1)], theirs, strict=True):
            assert a.number == b.number and a[tio.LOCATION].tolist() == np.asarray(b[mj.LOCATION]).tolist()
            np.testing.assert_array_equal(a.t1.numpy(), np.asarray(b.t1.data))


def test_keys_are_of_the_epoch_the_index_and_the_number(subjects):
    patches = queue(subjects, AUGMENTATION, shuffle_patches=False)
    found = list(patches) + list(patches)
    seed = keys.as_key(np.array(patches.state_dict()["seed"], np.uint32))
    for place, patch in enumerate(found):
        key = keys.for_step(keys.for_element(seed, place // 12, patch.number), place % 3)
        assert words(patch).tolist() == np.asarray(keys.random.key_data(key)).tolist()


def test_types_and_memory(subjects):
    """Whole numbers stay as wide as they were, and writing to a patch reaches nothing else."""
    given = [tensors(i, number=i) for i in range(3)]
    before = [subject.t1.data.clone() for subject in given]
    patches = list(queue(given, samples_per_volume=2))
    copies = [patch.t1.data.clone() for patch in patches]
    for number, patch in enumerate(patches):
        is_box(patch, given[patch.number], 1e-4)  # affines are float32
        assert patch.label.data.dtype == torch.int64 and patch.t2.data.dtype == torch.int16
        assert torch.equal(patch.t1.data, copies[number])
        patch.t1.data.fill_(7)
    assert all(torch.equal(subject.t1.data, data) for subject, data in zip(given, before, strict=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(subjects, threads):
    assert same(queue(subjects, AUGMENTATION), queue(subjects, AUGMENTATION, num_workers=threads))


def test_torchs_seed_makes_it_repeatable(subjects):
    def first():
        return list(islice(tio.Queue(tio.SubjectsDataset(subjects, AUGMENTATION), 7, 3, CUT), 4))

    torch.manual_seed(3)
    one = first()
    torch.manual_seed(3)
    assert same(one, first()) and not same(one, first())


def test_orders(subjects):
    plain = queue(subjects, shuffle_subjects=False, shuffle_patches=False)
    assert [p.number for p in plain] == [i for i in range(4) for _ in range(3)]
    chosen = queue(subjects, subject_sampler=[2, 0], shuffle_patches=False)
    assert [p.number for p in chosen] == [2] * 3 + [0] * 3 and len(chosen) == 6


def test_a_sampler_may_give_a_volume_twice(subjects):
    weighted = WeightedRandomSampler([1.0, 0, 0, 0], 2)
    patches = list(queue(subjects, AUGMENTATION, subject_sampler=weighted))
    assert [p.number for p in patches] == [0] * 6
    assert len({tuple(words(patch)) for patch in patches}) == 6


def test_each_rank_has_volumes_of_its_own(subjects):
    ranks = [torch.utils.data.DistributedSampler(range(4), 2, rank, seed=1) for rank in range(2)]
    found = [{p.number for p in queue(subjects, subject_sampler=sampler)} for sampler in ranks]
    assert found[0] | found[1] == set(range(4)) and not found[0] & found[1]


def test_a_subject_may_have_a_number_of_its_own(subjects):
    given = [tio.Subject(dict(subject.items())) for subject in subjects]
    given[1]["num_samples"], given[2]["num_samples"] = 1, 0
    patches = queue(given, AUGMENTATION)
    state = None
    found = []
    for place, patch in enumerate(patches):
        found.append(patch)
        state = patches.state_dict() if place == 3 else state
    assert len(patches) == 7 and Counter(p.number for p in found) == {0: 3, 1: 1, 3: 3}
    other = queue(given, AUGMENTATION)
    other.load_state_dict(state)
    assert same(found[4:], list(other))


@pytest.mark.parametrize("taken", [0, 1, 7, 11, 12, 15])
def test_it_resumes(subjects, taken):
    patches = queue(subjects, AUGMENTATION)
    for _ in range(taken):
        patches[0]
    state = json.loads(json.dumps(patches.state_dict()))
    expected = [patches[0] for _ in range(6)]
    other = queue(subjects, AUGMENTATION, num_workers=2, seed=8)
    if taken:
        other.load_state_dict(state)
        assert same(expected, [other[0] for _ in range(6)])
    else:
        assert state["seed"] is None


@pytest.mark.parametrize("options", [{}, {"subject_sampler": torch.utils.data.RandomSampler(range(4))}])
def test_it_resumes_under_a_loader_and_ends_with_the_epoch(subjects, options):
    patches = queue(subjects, AUGMENTATION, **options)
    loader = DataLoader(patches, batch_size=4)
    assert len(list(loader)) == 3
    batches = iter(loader)
    next(batches)
    state = patches.state_dict()
    assert state["epoch"] == 1 and state["given"] == 4
    other = queue(subjects, AUGMENTATION, seed=7, **options)
    other.load_state_dict(state)
    assert len(other) == 8
    for one, two in zip(batches, DataLoader(other, batch_size=4), strict=True):
        assert torch.equal(one["number"], two["number"]) and torch.equal(one["t1"][tio.DATA], two["t1"][tio.DATA])


def test_it_is_the_data_set_of_a_plain_loader(subjects):
    patches = queue(subjects, AUGMENTATION)
    loader = DataLoader(patches, batch_size=5)
    assert len(loader) == 3
    epochs = [list(loader), list(loader)]
    for batches in epochs:
        assert [len(b["t1"][tio.DATA]) for b in batches] == [5, 5, 2]
        assert sorted(torch.cat([b["number"] for b in batches]).tolist()) == sorted([0, 1, 2, 3] * 3)
    batch = epochs[0][0]
    assert batch["label"][tio.DATA].shape == (5, 1, 8, 8, 8) and batch[tio.LOCATION].shape == (5, 6)
    around = [DataLoader(patches, 4, shuffle=True), DataLoader(patches, 4, sampler=SubsetRandomSampler(range(12))),
              DataLoader(Subset(patches, range(12)), 4), DataLoader(ConcatDataset([patches]), 4)]  # fmt: skip
    for other in around:
        assert sorted(torch.cat([b["number"] for b in other]).tolist()) == sorted([0, 1, 2, 3] * 3)
    assert [len(part) for part in torch.utils.data.random_split(patches, [8, 4])] == [8, 4]
    assert not isinstance(patches, torch.utils.data.IterableDataset)


def test_it_says_its_sizes(subjects):
    patches = queue(subjects)
    assert patches.num_subjects == 4 and patches.iterations_per_epoch == len(patches) == 12 and patches.num_patches == 0
    assert patches.get_max_memory() == 7 * 4 * 2 * 8**3 and patches.get_max_memory_pretty() == "28.0 KiB"


def test_our_loader_takes_what_a_loader_takes(subjects):
    dataset = tio.SubjectsDataset(subjects, AUGMENTATION)
    loader = tio.SubjectsLoader(dataset, 2, sampler=[3, 1, 0], collate_fn=list)
    assert isinstance(loader, DataLoader) and [[s.number for s in batch] for batch in loader] == [[3, 1], [0]]
    loader = tio.SubjectsLoader(dataset, batch_sampler=[[1], [2, 3]])
    assert len(loader) == 2 and [batch["number"].tolist() for batch in loader] == [[1], [2, 3]]
    assert len(list(tio.SubjectsLoader(queue(subjects), 4, shuffle=True))) == 3


def test_a_patch_is_the_first_of_many():
    subject = tensors()
    torch.manual_seed(0)
    patch = CUT(subject)
    more = list(islice(patch, 4))
    assert torch.equal(more[0][tio.LOCATION], patch[tio.LOCATION]) and type(more[0]) is tio.Subject
    assert len({tuple(p[tio.LOCATION].tolist()) for p in more}) == 4
    assert type(tio.Flip(axes=0)(patch)) is tio.Subject and dict(patch).keys() == dict(**patch).keys()
    assert next(CUT(subject)).t1.shape == (1, 8, 8, 8)


def test_it_is_the_data_set_of_our_loader(subjects):
    loader = tio.SubjectsLoader(queue(subjects, AUGMENTATION), 5)
    expected = list(DataLoader(queue(subjects, AUGMENTATION), batch_size=5))
    found = []
    for batch in loader:
        found.append(batch)
        if len(found) == 2:
            state = json.loads(json.dumps(loader.state_dict()))
    other = tio.SubjectsLoader(queue(subjects, AUGMENTATION), 5)
    other.load_state_dict(state)
    for one, two in zip(expected, found[:2] + list(other), strict=True):
        assert torch.equal(one["t1"][tio.DATA], two["t1"][tio.DATA])


class Own(Dataset):
    """A user's data set, whose subjects are torchio's or ours."""

    def __init__(self, subjects, function):
        self.subjects, self.function = subjects, function

    def __len__(self):
        return len(self.subjects)

    def __getitem__(self, index):
        return self.function(self.subjects[index])


def test_subsets_are_cut_as_their_data_set(subjects):
    dataset = tio.SubjectsDataset(subjects, AUGMENTATION)
    patches = queue(Subset(Subset(dataset, [3, 2, 1]), [0, 2]))
    assert "per patch on the box: RandomAffine" in repr(patches)
    assert Counter(p.number for p in patches) == {3: 3, 1: 3}
    assert len(patches) == 6


def test_data_sets_of_the_users(subjects):
    def double(subject):
        t1 = tio.ScalarImage(tensor=2 * subject.t1.data, affine=subject.t1.affine)
        return tio.Subject({**dict(subject.items()), "t1": t1})

    for dataset in (Own(subjects, double), tio.SubjectsDataset(subjects, double)):
        for patch in queue(dataset):
            i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
            expected = 2 * subjects[patch.number].t1.data[:, i0:i1, j0:j1, k0:k1]
            assert torch.equal(patch.t1.data, expected)
    torchio = pytest.importorskip("torchio")
    theirs = [torchio.Subject(t1=torchio.ScalarImage(tensor=torch.rand(1, 12, 12, 12)), number=i) for i in range(2)]
    for dataset in (tio.SubjectsDataset(theirs), Own(theirs, lambda x: x)):
        for patch in queue(dataset):
            i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
            assert torch.equal(patch.t1.data, theirs[patch.number].t1.data[:, i0:i1, j0:j1, k0:k1])


def test_a_shape_that_depends_on_values_is_found_by_transforming_whole_volumes(subjects):
    t = tio.Compose([tio.RandomFlip(axes=(0, 1, 2)), tio.Resample(1.4), tio.RandomMotion()])
    patches = queue(subjects, t)
    found = list(patches)
    assert patches.state_dict()["whole"] and "transformed whole" in repr(patches)
    for patch in found[::3]:
        volume = t(subjects[patch.number], words(patch))
        i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
        torch.testing.assert_close(patch.t1.data, volume.t1.data[:, i0:i1, j0:j1, k0:k1], atol=1e-4, rtol=1e-4)
    other = queue(subjects, t)
    for _ in range(5):
        other[0]
    resumed = queue(subjects, t, seed=9)
    resumed.load_state_dict(other.state_dict())
    assert same(found[5:], list(resumed))


def test_only_what_a_volume_says_is_read_twice_an_epoch(subjects):
    """Each volume is read once an epoch, however its patches are mixed."""
    read = []
    dataset = Own(subjects, lambda subject: read.append(subject.number) or subject)
    list(queue(dataset))
    assert sorted(read) == [0, 1, 2, 3]


def medjaxs_threads():
    return [t.name for t in threading.enumerate() if "medjax" in t.name or "torch_bridge-queue" in t.name]


def test_dropping_it_ends_its_threads(subjects):
    patches = queue(subjects, AUGMENTATION, num_workers=3)
    next(iter(patches))
    assert medjaxs_threads()
    before = threading.active_count()
    del patches
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() >= before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not medjaxs_threads() and threading.active_count() < before


def test_errors_begin_with_the_subject(subjects, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    broken = tio.Subject(t1=tio.ScalarImage(tmp_path / "broken.nii.gz"), label=subjects[0].label, number=9)
    with pytest.raises(ValueError, match=r"^subject 4 \(number=9.*broken"):
        list(queue([*subjects, broken], AUGMENTATION))
    flat = tio.Subject(t1=tio.ScalarImage(tensor=torch.ones(1, 9, 9, 9)), name="flat")
    with pytest.raises(ValueError, match=r"^subject 0 \(name='flat'\).*all equal"):
        list(queue([flat], AUGMENTATION))
    with pytest.raises(ValueError, match=r"^subject 0 \(name='flat'\).*all equal"):
        list(queue(ConcatDataset([tio.SubjectsDataset([flat], AUGMENTATION)])))
    with pytest.raises(RuntimeError, match="^subject [0-3]: .*by zero"):
        list(queue(Own(subjects, lambda subject: 1 // 0)))
    with pytest.raises(ValueError, match="larger than the images"):
        next(iter(queue(subjects, sampler=tio.UniformSampler(64))))
    mixed = [
        tio.Subject(t1=tio.ScalarImage(tensor=torch.ones(1, 9, 9, 9, dtype=d))) for d in (torch.int16, torch.float)
    ]
    with pytest.raises(ValueError, match=r"^subject \d: patches of t1 are .*bring all subjects to one type"):
        list(queue(mixed))


def test_it_refuses(subjects):
    for options, needle in (
        ({"max_length": 0}, "max_length"),
        ({"samples_per_volume": 0}, "samples_per_volume"),
        ({"max_length": 2}, "max_length=2 holds no volume of 3"),
    ):
        with pytest.raises(ValueError, match=needle):
            queue(subjects, **options)
    with pytest.raises(TypeError, match="sampler"):
        queue(subjects, sampler=8)
    with pytest.raises(ValueError, match="has given 13"):
        queue(subjects).load_state_dict({"seed": [1, 2], "epoch": 0, "order": None, "given": 13, "whole": False})
    with pytest.raises(RuntimeError, match="num_workers=0"):
        next(iter(DataLoader(queue(subjects), num_workers=1)))


IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


def test_the_process_may_have_any_default_kind_of_key(subjects):
    """What is drawn from torch's generator means the same, and a patch repeats by its key."""
    want = list(islice(queue(subjects, AUGMENTATION), 5))
    for default in IMPLEMENTATIONS:
        with jax.default_prng_impl(default):
            found = list(islice(queue(subjects, AUGMENTATION), 5))
            assert same(found, want) and all(torch.equal(a["key"], b["key"]) for a, b in zip(found, want))
            volume = AUGMENTATION(subjects[found[0].number], words(found[0]))
            i0, j0, k0, i1, j1, k1 = found[0][tio.LOCATION].tolist()
            torch.testing.assert_close(found[0].t1.data, volume.t1.data[:, i0:i1, j0:j1, k0:k1], atol=2e-4, rtol=0)


def test_samplers_take_keys_of_every_kind():
    subject, places = tensors(), set()
    for impl in IMPLEMENTATIONS:
        key = jax.random.key(3, impl=impl)
        with jax.default_prng_impl(impl):
            for one, other in zip(CUT(subject, 3, key=key), CUT(subject, 3, key=jax.random.key_data(key)), strict=True):
                assert torch.equal(one[tio.LOCATION], other[tio.LOCATION])
                places.add(tuple(one[tio.LOCATION].tolist()))
    assert len(places) > 3


def test_arrays_of_subjects_may_differ_in_shape():
    made = [tensors(i, bvals=np.arange(i + 1), y=np.int32(i)) for i in range(3)]
    for patch in queue(tio.SubjectsDataset(made)):
        np.testing.assert_array_equal(patch.bvals, np.arange(int(patch.y) + 1))
