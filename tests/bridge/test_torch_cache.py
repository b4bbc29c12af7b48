"""A cache under torch's data loaders and the bridge's queue: what comes out is what comes out without one."""

import numpy as np
import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader, Subset

import torch_bridge as tio

PIPELINE = tio.Compose([tio.ToCanonical(), tio.ZNormalization(), tio.RandomNoise(std=(0, 1), p=0.7)])


def drawn(loader, seed=3, epochs=2):
    """All tensors and affines that a loader gives."""
    torch.manual_seed(seed)
    found = []
    for _ in range(epochs):
        for x in loader:
            for image in x.get_images_dict().values():
                found += [image.data, torch.as_tensor(np.asarray(image.affine)), image.metadata]
    return found


def same(one, other):
    """Assert that two lists of tensors are equal, bit by bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def subjects(tmp_path):
    """Subjects in files."""
    return files(tmp_path)


def test_a_data_loader_with_and_without_workers(subjects, tmp_path):
    plain = drawn(DataLoader(tio.SubjectsDataset(subjects, PIPELINE), batch_size=2))
    cache = tio.Cache(tmp_path / "cache")
    for workers in (2, 0):  # filled by forked workers, which run no JAX, and then read
        dataset = tio.SubjectsDataset(subjects, PIPELINE, cache=cache)
        same(plain, drawn(DataLoader(dataset, batch_size=2, num_workers=workers)))
        assert cache.info().entries == len(subjects)


def test_a_url_under_workers_of_a_process_that_has_used_it(subjects, tmp_path):
    """tensorstore does not survive a fork: workers ask the process that they were forked from."""
    plain, cache = (
        drawn(DataLoader(tio.SubjectsDataset(subjects, PIPELINE), batch_size=2)),
        tio.Cache(f"file://{tmp_path}"),
    )
    assert cache.info().entries == 0
    dataset = tio.SubjectsDataset(subjects, PIPELINE, cache=cache)
    for workers in (2, 0):
        same(plain, drawn(DataLoader(dataset, batch_size=2, num_workers=workers)))
        assert cache.info().entries == len(subjects)


def test_one_subject_is_what_it_is_without(subjects, tmp_path):
    for transform in (None, PIPELINE, tio.ToCanonical(), lambda subject: subject):
        for _ in range(2):
            plain = tio.SubjectsDataset(subjects, transform)
            cached = tio.SubjectsDataset(subjects, transform, cache=tio.Cache(tmp_path / "cache"))
            for index in (0, 3):
                torch.manual_seed(1)
                one = plain[index]
                one.items()
                torch.manual_seed(1)
                other = cached[index]
                assert list(one) == list(other) and one.name == other.name
                for name, image in one.get_images_dict().items():
                    assert torch.equal(image.data, other[name].data) and image.dtype == other[name].dtype
                    assert image.path == other[name].path and image.metadata == other[name].metadata
                    np.testing.assert_array_equal(image.affine, other[name].affine)
                other.t1.data.zero_()  # a tensor of one's own
    assert torch.equal(
        tio.SubjectsDataset(subjects, cache=tio.Cache(tmp_path / "cache"))[0].t1.data, subjects[0].t1.data
    )


def test_types_of_64_bits_come_back_as_they_are_without(tmp_path):
    data = torch.arange(60, dtype=torch.float64).reshape(1, 3, 4, 5) / 7
    tio.ScalarImage(tensor=data).save(tmp_path / "a.nii")
    subject = tio.Subject(a=tio.ScalarImage(tmp_path / "a.nii"))
    for transform in (None, tio.ZNormalization()):
        plain = tio.SubjectsDataset([subject], transform)[0].a.data
        for _ in range(2):
            found = tio.SubjectsDataset([subject], transform, cache=tio.Cache(tmp_path / "cache"))[0].a.data
            assert found.dtype == plain.dtype == torch.float64 and torch.equal(found, plain)


def test_a_queue(subjects, tmp_path):
    def queue(cache, pick=range(4)):
        dataset = Subset(tio.SubjectsDataset(subjects, PIPELINE, cache=cache), list(pick))
        return drawn(tio.Queue(dataset, 6, 3, tio.UniformSampler(8), generator=torch.Generator().manual_seed(5)))

    plain, cache = queue(None), tio.Cache(tmp_path / "cache")
    for _ in range(2):
        same(plain, queue(cache))
    assert cache.info().entries == 4


def test_tensors_are_not_kept_and_it_is_said(tmp_path):
    held = [tensors(0), tensors(1)]
    dataset = tio.SubjectsDataset(held, cache=tio.Cache(tmp_path))
    with pytest.warns(UserWarning, match="is no file, but an array in memory"):
        assert dataset[0].t1.data.data_ptr() == held[0].t1.data.data_ptr()
    with pytest.raises(TypeError, match="cache must be a Cache, got 3"):
        tio.SubjectsDataset(held, cache=3)
