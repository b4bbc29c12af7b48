"""Random patches and the queue of them."""

import json
from collections import Counter
from itertools import islice

import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader

import torch_bridge as tio

SAMPLERS = [
    tio.UniformSampler(8),
    tio.WeightedSampler(8, "label"),
    tio.LabelSampler(8),
    tio.LabelSampler(8, "label", {0: 1, 2: 3}),
]


def is_box(patch, subject):
    i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
    for name, image in subject.get_images_dict().items():
        assert torch.equal(patch[name].data, image.data[:, i0:i1, j0:j1, k0:k1]), name
        corner = image.affine @ [i0, j0, k0, 1]
        assert abs(corner[:3] - patch[name].origin).max() < 1e-6


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


def queue(folder, t=None, seed=5, **options):
    dataset = tio.SubjectsDataset(files(folder), t)
    options = {"max_length": 7, "samples_per_volume": 3, "sampler": SAMPLERS[0], **options}
    return tio.Queue(dataset, generator=torch.Generator().manual_seed(seed), **options)


def same(one, other):
    return all(
        a.number == b.number and torch.equal(a.t1.data, b.t1.data) and torch.equal(a[tio.LOCATION], b[tio.LOCATION])
        for a, b in zip(one, other, strict=True)
    )


def test_an_epoch_has_every_volume_as_often_as_asked(tmp_path):
    patches = queue(tmp_path)
    assert len(patches) == 12
    first, second = list(patches), list(patches)
    for epoch in (first, second):
        assert Counter(p.number for p in epoch) == dict.fromkeys(range(4), 3)
    assert not same(first, second)
    assert same(first, islice(iter(queue(tmp_path)), 12))
    assert not same(first, islice(iter(queue(tmp_path, seed=6)), 12))


def test_patches_are_boxes_of_volumes_transformed_once(tmp_path):
    patches = list(queue(tmp_path, tio.Compose([tio.RandomFlip(axes=0), tio.RescaleIntensity((0, 1))])))
    subjects = files(tmp_path)
    for patch in patches:
        volume = tio.RescaleIntensity((0, 1))(subjects[patch.number])
        flipped = tio.Flip(axes=0)(volume)
        i0, j0, k0, i1, j1, k1 = patch[tio.LOCATION].tolist()
        boxes = [v.t1.data[:, i0:i1, j0:j1, k0:k1] for v in (volume, flipped)]
        assert any(torch.allclose(patch.t1.data, box, atol=1e-6) for box in boxes)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(tmp_path, threads):
    t = tio.RandomNoise()
    assert same(queue(tmp_path, t), queue(tmp_path, t, num_workers=threads))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 100])
def test_it_never_holds_more_than_it_may(tmp_path, length):
    patches = queue(tmp_path, max_length=length)
    seen = []
    for patch in patches:
        assert len(patches._held) < length
        seen.append(patch.number)
    assert Counter(seen) == dict.fromkeys(range(4), 3)


def test_orders(tmp_path):
    plain = queue(tmp_path, shuffle_subjects=False, shuffle_patches=False)
    assert [p.number for p in plain] == [i for i in range(4) for _ in range(3)]
    chosen = queue(tmp_path, subject_sampler=[2, 0], shuffle_patches=False)
    assert [p.number for p in chosen] == [2] * 3 + [0] * 3 and len(chosen) == 6
    chosen.subjects_dataset.subjects[2]["num_samples"] = 1
    assert len(chosen) == 4


@pytest.mark.parametrize("taken", [0, 6, 7, 12, 15])
def test_it_resumes(tmp_path, taken):
    patches = queue(tmp_path, tio.RandomNoise())
    for _ in range(taken):
        patches[0]
    state = json.loads(json.dumps(patches.state_dict()))
    expected = [patches[0] for _ in range(6)]
    other = queue(tmp_path, tio.RandomNoise(), num_workers=2)
    other.load_state_dict(state)
    assert same(expected, [other[0] for _ in range(6)])


def test_it_is_the_data_set_of_a_plain_loader(tmp_path):
    patches = queue(tmp_path, tio.RandomNoise())
    batches = list(DataLoader(patches, batch_size=5))
    assert [len(b["t1"][tio.DATA]) for b in batches] == [5, 5, 2]
    assert batches[0]["label"][tio.DATA].shape == (5, 1, 8, 8, 8) and batches[0][tio.LOCATION].shape == (5, 6)


def test_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="max_length"):
        queue(tmp_path, max_length=0)
    with pytest.raises(TypeError, match="sampler"):
        queue(tmp_path, sampler=8)
    with pytest.raises(ValueError, match="larger than the images"):
        next(iter(queue(tmp_path, sampler=tio.UniformSampler(64))))
