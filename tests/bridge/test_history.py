"""What was done to a subject: read, done again and undone; in batches and from workers, too."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit
from bridge.test_users import Times, small
from torch.utils.data import DataLoader

import torch_bridge as tio

PIPELINE = tio.Compose([tio.RandomFlip(axes=(0, 1, 2)), tio.Pad(2), tio.RandomGamma(log_gamma=(0.2, 0.3))])


def close(one, other):
    return torch.allclose(one.t1.data, other.t1.data, atol=1e-5) and torch.equal(one.label.data, other.label.data)


def test_a_call_is_done_again_and_undone():
    subject = tensors()
    result = PIPELINE(subject)
    assert [t.name for t in result.history] == ["Flip", "Pad", "Gamma"]
    assert close(result.get_composed_history()(subject), result)
    back = result.apply_inverse_transform(warn=False)
    assert close(back, subject) and not back.history
    np.testing.assert_allclose(back.t1.affine, subject.t1.affine, atol=1e-5)
    assert close(result.get_composed_history().inverse()(result), subject)
    assert [t.name for t in result.get_applied_transforms(ignore_intensity=True)] == ["Flip", "Pad"]
    again = tio.RandomNoise()(result)
    assert len(again.applied_transforms) == 2 and len(result.applied_transforms) == 1 and not subject.history
    with pytest.warns(RuntimeWarning, match="Skipping Blur|No invertible"):
        tio.RandomBlur(std=(1, 1))(subject).apply_inverse_transform()
    again.clear_history()
    assert not again.history
    flipped = [tio.Flip(axes=0)(tensors(0, shape)) for shape in ((6, 8, 4), (20, 24, 16))]
    small_one, large_one = (len(pickle.dumps(found.applied_transforms)) for found in flipped)
    assert abs(small_one - large_one) < 100


def test_what_was_drawn_is_read_by_its_name():
    result = tio.RandomGamma(log_gamma=(0.2, 0.3), include=["t1"])(tensors())
    (gamma,) = result.history
    assert 0.2 <= float(np.ravel(gamma.t1["log_gamma"])[0]) <= 0.3


def test_records_hold_no_voxels_and_come_from_batches_and_workers():
    subjects = [small(i) for i in range(2)]
    dataset = tio.SubjectsDataset(subjects, PIPELINE)
    for workers in (0, 1):
        batch = next(iter(DataLoader(dataset, batch_size=2, num_workers=workers)))
        _ = batch["t1"]
        for subject, found in zip(subjects, batch.unstacked(), strict=True):
            assert close(found.get_composed_history()(subject), found)
            assert close(found.apply_inverse_transform(warn=False), subject)
            assert len(pickle.dumps(found.applied_transforms)) < 20_000
    single = dataset[0]
    assert close(single.apply_inverse_transform(warn=False), subjects[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_has_the_histories_of_its_subjects(workers):
    subjects = [small(i) for i in range(2)]
    dataset = tio.SubjectsDataset(
        subjects, tio.Compose([tio.RandomFlip(axes=(0, 1, 2), flip_probability=1), tio.Pad(2)])
    )
    options = {"batch_size": 2, "num_workers": workers}
    batch = next(iter(tio.SubjectsLoader(dataset, collate_fn=tio.utils.history_collate, **options)))
    assert [[t.name for t in steps] for steps in batch["history"]] == [["Flip", "Pad"], ["Flip", "Pad"]]
    assert sorted(batch) == sorted([*subjects[0], "history"])
    for subject, found in zip(subjects, tio.utils.get_subjects_from_batch(batch), strict=True):
        assert close(found.apply_inverse_transform(), subject) and sorted(found) == sorted(subject)
    records = partial(tio.utils.history_collate, collate_transforms=False)
    batch = next(iter(DataLoader(dataset, collate_fn=records, **options)))
    assert [len(each) for each in batch["applied_transforms"]] == [1, 1]
    assert tio.utils.history_collate([1, 2]) == {}


def test_steps_in_torch_are_remembered_by_name_and_not_pickled():
    class Local(tio.SpatialTransform):
        invert_transform = False

        def apply_transform(self, subject):
            for image in self.get_images(subject):
                image.set_data(image.data.flip(1))
            return subject

    t = tio.Compose([Local(), tio.Flip(axes=1), Times(2)])
    dataset = tio.SubjectsDataset([small()], t)
    batch = next(iter(DataLoader(dataset, batch_size=1, num_workers=1)))
    (found,) = [batch["t1"] and each for each in batch.unstacked()]
    assert [record.name for record in found.history] == ["Local", "Flip", "Times"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        back = found.apply_inverse_transform()
    assert any("Skipping Times" in str(w.message) for w in caught)
    assert torch.equal(back.t1.data, 2 * small().t1.data)


def test_transforms_that_draw_nothing_have_an_inverse():
    subject = tensors()
    t = tio.Compose([tio.Flip(axes=0), tio.Flip(axes=2)])
    assert close(t.inverse()(t(subject)), subject) and t.is_invertible()
    assert not tio.RandomFlip().is_invertible() and tio.Pad(2).is_invertible()
    with pytest.raises(RuntimeError, match="not invertible"):
        tio.RandomFlip().inverse()
    with pytest.warns(RuntimeWarning, match="Skipping Blur|No invertible"):
        tio.Compose([tio.Blur(1.0)]).inverse()
