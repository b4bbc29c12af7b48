"""A cache under a URL gives what one in a folder gives, and what is computed without it."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from data.served import server as server  # a fixture
from data.test_cache import Counted, same_leaf

import medjax as mj
from medjax import cli
from medjax.data import remote, zarr

KEY = jax.random.key(3)
PIPELINE = mj.Compose([mj.ZNormalization(), mj.RandomNoise(p=0.5)])


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Three subjects in files."""
    folder, made = tmp_path_factory.mktemp("subjects"), []
    for i in range(3):
        data = np.random.default_rng(i).normal(size=(1, 9, 8, 7))
        mj.ScalarImage((100 * data).astype(np.int16), np.diag([1.0, 2, 3, 1])).save(folder / f"{i}.nii.gz")
        mj.LabelMap((data > 0.5).astype(np.uint8), np.diag([1.0, 2, 3, 1])).save(folder / f"{i}_label.nii.gz")
        t1, label = mj.ScalarImage(folder / f"{i}.nii.gz", site=i), mj.LabelMap(folder / f"{i}_label.nii.gz")
        made.append(mj.Subject(t1=t1, label=label, tip=mj.Points([[i, 2.0, 3.0]]), number=i))
    return made


@pytest.fixture
def url(tmp_path):
    return f"file://{tmp_path}/cache"


def equal(one, other):
    """Assert that two subjects, or batches, hold the same, bit by bit."""
    assert list(one) == list(other) and one.metadata == other.metadata
    jax.tree.map(same_leaf, one, other)
    for name, image in one.images.items():
        assert image.dtype == other[name].dtype and type(image) is type(other[name])
        assert image.metadata == other[name].metadata and image.path == other[name].path


def test_subjects_are_what_they_are_without(subjects, url):
    for reads in (3, 0):
        dataset = Counted(subjects, cache=mj.Cache(url))
        for index, subject in enumerate(subjects):
            equal(dataset[index], subject.load())
        assert dataset.reads == reads
    cache = pickle.loads(pickle.dumps(mj.Cache(url, limit="1GB", dtype="float16")))
    assert (cache.folder, cache.limit, cache.dtype) == (url, 10**9, np.float16)
    assert cache.check() == [] and cache.info().entries == 3


def test_a_loader_and_a_queue_give_what_they_give_without(subjects, url):
    def drawn(dataset):
        options = {"samples_per_volume": 2, "max_length": 4}
        queue = mj.PatchQueue(dataset, mj.UniformSampler(5), 3, KEY, **options)
        return [*mj.loader(dataset, 3, KEY), *queue]

    plain, cached = drawn(mj.SubjectsDataset(subjects, PIPELINE)), Counted(subjects, PIPELINE, cache=mj.Cache(url))
    for _ in range(2):
        for one, other in zip(plain, drawn(cached), strict=True):
            equal(one, other)
    assert cached.reads <= 6  # threads may read what is just being kept


def test_a_chunk_that_has_changed_is_found_and_the_entry_made_anew(subjects, url, tmp_path, capsys):
    for found_by in ("use", "check"):
        mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0]
        shard = next(tmp_path.glob("cache/*/*/0/c/0/0/0/0"))
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 4
        shard.write_bytes(data)
        if found_by == "use":
            with pytest.warns(
                UserWarning, match=r"an entry of the cache file://.* is damaged and is made anew: .*igest"
            ):
                equal(mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0], subjects[0].load())
            assert cli.main(["cache", "check", url]) == 0
        else:
            assert cli.main(["cache", "check", url]) == 1
            assert "removed, as it is damaged" in capsys.readouterr().out and mj.Cache(url).info().entries == 0


def test_what_was_not_used_for_the_longest_time_leaves_at_the_limit(subjects, url, tmp_path):
    mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0]
    limit = int(2.5 * mj.Cache(url).info().bytes)
    for index in (1, 0, 2):
        for mark in tmp_path.glob("cache/*/used"):  # as if an hour had passed
            mark.write_text(str(float(mark.read_text()) - 3600))
        mj.SubjectsDataset(subjects, cache=mj.Cache(url, limit=limit))[index]
        assert mj.Cache(url).info().bytes <= limit
    dataset = Counted(subjects, cache=mj.Cache(url))
    assert [dataset[index] and dataset.reads for index in (0, 2, 1)] == [0, 0, 1]


def test_the_command_line_takes_a_url(subjects, url, tmp_path, capsys):
    mj.SubjectsDataset(subjects, PIPELINE, cache=mj.Cache(url, dtype="float16")).prepared(0)
    assert cli.main(["cache", "info", url]) == 0
    assert f"{url}: 1 subjects, 0.000 GB, kept as float16 with an error of at most" in capsys.readouterr().out
    (tmp_path / "cache" / "notes.txt").write_text("mine")
    assert cli.main(["cache", "clear", url]) == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["notes.txt"]


def test_over_a_web_server_it_is_read_and_what_is_not_there_is_made(subjects, server, url, capsys):
    mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0]
    dataset = Counted(subjects, cache=mj.Cache(f"{server.url}cache"))
    equal(dataset[0], subjects[0].load())
    assert dataset.reads == 0
    with pytest.warns(
        UserWarning, match=r"not everything is kept in the cache http://.*/cache: .* is only read"
    ) as told:
        for index in (1, 2, 1):
            equal(dataset[index], subjects[index].load())
    assert len(told) == 1 and dataset.reads == 3
    assert cli.main(["cache", "info", f"{server.url}cache"]) == 1
    assert "is only read: fill it, look through it and empty it where it lies" in capsys.readouterr().err


def test_a_server_that_is_not_there_stops_nothing(subjects, monkeypatch):
    monkeypatch.setattr(zarr, "RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    dataset = mj.SubjectsDataset(subjects, cache=mj.Cache("http://127.0.0.1:9/cache"))  # nobody listens there
    with pytest.warns(UserWarning, match=r"not everything is kept in the cache http://127.0.0.1:9/cache: .*connect"):
        equal(dataset[0], subjects[0].load())
    equal(dataset[1], subjects[1].load())


def test_a_forked_child_that_cannot_use_it_says_so(subjects, url, monkeypatch):
    mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0]
    monkeypatch.setattr(remote.Fork, "useless", True)
    monkeypatch.setattr(remote.Fork, "ask", None)
    with pytest.raises(OSError, match="cannot be used in a process forked from one that has tensorstore"):
        mj.Cache(url).info()
    monkeypatch.setattr(remote.Fork, "ask", elsewhere)
    assert mj.Cache(url).info().entries == 1
    equal(mj.SubjectsDataset(subjects, cache=mj.Cache(url))[0], subjects[0].load())


def elsewhere(function, arguments):
    """What another process would answer."""
    function, arguments = pickle.loads(pickle.dumps((function, arguments)))
    remote.Fork.useless = False
    try:
        return pickle.loads(pickle.dumps(function(*arguments)))
    finally:
        remote.Fork.useless = True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.long)])
def test_whoever_fills_it_is_killed_at_any_moment_and_need_not_be_alone(tmp_path, kills):
    command = [sys.executable, Path(__file__).with_name("fill_and_kill.py"), tmp_path, str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    found, both = json.loads(done.stdout)
    assert len(found) == kills and both == 6
    if kills > 10:
        assert len({entries for entries, _ in found}) > 1 and any(parts for _, parts in found)
        print(f"{kills} kills; entries: {[entries for entries, _ in found]}; parts: {[parts for _, parts in found]}")


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("ftp://bucket/cache",), ValueError, "folder must be the path of a folder on a disk, or a text .*gs://"),
        ((Path("gs://bucket/cache"),), ValueError, "folder must be the path of a folder on a disk, or a text .*gs://"),
        (("http://host/cache", "2GB"), ValueError, "limit must be None for what is only read, got '2GB'"),
    ],
)
def test_arguments_that_make_no_sense(arguments, error, text):
    with pytest.raises(error, match=text):
        mj.Cache(*arguments)


def test_a_url_that_names_no_bucket_is_an_error_where_it_is_first_used(subjects):
    with pytest.raises(ValueError, match=r"folder='gs://B/x/' cannot be opened: .*bucket"):
        mj.SubjectsDataset(subjects, cache=mj.Cache("gs://B/x"))[0]
