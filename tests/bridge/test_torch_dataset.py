"""Data sets, pending subjects and batches, and the loader, in one process (see test_processes.py for several)."""

import json

import jax
import numpy as np
import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader, default_collate

import medjax as mj
import torch_bridge as tio
from medjax import keys


def augmentation():
    return tio.Compose([tio.RandomAffine(degrees=10, p=0.5), tio.RandomNoise(std=(0, 1), p=0.7)])


def test_a_batch_is_what_its_subjects_are(tmp_path):
    dataset = tio.SubjectsDataset(files(tmp_path), augmentation())
    torch.manual_seed(1)
    batch = default_collate([dataset[i] for i in range(3)])
    images, affines = batch["t1"][tio.DATA], batch["t1"][tio.AFFINE]
    torch.manual_seed(1)
    for i in range(3):
        alone = dataset[i]
        torch.testing.assert_close(images[i], alone.t1.data, atol=1e-5, rtol=1e-5)
        assert torch.equal(batch["label"][tio.DATA][i], alone.label.data)
        np.testing.assert_array_equal(affines[i], alone.t1.affine)
    assert torch.equal(batch["number"], torch.arange(3)) and batch["name"] == [f"subject-{i}" for i in range(3)]
    assert images.shape == (3, 1, 20, 24, 16) and isinstance(batch["label"], tio.LabelMap) and batch.batch_size == 3


def test_nothing_is_transformed_before_it_is_looked_at(tmp_path):
    calls = []

    def count(x):
        calls.append(1)
        return x

    dataset = tio.SubjectsDataset(files(tmp_path), mj.Lambda(count))
    batch = default_collate([dataset[0], dataset[1]]).pin_memory()
    assert not calls
    _ = batch.t1
    assert calls


@pytest.mark.parametrize("t", [tio.Resample(1.5), tio.Compose([tio.Resample(1.0), tio.RandomNoise()])])
def test_a_shape_that_depends_on_values_makes_a_batch(tmp_path, t):
    batch = next(iter(DataLoader(tio.SubjectsDataset(files(tmp_path), t), batch_size=4)))
    assert batch.t1.shape[:2] == (4, 1) and batch.t1.shape[2:] != (20, 24, 16)


def test_subjects_of_several_shapes_make_a_batch_where_the_transform_brings_them_to_one(tmp_path):
    subjects = [tensors(0), tensors(1, (18, 26, 16)), tensors(2)]
    dataset = tio.SubjectsDataset(subjects, tio.Compose([tio.CropOrPad((16, 16, 16)), tio.RandomNoise()]))
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch.t1.shape == (3, 1, 16, 16, 16)
    for source in (tio.SubjectsDataset(subjects), tio.SubjectsDataset(subjects, tio.RandomNoise())):
        with pytest.raises(ValueError, match=r"do not stack.*CropOrPad"):
            _ = next(iter(DataLoader(source, batch_size=3))).t1


def test_subjects_that_differ_in_their_images_are_named(tmp_path):
    subjects = files(tmp_path)
    subjects[2].t1 = None
    with pytest.raises(ValueError, match=r"subject 0 .*subject 2 .*missing"):
        next(iter(DataLoader(tio.SubjectsDataset(subjects, tio.RandomNoise()), batch_size=3)))


def test_errors_begin_with_the_subject(tmp_path):
    subjects = files(tmp_path)
    (tmp_path / "1_t1.nii.gz").write_bytes(b"no image")
    dataset = tio.SubjectsDataset(subjects, tio.ZNormalization())
    with pytest.raises(ValueError, match=r"^subject 1 \(number=1, name='subject-1'.*1_t1.nii.gz"):
        dataset[1]
    with pytest.raises(IndexError, match="4 subjects"):
        dataset[4]
    assert dataset[-1].number == 3
    constant = tio.Subject(t1=tio.ScalarImage(tensor=torch.ones(1, 4, 4, 4)), name="flat")
    for source in (tio.SubjectsDataset([constant], tio.ZNormalization()),):
        with pytest.raises(ValueError, match=r"^subject 0 \(name='flat'\).*all equal"):
            _ = source[0].t1
        with pytest.raises(ValueError, match=r"^subject 0 \(name='flat'\).*all equal"):
            _ = default_collate([source[0]]).t1
    with pytest.raises(TypeError, match=r"subjects\[1\]"):
        tio.SubjectsDataset([constant, 3])
    with pytest.raises(ValueError, match="transform"):
        tio.SubjectsDataset([constant], 3)
    with pytest.raises(ValueError, match="whole number"):
        dataset["a"]
    with pytest.raises(ValueError, match="empty"):
        tio.SubjectsDataset([])


def test_a_function_of_the_users_is_called_at_once(tmp_path):
    def function(subject):
        subject["doubled"] = tio.ScalarImage(tensor=2 * subject.t1.data)
        return subject

    dataset = tio.SubjectsDataset(files(tmp_path), function)
    assert torch.equal(dataset[0].doubled.data, 2 * dataset[0].t1.data)
    assert next(iter(DataLoader(dataset, batch_size=2))).doubled.shape == (2, 1, 20, 24, 16)


def test_elements_of_the_loader_have_the_keys_of_their_epoch_and_index(tmp_path):
    dataset = tio.SubjectsDataset(files(tmp_path), augmentation())
    loader = tio.SubjectsLoader(dataset, 3, shuffle=True, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    epochs = [list(loader), list(loader)]
    assert torch.equal(torch.get_rng_state(), state)
    seed = np.array(loader.state_dict()["seed"], np.uint32)
    for epoch, batches in enumerate(epochs):
        found = torch.cat([batch["number"] for batch in batches]).tolist()
        assert sorted(found) == [0, 1, 2, 3] and [batch.batch_size for batch in batches] == [3, 1]
        for batch in batches:
            for place, index in enumerate(batch["number"].tolist()):
                key = keys.for_element(jax.random.wrap_key_data(seed), epoch, index)
                expected = dataset.transform(dataset.subjects[index], key).t1.data
                torch.testing.assert_close(batch["t1"][tio.DATA][place], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", [0, 1, 3, 4, 6])
def test_the_loader_resumes(tmp_path, given):
    dataset = tio.SubjectsDataset(files(tmp_path), augmentation())

    def loader():
        return tio.SubjectsLoader(dataset, 1, shuffle=True, generator=torch.Generator().manual_seed(5))

    def endless(loader):
        while True:
            yield from loader

    whole = endless(loader())
    expected = [next(whole) for _ in range(given + 3)][given:]
    stopped = loader()
    batches = endless(stopped)
    for _ in range(given):
        next(batches)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = loader()
    resumed.load_state_dict(state)
    for batch, other in zip(expected, endless(resumed), strict=False):
        assert torch.equal(batch["t1"][tio.DATA], other["t1"][tio.DATA]) and torch.equal(
            batch["number"], other["number"]
        )


def test_the_loader_passes_errors_on_and_refuses_no_batch(tmp_path):
    subjects = files(tmp_path)
    (tmp_path / "2_t1.nii.gz").write_bytes(b"no image")
    found = []
    with pytest.raises(ValueError, match="subject-2"):
        for batch in tio.SubjectsLoader(tio.SubjectsDataset(subjects, tio.RandomNoise()), 1):
            found.append(batch["number"].item())
    assert found == [0, 1]
    with pytest.raises(ValueError, match="no batch"):
        tio.SubjectsLoader(tio.SubjectsDataset(subjects), 5, drop_last=True)
