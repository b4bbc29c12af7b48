"""A cache gives what is computed without it, whatever happens while it is filled, and never what is no longer true."""

import os
import pickle
import random
import signal
import sys
import time
import warnings

import jax
import nibabel
import numpy as np
import pytest
from conftest import OBLIQUE, blobs

import medjax as mj
from medjax import cli
from medjax.data import keyed

KEY = jax.random.key(3)
SHAPE = (14, 13, 12)
RANDOM = [mj.RandomAffine(p=0.75), mj.RandomNoise(p=0.5)]
NORMALISED = mj.Compose([mj.ZNormalization(), *RANDOM])
RESAMPLED = mj.Compose(
    [mj.Compose([mj.ToCanonical(), mj.Resample(1.3), mj.CropOrPad(14)]), mj.ZNormalization(), *RANDOM]
)


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """Four subjects in files, with all that may lie beside voxels."""
    folder, made = tmp_path_factory.mktemp("subjects"), []
    for i in range(4):
        data = blobs(SHAPE, i)
        t1 = nibabel.Nifti1Image((1000 * data).astype(np.int16), OBLIQUE)
        t1.header["descrip"], t1.header["cal_max"] = b"a series", 3.5
        t1.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"a comment"))
        nibabel.save(t1, folder / f"{i}_t1.nii.gz")
        nibabel.save(nibabel.Nifti1Image((data > 0.5).astype(np.uint8), OBLIQUE), folder / f"{i}_label.nii.gz")
        made.append(
            mj.Subject(
                t1=mj.ScalarImage(folder / f"{i}_t1.nii.gz", site=f"site {i}", call=print),
                label=mj.LabelMap(folder / f"{i}_label.nii.gz"),
                t2=None,
                tip=mj.Points([[200.0 + i, -150, 320]], ["tip"]),
                y=np.int32(i),
                number=i,
            )
        )
    return made


@pytest.fixture
def as_users_compile():
    """Programs as users have them, where XLA fuses more and rounds otherwise."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


class Counted(mj.SubjectsDataset):
    """Counts what is read."""

    reads = 0

    def read(self, *arguments):
        self.reads += 1
        return super().read(*arguments)


def same_leaf(one, other):
    """Assert that two arrays, or keys, are equal."""
    if jax.numpy.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    np.testing.assert_array_equal(one, other)


def equal(one, other):
    """Assert that two subjects, or batches, hold the same, bit by bit."""
    assert list(one) == list(other)
    jax.tree.map(same_leaf, one, other)
    for name, image in one.images.items():
        assert image.dtype == other[name].dtype and type(image) is type(other[name])
        np.testing.assert_array_equal(image.affine, other[name].affine)
        assert image.metadata == other[name].metadata and image.assumed == other[name].assumed
    assert one.metadata == other.metadata


def reads_of(subjects, cache, pipeline=NORMALISED):
    """How many files an epoch reads."""
    dataset = Counted(subjects, pipeline, cache=cache)
    for index in range(len(dataset)):
        dataset.prepared(index)
    return dataset.reads


# -- what is kept is what is computed


def test_what_is_kept_is_the_subject_before_anything_random(subjects, tmp_path):
    dataset = Counted(subjects, RESAMPLED, cache=mj.Cache(tmp_path))
    head = mj.Compose(RESAMPLED.members[:2])
    for _ in range(2):
        for index, subject in enumerate(subjects):
            expected = head(subject)
            found = dataset.prepared(index)
            equal(found, expected)
            assert found.t1.path is None and found.tip.labels == ("tip",)
            header = found.t1.metadata["header"]
            assert header["descrip"] == b"a series" and header.extensions[0].get_content() == b"a comment"
            nibabel.save(found.t1.to_nibabel(), tmp_path / "again.nii")
            whole, rest = RESAMPLED(subject, KEY), dataset.get(index, KEY)
            np.testing.assert_allclose(rest.t1.numpy(), whole.t1.numpy(), atol=1e-3)
            np.testing.assert_array_equal(rest.label.numpy(), whole.label.numpy())
    assert dataset.reads == len(subjects)


def test_without_steps_images_are_kept_as_they_are_read(subjects, tmp_path):
    for _ in range(2):
        dataset = mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path))
        assert dataset.rest is None
        for index, subject in enumerate(subjects):
            equal(dataset[index], subject.load())
            assert dataset[index].t1.path == subject.t1.path and dataset[index].t1.dtype == np.int16
            assert pickle.loads(pickle.dumps(dataset[index])).t1.metadata["site"] == f"site {index}"
    found = dataset[0].t1.data
    assert found.ctypes.data % 64 == 0 and found.flags.c_contiguous
    found[:] = 0  # a copy of the page: it reaches no file
    equal(mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path))[0], subjects[0].load())


def test_a_loader_gives_the_batches_that_it_gives_without(subjects, tmp_path, as_users_compile):
    plain = list(mj.loader(mj.SubjectsDataset(subjects, NORMALISED), 3, KEY, epochs=2))
    cached = Counted(subjects, NORMALISED, cache=mj.Cache(tmp_path))
    found = list(mj.loader(cached, 3, KEY, epochs=2))
    assert cached.reads < 8 and mj.Cache(tmp_path).info().entries == 4  # threads may read what is just being kept
    for one, other in zip(plain, found, strict=True):
        equal(one, other)


def test_a_loader_of_what_is_resampled_gives_what_it_gives_of_subjects_resampled_before(subjects, tmp_path):
    """A program that resamples too rounds otherwise, so the one over all steps is only nearly the same."""
    head, rest = mj.Compose(RESAMPLED.members[:2]), mj.Compose([mj.Compose([]), mj.Compose([]), *RANDOM])
    before = list(mj.loader(mj.SubjectsDataset([head(s) for s in subjects], rest), 2, KEY))
    whole = list(mj.loader(mj.SubjectsDataset(subjects, RESAMPLED), 2, KEY))
    for _ in range(2):
        found = list(mj.loader(mj.SubjectsDataset(subjects, RESAMPLED, cache=mj.Cache(tmp_path)), 2, KEY))
        for one, other, near in zip(before, found, whole, strict=True):
            equal(one, other)
            np.testing.assert_allclose(other.t1.data, near.t1.data, atol=1e-3)


@pytest.mark.parametrize("pipeline", [RESAMPLED, mj.Compose([mj.RandomFlip((0, 1)), mj.RandomNoise()])])
def test_a_queue_gives_the_patches_that_it_gives_without(subjects, tmp_path, pipeline, as_users_compile):
    def patches(dataset):
        given = {"samples_per_volume": 3, "max_length": 6, "epochs": 2}
        return list(mj.PatchQueue(dataset, mj.UniformSampler(6), 4, KEY, **given))

    plain = patches(mj.SubjectsDataset(subjects, pipeline))
    cached = Counted(subjects, pipeline, cache=mj.Cache(tmp_path))
    for one, other in zip(plain, patches(cached), strict=True):
        equal(one, other)
    assert cached.reads < 8


def test_metadata_of_the_users_are_those_that_they_give_now(subjects, tmp_path):
    cache, paths = mj.Cache(tmp_path), (subjects[0].t1.path, subjects[0].label.path)
    t1, label = {"site": "x", "a": None}, {"site": "x"}
    for one, other in ((t1, label), ({"site": "y", "a": 3}, label), ({"site": "z"}, {"new": print}), ({}, {})):
        given = mj.Subject(t1=mj.ScalarImage(paths[0], **one), label=mj.LabelMap(paths[1], **other))
        for _ in range(2):
            equal(mj.SubjectsDataset([given], cache=cache)[0], given.load())


def test_images_that_a_head_makes_and_drops_nothing(subjects, tmp_path):
    pipeline = mj.Compose([mj.ZNormalization(keep={"t1": "raw"}), mj.RandomNoise(include=["t1"])])
    for _ in range(2):
        dataset = mj.SubjectsDataset(subjects, pipeline, cache=mj.Cache(tmp_path))
        equal(dataset.prepared(1), pipeline.members[0](subjects[1]))
        assert len(list(mj.loader(dataset, 2, KEY))) == 2


def test_the_settings_of_the_consumer_hold_where_subjects_are_prepared(subjects, tmp_path):
    cache = mj.Cache(tmp_path)
    assert next(iter(mj.loader(mj.SubjectsDataset(subjects, NORMALISED, cache=cache), 2, KEY))).t1.dtype == np.float32
    with jax.enable_x64():
        one, other = (
            next(iter(mj.loader(mj.SubjectsDataset(subjects, NORMALISED, cache=c), 2, KEY))) for c in (None, cache)
        )
        equal(one, other)


def test_half_precision_is_rounded_the_same_way_each_time_and_says_by_how_much(subjects, tmp_path, capsys):
    exact, half = (
        mj.SubjectsDataset(subjects, NORMALISED, cache=c) for c in (None, mj.Cache(tmp_path, dtype="float16"))
    )
    for _ in range(2):
        found, expected = half.prepared(0), mj.ZNormalization()(exact.prepared(0))
        np.testing.assert_array_equal(found.t1.data, np.asarray(expected.t1.data).astype(np.float16).astype(np.float32))
        assert found.t1.dtype == np.float32 and found.label.dtype == np.uint8
    error = np.abs(np.asarray(found.t1.data) - np.asarray(expected.t1.data)).max()
    assert half._prepared.cache.info().error == error > 0
    assert cli.main(["cache", "info", str(tmp_path)]) == 0
    assert f"at most {error:g}" in capsys.readouterr().out
    large = mj.Compose([mj.RescaleIntensity((0, 1e6)), mj.RandomNoise()])
    kept = mj.SubjectsDataset(subjects, large, cache=mj.Cache(tmp_path, dtype=np.float16)).prepared(0)
    np.testing.assert_array_equal(kept.t1.data, mj.RescaleIntensity((0, 1e6))(subjects[0]).t1.data)


# -- what is no longer true is not found


def test_whatever_an_entry_was_made_of_is_in_its_key(subjects, tmp_path, monkeypatch):
    cache, (first, *_) = mj.Cache(tmp_path / "cache"), subjects
    assert reads_of([first], cache) == 1 and reads_of([first], cache) == 0
    nibabel.save(nibabel.load(first.t1.path), tmp_path / "moved.nii.gz")
    others = [
        first.replace(t1=mj.ScalarImage(tmp_path / "moved.nii.gz")),
        first.replace(t1=mj.ScalarImage(first.t1.path, affine=np.diag([1.0, 2, 3, 1]))),
        first.replace(t1=mj.LabelMap(first.t1.path)),
        first.replace(tip=mj.Points([[1.0, 2, 3]])),
        mj.Subject(label=first.label, t1=first.t1, tip=first.tip),  # another reference
        first.replace(t1=mj.ScalarImage([first.t1.path, first.t1.path])),
        first.replace(t1=mj.ScalarImage(first.t1.path, reader=nibabel_image)),
    ]
    assert [reads_of([other], cache) for other in others] == [1] * len(others)
    assert [reads_of([other], cache) for other in others] == [0] * len(others)
    for head in ([mj.ZNormalization(include=["t1"])], [mj.Clamp(0, 1)], [mj.Clamp(0, 2)], [], [mj.Lambda(np_abs)]):
        pipeline = mj.Compose([*head, mj.RandomNoise()])
        assert reads_of([first], cache, pipeline) == 1 and reads_of([first], cache, pipeline) == 0
    assert reads_of([first], mj.Cache(cache.folder, dtype="float16")) == 1
    with jax.enable_x64():
        assert reads_of([first], cache) == 1
    # What the rest does, and what is known beside the images, is in no key.
    assert reads_of([first.replace(age=3)], cache, mj.Compose([mj.ZNormalization(), mj.RandomBlur()])) == 0
    assert first.t1.spacing and reads_of([first], cache) == 0  # its header was looked at
    monkeypatch.setattr(keyed, "FORMAT", 0)
    assert reads_of([first], cache) == 1


def nibabel_image(path):
    return nibabel.load(path)


def np_abs(data):
    return abs(data)


def test_a_changed_file_is_read_again(tmp_path):
    path, cache = tmp_path / "a.nii", mj.Cache(tmp_path / "cache")
    for value in (1, 2):
        mj.ScalarImage(np.full((1, 4, 4, 4), value, np.int16)).save(path)
        os.utime(path, ns=(0, value))  # the clock of a disk may be too coarse for this test
        dataset = mj.SubjectsDataset([mj.Subject(t1=mj.ScalarImage(path))], cache=cache)
        for _ in range(2):
            assert (dataset[0].t1.numpy() == value).all()


@pytest.mark.parametrize("second", ["a.img", "a.raw"])
def test_so_is_one_whose_second_file_has_changed(tmp_path, second):
    cache, data = mj.Cache(tmp_path / "cache"), np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    if second == "a.img":
        nibabel.Nifti1Pair(data, np.eye(4)).to_filename(tmp_path / "a.hdr")
        path = tmp_path / "a.hdr"
    else:
        import SimpleITK

        path = tmp_path / "a.mhd"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(data), str(path))
    dataset = mj.SubjectsDataset([mj.Subject(t1=mj.ScalarImage(path))], cache=cache)
    before = dataset[0].t1.numpy().sum()
    (tmp_path / second).write_bytes((data + 1).tobytes(order="F" if second == "a.img" else "C"))
    os.utime(tmp_path / second, ns=(0, 0))
    assert dataset[0].t1.numpy().sum() == before + data.size


def test_a_function_that_was_rewritten_is_called_again(subjects, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cache = mj.Cache(tmp_path / "cache")
    for factor in (2, 3):
        (tmp_path / "of_my_own.py").write_text(f"def scaled(x):\n    return x * {factor}\n")
        sys.modules.pop("of_my_own", None)
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        import of_my_own

        sys.dont_write_bytecode = before
        dataset = mj.SubjectsDataset(subjects, mj.Lambda(of_my_own.scaled), cache=cache)
        np.testing.assert_array_equal(dataset[0].t1.data, factor * subjects[0].t1.load().numpy().astype(np.float32))


def test_what_cannot_be_keyed_is_not_kept_and_says_so_once(subjects, tmp_path):
    pipeline = mj.Compose([mj.Clamp(0, 900), mj.Lambda(lambda x: x + 1), mj.ZNormalization(), mj.RandomNoise()])
    with pytest.warns(UserWarning, match="ends before a step that may change unseen: Lambda: function holds"):
        dataset = Counted(subjects, pipeline, cache=mj.Cache(tmp_path))
    for _ in range(2):
        equal(dataset.get(0, KEY), pipeline(subjects[0], KEY))
    assert dataset.reads == 1
    held = mj.SubjectsDataset([s.load() for s in subjects], NORMALISED, cache=mj.Cache(tmp_path))
    with pytest.warns(UserWarning, match="not everything is kept .* 't1' is no file, but an array in memory") as told:
        for index in (0, 1, 0):
            equal(held.prepared(index), mj.ZNormalization()(subjects[index]))
    assert len(told) == 1


# -- whoever fills it may be killed, and need not be alone


def fill(subjects, folder, order):
    """Fill a cache; touches NumPy only, so that a forked child may do it."""
    dataset = mj.SubjectsDataset(subjects, cache=mj.Cache(folder))
    for index in order:
        dataset.prepared(index)


def forked(function, *arguments):
    """The number of a child that calls a function."""
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
            os._exit(0)
        finally:
            os._exit(1)
    return child


def check_filled(subjects, folder):
    """Assert that every entry is right; gives how many there are."""
    cache = mj.Cache(folder)
    assert cache.check() == []
    found = cache.info().entries
    with warnings.catch_warnings(action="error"):
        for index, subject in enumerate(subjects):
            equal(mj.SubjectsDataset(subjects, cache=cache).prepared(index), subject.load())
    assert not list(folder.glob(".medjax-*"))  # what was left behind has gone
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.long)])
def test_whoever_fills_it_is_killed_at_any_moment(tmp_path, kills):
    subjects = []
    for i in range(12):
        mj.ScalarImage(np.random.default_rng(i).normal(size=(1, 48, 48, 48)).astype(np.float32)).save(
            tmp_path / f"{i}.nii"
        )
        subjects.append(mj.Subject(t1=mj.ScalarImage(tmp_path / f"{i}.nii"), t2=mj.ScalarImage(tmp_path / f"{i}.nii")))
    start = time.perf_counter()
    assert os.waitpid(forked(fill, subjects, tmp_path / "whole", range(12)), 0)[1] == 0
    one, moments, filled = (time.perf_counter() - start) / 12, random.Random(kills), []
    for kill in range(kills):
        folder = tmp_path / f"cache {kill}"
        folder.mkdir()
        child, due = forked(fill, subjects, folder, range(12)), moments.randrange(11)
        while sum(1 for _ in folder.glob("*/record.json")) < due and os.waitpid(child, os.WNOHANG)[0] == 0:
            pass  # however slowly it comes so far
        time.sleep(moments.uniform(0, one))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        filled.append(check_filled(subjects, folder))
        assert filled[-1] >= due
    assert len(set(filled)) > 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_two_processes_fill_one_cache(subjects, tmp_path):
    children = [forked(fill, subjects * 3, tmp_path, order) for order in (range(12), range(11, -1, -1))]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert check_filled(subjects, tmp_path) == 4


@pytest.mark.parametrize("moment", ["save", "write_text", "rename"])
def test_what_is_interrupted_leaves_nothing(subjects, tmp_path, monkeypatch, moment):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    dataset = mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(np if moment == "save" else type(tmp_path), moment, interrupt)
        dataset[0]
    assert not list(tmp_path.iterdir())
    equal(dataset[0], subjects[0].load())


def test_a_disk_that_is_full_or_only_read_stops_nothing(subjects, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    dataset = mj.SubjectsDataset(subjects, NORMALISED, cache=mj.Cache(tmp_path))
    with pytest.warns(UserWarning, match="not everything is kept in the cache .*: .*No space left on device"):
        equal(dataset.prepared(0), mj.ZNormalization()(subjects[0]))
    equal(dataset.prepared(1), mj.ZNormalization()(subjects[1]))


# -- what a folder holds


def test_what_was_not_used_for_the_longest_time_leaves_at_the_limit(subjects, tmp_path):
    mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path)).prepared(0)
    size = mj.Cache(tmp_path).info().bytes
    cache = mj.Cache(tmp_path, limit=int(3.5 * size))
    dataset = Counted(subjects, cache=cache)
    for step, index in enumerate((0, 1, 2, 0, 3)):
        dataset.prepared(index)
        for path in tmp_path.glob("*/record.json"):  # as if an hour had passed
            os.utime(path, (path.stat().st_atime - 3600, path.stat().st_mtime - 3600))
        assert cache.info().bytes <= cache.limit and dataset.reads == (0, 1, 2, 2, 3)[step]
    assert cache.info().entries == 3
    before = dataset.reads
    for index in (0, 2, 3):
        dataset.prepared(index)
    assert dataset.reads == before
    dataset.prepared(1)
    assert dataset.reads == before + 1
    small = mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path / "small", limit=10))
    with pytest.warns(UserWarning, match=r"not everything is kept .* more than its limit of 10"):
        equal(small.prepared(0), subjects[0].load())


def damaged(path, how):
    """Damage one file of the only entry."""
    file = next(path.glob("*/0.npy" if how != "no record" else "*/record.json"))
    if how in ("no record", "no array"):
        file.unlink()
    elif how == "a bit":
        data = bytearray(file.read_bytes())
        data[-100] ^= 1
        file.write_bytes(data)
    else:
        file.write_bytes(file.read_bytes()[: 0 if how == "empty" else -7])


@pytest.mark.parametrize("how", ["a bit", "cut", "empty", "no array", "no record"])
def test_damage_is_found(subjects, tmp_path, how, capsys):
    for found_by in ("use", "check"):
        mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path))[0]
        damaged(tmp_path, how)
        if found_by == "use":
            with pytest.warns(UserWarning, match="is damaged and is made anew"):
                found = mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path))[0]
            equal(found, subjects[0].load())
            assert cli.main(["cache", "check", str(tmp_path)]) == 0
        else:
            assert cli.main(["cache", "check", str(tmp_path)]) == 1
            assert "removed, as it is damaged" in capsys.readouterr().out and mj.Cache(tmp_path).info().entries == 0


def test_the_command_line_looks_after_a_cache_and_after_nothing_else(subjects, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    fill(subjects, tmp_path, range(4))
    assert cli.main(["cache", "info", str(tmp_path)]) == 0
    assert f"{tmp_path}: 4 subjects, 0.000 GB" in capsys.readouterr().out
    assert cli.main(["cache", "clear", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert cli.main(["cache", "info", str(tmp_path / "none")]) == 1


def test_no_path_and_no_metadata_of_the_users_are_in_an_entry(subjects, tmp_path):
    mj.SubjectsDataset(subjects, cache=mj.Cache(tmp_path)).prepared(0)
    text = next(tmp_path.glob("*/record.json")).read_text()
    assert "site 0" not in text and "nii" not in text


def test_a_cache_travels_to_other_processes(subjects, tmp_path):
    dataset = mj.SubjectsDataset(subjects, NORMALISED, cache=mj.Cache(tmp_path, limit="1.5MiB", dtype="float16"))
    again = pickle.loads(pickle.dumps(dataset._prepared.cache))
    assert (again.folder, again.limit, again.dtype) == (tmp_path, 3 * 2**19, np.float16)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"limit": "a lot"}, ValueError, "limit must be a number of bytes, or a text as '200GB'"),
        ({"limit": -1}, ValueError, "limit must be a number of bytes"),
        ({"limit": True}, TypeError, "limit must be a number of bytes"),
        ({"dtype": "int8"}, ValueError, "dtype must be numpy.float16 or None, got 'int8'"),
        ({"folder": "ftp://bucket/cache"}, ValueError, "folder must be the path of a folder on a disk, or a text .*file://"),
        ({"folder": 3}, ValueError, "folder must be the path of a folder on a disk, or a text .*got 3"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_sense(tmp_path, arguments, error, text):
    with pytest.raises(error, match=text):
        mj.Cache(**{"folder": tmp_path, **arguments})
    with pytest.raises(TypeError, match=r"cache must be a Cache, got 'folder'"):
        mj.SubjectsDataset([], cache="folder")
