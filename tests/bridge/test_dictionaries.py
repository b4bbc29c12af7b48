"""Subjects and images are dictionaries, to whatever asks; what leaves to a user's code is the user's."""

import copy
import pickle

import numpy as np
import pytest
import torch
from bridge.shared import files, tensors
from bridge.shared import time_limit as time_limit
from torch.utils.data import DataLoader, default_collate

import medjax as mj
import torch_bridge as tio

DOUBLED = 2.0


def double(x):
    """A function that JAX traces, and that shows whether it was called."""
    return DOUBLED * x


def pending(**items):
    return tio.SubjectsDataset([tensors(**items)], mj.Lambda(double, ["intensity"]))[0]


WAYS = {
    "stars": lambda s: dict(**s),
    "dict": dict,
    "display": lambda s: {**s},
    "update": lambda s: [d := {}, d.update(s)][0],
    "or": lambda s: s | {"z": 1},
    "ror": lambda s: {"z": 1} | s,
    "copy": lambda s: s.copy(),
    "shallow": copy.copy,
    "deep": copy.deepcopy,
    "pickle": lambda s: pickle.loads(pickle.dumps(s)),
    "values": lambda s: dict(zip(list(s), s.values(), strict=True)),
    "get": lambda s: {name: s.get(name) for name in s},
    "pop": lambda s: {"t1": s.pop("t1")},
    "reversed": lambda s: {name: s[name] for name in reversed(s)},
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_into_a_pending_subject_finds_what_is_not_transformed(way):
    found = WAYS[way](pending())
    assert torch.equal(found["t1"].data, DOUBLED * tensors().t1.data)


def test_copying_and_pickling_do_not_look():
    subject = pending()
    for made in (copy.copy(subject), copy.deepcopy(subject), pickle.loads(pickle.dumps(subject))):
        assert made._pending is not None
    assert subject._pending is not None and not dict.__len__(subject) and list(dict.keys(subject)) == []


def test_copies_of_a_pending_subject_see_what_was_drawn_once():
    subject = tio.SubjectsDataset([tensors()], tio.RandomNoise())[0]
    other = copy.deepcopy(subject)
    assert torch.equal(subject.t1.data, other.t1.data)


def test_a_subject_is_a_dictionary():
    subject = tensors(age=4)
    assert isinstance(subject, dict) and isinstance(subject.t1, dict)
    subject.update(name="x")
    subject |= {"score": 1.5}
    del subject["age"]
    assert list(subject) == ["t1", "t2", "label", "name", "score"] and "age" not in subject
    assert subject.setdefault("site", 3) == 3 and subject.popitem() == ("site", 3)
    assert subject == subject and subject != tensors() and {subject: 1}[subject] == 1
    assert type(subject | {}) is tio.Subject

    class Mine(tio.Subject):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._extra = 5

    made = tio.Flip(axes=0)(Mine(subject))
    assert type(made) is Mine and made._extra == 5 and copy.deepcopy(made)._extra == 5
    with pytest.raises(TypeError, match="at least one image"):
        tio.Subject(age=3)
    with pytest.raises(ValueError, match="one dictionary"):
        tio.Subject({}, {})


def test_an_image_is_a_dictionary_whose_items_can_be_set():
    image = tio.ScalarImage(tensor=torch.rand(1, 4, 5, 6), affine=np.diag([2, 2, 2, 1.0]), protocol="mprage")
    assert list(image) == ["data", "affine", "protocol", "path", "stem", "type"]
    assert dict(image)["stem"] == "" and image["type"] == "intensity" and image["protocol"] == "mprage"
    image["data"] = torch.zeros(2, 4, 5, 6)
    image["affine"] = np.diag([3, 3, 3, 1.0])
    image["site"] = 7
    assert image.shape == (2, 4, 5, 6) and image.spacing == (3, 3, 3) and image.pop("site") == 7
    image.data = torch.ones(1, 4, 5, 6)
    image.affine = torch.eye(4)
    assert image.tensor.sum() == 120 and image.spacing == (1, 1, 1)
    with pytest.raises(ValueError, match="'stem'"):
        tio.ScalarImage(tensor=torch.ones(1, 2, 2, 2), stem="x")
    with pytest.raises(KeyError, match="protocol"):
        image["absent"]


def test_a_box_lies_where_it_lay():
    subject = tensors()
    box = subject[2:9, 3, :5]
    assert box.t1.shape == (1, 7, 1, 5) and torch.equal(box.t1.data, subject.t1.data[:, 2:9, 3:4, :5])
    np.testing.assert_allclose(box.t1.origin, (subject.t1.affine @ [2, 3, 0, 1])[:3])
    assert torch.equal(subject.t1[-1].data, subject.t1.data[:, -1:])
    with pytest.raises(ValueError, match="step of 1"):
        subject.t1[::2]


def sources(subjects):
    """Whatever hands subjects, patches or batches of these to a user's code."""
    plain = tio.SubjectsDataset(subjects)
    yield plain[0]
    yield tio.SubjectsDataset(subjects, lambda s: s)[0]
    yield tio.SubjectsDataset(subjects, tio.Compose([]))[0]
    yield tio.SubjectsDataset(subjects, tio.RandomNoise(p=0.0))[0]
    yield tio.RandomNoise(p=0.0)(subjects[0])
    yield tio.Flip(axes=0)(subjects[0])
    yield tio.GridSampler(subjects[0], (20, 24, 16))[0]
    yield next(iter(tio.UniformSampler((20, 24, 16))(subjects[0], 1)))
    yield next(iter(DataLoader(plain, batch_size=1)))
    yield next(iter(DataLoader(plain, batch_size=None)))
    yield next(iter(tio.SubjectsLoader(plain, batch_size=1)))
    yield default_collate([plain[0]]).unstacked()[0]
    yield tio.SubjectsDataset.from_batch(next(iter(DataLoader(plain))))[0]
    yield next(iter(tio.Queue(plain, 1, 1, tio.UniformSampler((20, 24, 16)))))


def test_whatever_is_handed_out_may_be_written_to():
    subject = tensors(notes=["a"], scores=np.ones(3), weights=torch.ones(2))
    subject.t1["table"] = {"x": [1]}
    expected = copy.deepcopy(subject)
    for number, found in enumerate(sources([subject])):
        for image in found.get_images(intensity_only=False):
            image.data.fill_(9)
            image.affine[..., 0, 3] += 100
            table = image.get("table")
            if isinstance(table, dict):
                table["x"].append(2)
        for item in (found["scores"], found["weights"]):
            item[...] = 9
        if isinstance(found["notes"], list):  # torch collates lists to tuples
            found["notes"].append("b")
        found["new"] = 1
        for name in ("t1", "t2", "label"):
            assert torch.equal(subject[name].data, expected[name].data), (number, name)
            np.testing.assert_array_equal(subject[name].affine, expected[name].affine)
        assert subject.notes == ["a"] and subject.scores.sum() == 3 and subject.weights.sum() == 2, number
        assert subject.t1["table"] == {"x": [1]} and "new" not in subject


def test_path_stem_and_metadata_stay_with_an_image(tmp_path):
    subjects = files(tmp_path, 2)
    for subject in subjects:
        subject.t1["protocol"] = "mprage"
    dataset = tio.SubjectsDataset(subjects, tio.RandomFlip(axes=(0, 1)))
    flipped = tio.Flip(axes=0)
    queue = tio.Queue(dataset, 2, 1, tio.UniformSampler(4), shuffle_subjects=False)
    for found in (flipped(subjects[0]), dataset[0], flipped(subjects[0])[1:3], next(iter(queue)),
                  tio.UniformSampler(4)(subjects[0]), tio.GridSampler(subjects[0], 4)[0], copy.copy(subjects[0])):  # fmt: skip
        assert found.t1.path == tmp_path / "0_t1.nii.gz" and found.t1["stem"] == "0_t1"
        assert found.t1["path"] == str(found.t1.path) and found.t1["protocol"] == "mprage"
        assert found.label.path.name == "0_label.nii.gz" and found.label["type"] == "label"
    assert flipped(subjects[0].t1).path == subjects[0].t1.path
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["t1"]["stem"] == ["0_t1", "1_t1"] and batch["t1"]["protocol"] == ["mprage"] * 2
    assert batch["t1"]["type"] == ["intensity"] * 2 and isinstance(batch["t1"], dict) and isinstance(batch, dict)
    assert [s.t1["stem"] for s in batch.unstacked()] == ["0_t1", "1_t1"]
    batch["t1"][tio.DATA] = batch["t1"][tio.DATA] + 1
    batch["t1"]["fold"] = [3, 4]
    assert batch["t1"]["fold"].tolist() == [3, 4] and batch.unstacked()[1].t1["fold"] == 4
    kept = tio.Flip(axes=0, keep={"t1": "before"})(subjects[0])
    assert kept.before["protocol"] == "mprage" and kept.before.path == subjects[0].t1.path


def test_classes_of_the_users_stay():
    class Dose(tio.ScalarImage):
        pass

    subject = tio.Subject(dose=Dose(tensor=torch.rand(1, 4, 4, 4)))
    assert type(tio.Flip(axes=0)(subject).dose) is Dose
    batch = default_collate([subject, subject])
    assert type(tio.Flip(axes=0).batch(batch).dose) is Dose and type(batch.unstacked()[0].dose) is Dose


def test_a_batch_of_several_types_has_the_one_that_holds_them():
    data = torch.arange(64.0).reshape(1, 4, 4, 4)
    mixed = [tio.Subject(t1=tio.ScalarImage(tensor=data.to(d))) for d in (torch.int16, torch.float32)]
    for batch in (default_collate(mixed), next(iter(DataLoader(tio.SubjectsDataset(mixed, tio.Flip(axes=0)), 2)))):
        assert batch["t1"][tio.DATA].dtype == torch.float32 and torch.equal(*batch["t1"][tio.DATA])


def test_intensity_images_are_what_is_asked_for_first():
    subject = tensors(age=1)
    assert list(subject.get_images_dict()) == ["t1", "t2"] and len(subject.get_images()) == 2
    assert list(subject.get_images_dict(intensity_only=False)) == subject.get_images_names() == ["t1", "t2", "label"]
    assert list(subject.get_images_dict(False, include=["label"])) == ["label"]
    assert list(subject.get_images_dict(False, exclude=["label"])) == ["t1", "t2"]
    assert subject.get_scalar_image("t1") is subject.t1 and subject.get_label_map("label") is subject.label
    with pytest.raises(TypeError, match="label must be a ScalarImage"):
        subject.get_scalar_image("label")


def test_a_reader_that_gives_no_affine_has_the_identity(tmp_path):
    torch.save(torch.rand(1, 3, 4, 5), tmp_path / "x.pt")
    image = tio.ScalarImage(tmp_path / "x.pt", reader=lambda path: (torch.load(path), None))
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert tio.ScalarImage(tmp_path / "x.pt").shape == (1, 3, 4, 5)
