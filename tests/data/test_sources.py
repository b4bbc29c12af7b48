"""Data sets from folders and tables, subsets and splits."""

import csv
import re
from itertools import product

import jax
import numpy as np
import pandas
import pytest

import medjax as mj
from medjax.data import parts, patterns


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_names_in_braces_become_metadata_and_the_modality_names_the_image(tmp_path):
    touch(
        tmp_path,
        *(f"sub-{i}/anat/sub-{i}_{m}.nii.gz" for i, m in product(("01", "02"), ("dseg", "T1w", "FLAIR"))),
        "sub-03/anat/sub-03_T1w.nii.gz",
        "sub-03/anat/sub-04_T1w.nii.gz",  # the same name twice is the same text twice
        "sub-01/anat/._sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_T1w.json",
    )
    dataset = mj.SubjectsDataset.from_folder(f"{tmp_path}/sub-{{id}}/anat/sub-{{id}}_{{modality}}.nii.gz")
    assert [subject.id for subject in dataset.subjects] == ["01", "02", "03"]
    assert list(dataset.subjects[0].images) == ["FLAIR", "T1w", "dseg"]  # the first is the reference: no label map
    assert list(dataset.subjects[2].images) == ["T1w"]
    assert isinstance(dataset.subjects[1].dseg, mj.LabelMap) and isinstance(dataset.subjects[1].T1w, mj.ScalarImage)
    assert dataset.subjects[1].T1w.path == tmp_path / "sub-02/anat/sub-02_T1w.nii.gz"


@pytest.mark.parametrize(
    "pattern, name, fields",
    [
        ("{id}_{modality}.nii.gz", "case_001_0000.nii.gz", {"id": "case_001", "modality": "0000"}),
        ("{site}/{id}.nii", "a/b.nii", {"site": "a", "id": "b"}),
        ("**/{id}.nii", "a/b/c.nii", {"id": "c"}),
        ("**/{id}.nii", "c.nii", {"id": "c"}),
        ("*/run?_{id}.nii", "x/run1_c.nii", {"id": "c"}),
        ("[a]{id}{n}.nii", "[a]xy.nii", {"id": "x", "n": "y"}),
        ("a.b/{id}+.nii", "a.b/x+.nii", {"id": "x"}),
        (".hidden/{id}.nii", ".hidden/x.nii", {"id": "x"}),
        ("{dicom}", "folder/1.dcm", {"dicom": "folder"}),
    ],
)
def test_what_stands_in_a_path_for_a_name(tmp_path, pattern, name, fields):
    touch(tmp_path, name)
    (found,) = patterns.find(f"{tmp_path}/{pattern}")
    assert found.fields == fields


def test_a_pattern_that_is_filled_in_is_found_again(tmp_path):
    pattern = "sub-{id}/{site}_{modality}.nii.gz"
    cases = [
        dict(zip(("id", "site", "modality"), case)) for case in product(("1", "a-b"), ("x", "Ü [1]"), ("t1", "t2"))
    ]
    touch(tmp_path, *(str(patterns.filled(pattern, case)) for case in cases))
    found = [one.fields for one in patterns.find(f"{tmp_path}/{pattern}")]
    assert sorted(found, key=str) == sorted(cases, key=str)


@pytest.mark.parametrize("value", ["", ".", "..", "../x", "a/b", "a\\b", "/x", "a\0b", ".hidden"])
def test_no_value_leads_out_of_the_folder(value):
    with pytest.raises(ValueError, match="id="):
        patterns.filled("{id}/{modality}.nii.gz", {"id": value, "modality": "t1"})


@pytest.mark.parametrize(
    "pattern", ["../{id}.nii", "/{id}.nii", "{id.__class__}.nii", "{0}.nii", "{id!r}", "{id:5}", "{id"]
)
def test_a_pattern_holds_plain_names_and_is_relative(pattern):
    with pytest.raises(ValueError, match="pattern=|names="):
        patterns.filled(pattern, {"id": "a"})


def test_what_is_not_there_or_there_twice_is_said(tmp_path):
    touch(tmp_path, "a/1_t1.nii.gz", "b/1_t1.nii.gz")
    with pytest.raises(FileNotFoundError, match=re.escape("fits '{id}_t2.nii.gz'")):
        mj.SubjectsDataset.from_folder(tmp_path / "{id}_t2.nii.gz")
    with pytest.raises(ValueError, match="both 't1' of one subject"):
        mj.SubjectsDataset.from_folder(tmp_path / "*/{id}_{modality}.nii.gz")
    with pytest.raises(ValueError, match="'t1' is the name of an image too"):
        mj.SubjectsDataset.from_folder(tmp_path / "{t1}/{id}_{modality}.nii.gz")


ROWS = [
    {"id": "007", "t1": "a.nii.gz", "seg": "s.nii.gz", "age": 45, "weight": 7.5, "note": "x, y"},
    {"id": "1", "t1": "sub/b.nii.gz", "seg": "", "age": "", "weight": 8, "note": "ü"},
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_has_a_subject_in_each_row(tmp_path, delimiter):
    with open(tmp_path / "table.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    dataset = mj.SubjectsDataset.from_csv(tmp_path / "table.csv", images=["t1"], labels=["seg"])
    frame = pandas.read_csv(tmp_path / "table.csv", sep=delimiter, dtype={"id": str})
    other = mj.SubjectsDataset.from_csv(frame, images=["t1"], labels=["seg"], folder=tmp_path)
    for found in (dataset, other):
        one, two = found.subjects
        assert one.metadata == {"id": "007", "age": 45, "weight": 7.5, "note": "x, y"}
        assert two.metadata == {"id": "1", "weight": 8, "note": "ü"}
        assert list(one.images) == ["t1", "seg"] and list(two.images) == ["t1"]
        assert two.t1.path == tmp_path / "sub/b.nii.gz" and one.seg.is_label


def test_what_a_table_lacks_is_said(tmp_path):
    (tmp_path / "t.csv").write_text("id,t1\n1,a.nii\n2\n")
    with pytest.raises(ValueError, match="row 3, has 1 entries for 2 columns"):
        mj.SubjectsDataset.from_csv(tmp_path / "t.csv", images=["t1"])
    (tmp_path / "t.csv").write_text("id,t1\n1,a.nii\n")
    with pytest.raises(ValueError, match="no column 'T1'"):
        mj.SubjectsDataset.from_csv(tmp_path / "t.csv", images=["T1"])
    (tmp_path / "t.csv").write_text("id,id\n1,2\n")
    with pytest.raises(ValueError, match="each once"):
        mj.SubjectsDataset.from_csv(tmp_path / "t.csv")
    with pytest.raises(TypeError, match="DataFrame"):
        mj.SubjectsDataset.from_csv([1, 2])
    with pytest.raises(FileNotFoundError):
        mj.SubjectsDataset.from_csv(tmp_path / "no.csv")


def numbered(ids):
    image = mj.ScalarImage(np.zeros((1, 2, 2, 2), np.float32))
    return mj.SubjectsDataset([mj.Subject(t1=image, id=i, place=n) for n, i in enumerate(ids)], mj.Blur(1.0))


def places(dataset):
    return [subject.place for subject in dataset.subjects]


def test_a_split_is_a_partition_of_the_sizes_asked_for():
    dataset = numbered(range(40))
    made = dataset.split((0.5, 0.25, 0.25), key=jax.random.key(0))
    assert [len(part) for part in made] == [20, 10, 10]
    assert sorted(place for part in made for place in places(part)) == list(range(40))
    assert all(places(part) == sorted(places(part)) and part.transform is dataset.transform for part in made)
    assert places(dataset.split((0.5, 0.25, 0.25), key=jax.random.key(0))[0]) == places(made[0])
    assert places(dataset.split((0.5, 0.25, 0.25), key=jax.random.key(1))[0]) != places(made[0])


def test_every_subject_is_equally_likely_in_a_part():
    subjects = numbered(range(10)).subjects
    drawn = [parts.divided(subjects, (0.3, 0.7), None, jax.random.key(seed))[0] for seed in range(40)]
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.sum() == 120 and np.all(np.abs(counts - 12) < 4.5 * np.sqrt(40 * 0.3 * 0.7))


def test_a_person_is_in_one_part_and_stays_there_when_others_come():
    rng = np.random.default_rng(0)
    people = [f"p{n}" for n in rng.integers(0, 60, 200)]
    train, test = numbered(people).split((0.8, 0.2), by="id", key=jax.random.key(0))
    ids = [{subject.id for subject in part.subjects} for part in (train, test)]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(people)
    assert abs(len(train) - 160) <= max(people.count(p) for p in people)
    more = numbered([*people, *(f"q{n}" for n in range(6))]).split((0.8, 0.2), by="id", key=jax.random.key(0))
    moved = ids[1] ^ {s.id for s in more[1].subjects if s.id.startswith("p")}
    assert len(moved) <= 4


def test_subsets():
    dataset = numbered("abcd")
    assert places(dataset.subset([2, -4])) == [2, 0]
    assert places(dataset.subset(lambda subject: subject.id > "b")) == [2, 3]
    with pytest.raises(TypeError, match=r"which\[0\] must be a whole number"):
        dataset.subset([True, False, True, True])
    with pytest.raises(IndexError):
        dataset.subset([4])


@pytest.mark.parametrize(
    "fractions, by, problem",
    [
        ((0.5, 0.6), None, "add up to 1"),
        ((1.5, -0.5), None, "positive"),
        (0.5, None, "fractions"),
        ((0.98, 0.02), None, "leave a part empty: there are 4 subjects"),
        ((0.5, 0.5), "Id", "no such metadata.*'id'"),
        ((0.5, 0.5), "t1", "no such metadata"),
    ],
)
def test_splits_that_make_no_sense(fractions, by, problem):
    with pytest.raises(ValueError, match=problem):
        numbered("abab").split(fractions, by=by, key=jax.random.key(0))
    with pytest.raises(TypeError, match="key"):
        numbered("abab").split((0.5, 0.5), key=0)
