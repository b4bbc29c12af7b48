"""Images and subjects of tensors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from conftest import OBLIQUE

import medjax as mj
import torch_bridge as tio


def test_an_image_says_what_medjax_says_of_it(tmp_path):
    image = tensors().t1
    image.save(tmp_path / "t1.nii.gz")
    for mine in (image, tio.ScalarImage(tmp_path / "t1.nii.gz")):
        theirs = mj.ScalarImage(tmp_path / "t1.nii.gz")
        for name in ("shape", "spatial_shape", "spacing", "origin"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=1e-5)
        assert mine.orientation == theirs.orientation
        np.testing.assert_allclose(mine.affine, theirs.affine, rtol=1e-5)
        np.testing.assert_allclose(mine.direction, np.ravel(theirs.direction), atol=1e-6)
        np.testing.assert_allclose(mine.bounds, theirs.bounds, rtol=1e-5)
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
        assert isinstance(mine.data, torch.Tensor) and mine[tio.DATA] is mine.data
        assert mine[tio.AFFINE].dtype == torch.float64 and mine[tio.TYPE] == "intensity"


def test_a_file_is_read_once_it_is_looked_at(tmp_path):
    subjects = files(tmp_path)
    image = subjects[0].t1
    assert image.shape == (1, 20, 24, 16) and image._tensor is None
    assert image.data is image.data
    assert image.path.name == "0_t1.nii.gz" and str(image.path) in repr(image)


def test_a_transform_keeps_nothing_in_the_subject_it_reads(tmp_path):
    subjects = files(tmp_path)
    tio.RescaleIntensity()(subjects[0])
    _ = tio.SubjectsDataset(subjects)[0].t1.data
    assert subjects[0].t1._tensor is None


def test_images_refuse_what_is_none():
    with pytest.warns(FutureWarning, match="without a type"):
        assert isinstance(tio.Image(tensor=torch.zeros(1, 2, 2, 2)), tio.ScalarImage)
    assert isinstance(tio.Image(tensor=torch.zeros(1, 2, 2, 2), type=tio.LABEL), tio.LabelMap)
    with pytest.raises(ValueError, match="always 'label'"):
        tio.LabelMap(tensor=torch.zeros(1, 2, 2, 2), type=tio.INTENSITY)
    with pytest.raises(FileNotFoundError, match="absent"):
        tio.ScalarImage("absent.nii")
    with pytest.raises(ValueError, match="4D|C, I, J, K"):
        tio.ScalarImage(tensor=torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="a path or a tensor"):
        tio.ScalarImage()
    with pytest.raises(ValueError, match="C, I, J, K"):
        tensors().t1.set_data(torch.zeros(3))


def test_items_are_one_store():
    subject = tensors(age=45)
    assert subject.age == 45 and subject["t1"] is subject.t1 and "age" in subject
    assert list(subject.keys()) == ["t1", "t2", "label", "age"] and len(subject) == 3
    subject["t1"] = subject.t2
    assert subject.t1 is subject["t2"]
    subject.extra = 3
    assert subject["extra"] == 3
    with pytest.raises(KeyError, match="t1, t2, label"):
        subject["flair"]
    with pytest.raises(AttributeError, match="flair"):
        _ = subject.flair
    subject.remove_image("t2")
    assert "t2" not in subject
    assert tio.Subject(t1=None).t1 is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_subjects_are_copied_and_pickled(copied, tmp_path):
    subjects = files(tmp_path)
    for subject in (tensors(age=4), subjects[0], tio.SubjectsDataset(subjects, tio.RandomNoise())[0]):
        other = copied(subject)
        torch.manual_seed(0)
        expected = subject.t1.data
        torch.manual_seed(0)
        assert torch.equal(other.t1.data, expected)
        assert other.t1.data.data_ptr() != expected.data_ptr()
        np.testing.assert_array_equal(other.t1.affine, subject.t1.affine)


def test_a_pickle_holds_the_voxels_once():
    subject = tensors()
    size = sum(image.numpy().nbytes for image in subject.get_images_dict(intensity_only=False).values())
    assert len(pickle.dumps(subject)) < size + 10000


def test_it_moves_and_changes_type():
    subject = tensors(age=4).to(torch.float64)
    assert subject.t1.data.dtype == torch.float64 and subject.age == 4
    assert tensors().to("cpu").t1.device.type == "cpu"


def test_an_array_and_a_file_order_are_taken():
    array = np.asfortranarray(np.arange(24.0).reshape(1, 2, 3, 4))
    image = tio.ScalarImage(tensor=array, affine=OBLIQUE)
    assert torch.equal(tio.Flip(axes=1)(image).data, image.data.flip(2))


def test_subjects_of_torchio_are_taken_as_they_are(tmp_path):
    torchio = pytest.importorskip("torchio")
    tensors().t1.save(tmp_path / "t1.nii.gz")
    theirs = torchio.Subject(
        t1=torchio.ScalarImage(tmp_path / "t1.nii.gz"),
        label=torchio.LabelMap(tensor=torch.ones(1, 20, 24, 16), affine=tensors().t1.affine),
        age=3,
    )
    mine = tio.from_torchio(theirs)
    assert isinstance(mine.label, tio.LabelMap) and mine.age == 3
    torch.testing.assert_close(mine.t1.data, tensors().t1.data)
    assert tio.Flip(axes=0)(theirs).label.data.sum() == 20 * 24 * 16
    assert len(tio.SubjectsDataset([theirs], tio.RandomNoise())[0].t1.data) == 1


def test_points_move_with_the_subject():
    subject = tensors(corner=tio.Points([[200.0, -150.0, 320.0]]))
    moved = tio.Affine(translation=(5, 0, 0), degrees=(0, 0, 0), scales=(1, 1, 1))(subject)
    expected = mj.Affine(translation=(5, 0, 0), degrees=(0, 0, 0), scales=(1, 1, 1))(subject.as_medjax())
    np.testing.assert_allclose(moved.corner.xyz, expected.corner.xyz)
    assert np.abs(np.asarray(moved.corner.xyz) - subject.corner.xyz).max() > 4
