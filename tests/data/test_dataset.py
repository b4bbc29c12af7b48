import pickle
import re

import grain
import jax
import numpy as np
import pytest
from conftest import small_subject

import medjax as mj


@pytest.fixture
def paths(tmp_path):
    """Files of a small subject."""
    subject = small_subject(np.eye(4), (7, 6, 5))
    subject.t1.save(tmp_path / "t1.nii.gz")
    subject.label.save(tmp_path / "label.nii.gz")
    return tmp_path / "t1.nii.gz", tmp_path / "label.nii.gz"


def from_files(paths, **metadata):
    return mj.Subject(t1=mj.ScalarImage(paths[0]), label=mj.LabelMap(paths[1]), **metadata)


def test_reads_into_a_copy_and_transforms(paths):
    subject = from_files(paths, name="a")
    dataset = mj.SubjectsDataset([subject], mj.CropOrPad(4))
    assert len(dataset) == 1
    for index in (0, -1, np.int64(0)):
        found = dataset[index]
        assert found.t1.shape == found.label.shape == (1, 4, 4, 4) and found.name == "a"
    assert subject.t1._data is None and subject.label._data is None
    np.testing.assert_array_equal(dataset.read(0).label.numpy(), from_files(paths).label.numpy())


def test_random_transforms_take_a_key(subject):
    dataset = mj.SubjectsDataset([subject], mj.RandomNoise())
    key = jax.random.key(3)
    expected = mj.RandomNoise()(subject, key).t1.data
    np.testing.assert_array_equal(dataset.get(0, key).t1.data, expected)
    with pytest.raises(
        TypeError, match=re.escape("RandomNoise draws random numbers, so it needs a key: dataset.get(0,")
    ):
        dataset[0]
    with pytest.raises(TypeError, match="p|key"):
        mj.SubjectsDataset([subject], mj.Blur(1.0, p=0.5))[0]
    assert mj.SubjectsDataset([subject], mj.RandomNoise()).read(0).t1.shape == subject.t1.shape


def test_is_a_source_of_decoded_subjects_for_grain(paths):
    source = grain.MapDataset.source(mj.SubjectsDataset([from_files(paths, age=n) for n in range(3)]))
    assert [subject.age for subject in source] == [0, 1, 2]
    assert source[1].t1.numpy().shape == (1, 7, 6, 5)
    ahead = source.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    assert [subject.label.shape for subject in ahead] == [(1, 7, 6, 5)] * 3


def test_is_a_sequence_that_ends(subject):
    dataset = mj.SubjectsDataset([subject, subject])
    assert [s.name for s in dataset] == ["small", "small"]
    with pytest.raises(IndexError, match="index 2 is beyond the 2 subjects"):
        dataset[2]


def test_pickles_as_paths(paths):
    dataset = mj.SubjectsDataset([from_files(paths)], mj.CropOrPad(4))
    again = pickle.loads(pickle.dumps(dataset))
    assert again.subjects[0].t1._data is None
    np.testing.assert_array_equal(again[0].t1.numpy(), dataset[0].t1.numpy())


def test_errors_name_the_subject(paths, tmp_path, subject):
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(paths[0].read_bytes()[:200])
    subjects = [
        subject,
        from_files((damaged, paths[1]), name="half", site="b" * 500),
        from_files((tmp_path / "no.nii.gz", paths[1]), name="gone"),
        subject.replace(label=mj.LabelMap(np.zeros((1, 23, 31, 18), np.uint8), subject.t1.affine)),
    ]
    dataset = mj.SubjectsDataset(subjects, mj.ZNormalization(masking_method="label"))
    with pytest.raises(ValueError, match=rf"^subject 1 \(name='half', t1: {re.escape(str(damaged))}.*damaged") as error:
        dataset[1]
    assert error.value.__cause__ is not None and "bbb" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"subject 2 \(name='gone'") as error:
        dataset[2]
    assert error.value.filename == str(tmp_path / "no.nii.gz")
    with pytest.raises(ValueError, match=r"^subject 3 \(name='small'\): ZNormalization: the mask"):
        dataset[3]


def test_an_index_error_inside_does_not_end_the_sequence(subject):
    def reader(path):
        raise IndexError("list index out of range")

    broken = subject.replace(t1=mj.ScalarImage("x.nii", reader=reader))
    with pytest.raises(RuntimeError, match=r"^subject 1 .*: list index out of range"):
        list(mj.SubjectsDataset([subject, broken]))


def test_bad_arguments(subject):
    with pytest.raises(TypeError, match=r"subjects\[1\] is no Subject but a ScalarImage"):
        mj.SubjectsDataset([subject, subject.t1])
    with pytest.raises(TypeError, match="transform must be a Transform or None"):
        mj.SubjectsDataset([subject], abs)
