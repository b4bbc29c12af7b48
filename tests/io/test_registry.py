"""Which format takes a path, what is said when none does, and writing the whole file or none."""

import os
from pathlib import Path

import numpy as np
import pytest

from medjax import io
from medjax.io import registry

AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
ARRAY = np.arange(210, dtype=np.float32).reshape(1, 5, 6, 7)


def constant(value: float, name: str, *suffixes: str, write=None) -> io.Format:
    """A format in which every file is one voxel of `value`."""
    header = io.Header((1, 1, 1, 1), AFFINE, np.dtype(np.float32), {"value": value})
    array = np.full((1, 1, 1, 1), value, np.float32)
    return io.Format(name, suffixes, lambda path: header, lambda path: (array, header), write)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_BY_SUFFIX", dict(registry._BY_SUFFIX))


def test_the_formats_that_are_there():
    assert io.formats()[:3] == ("NIfTI", "MGH", "Analyze or NIfTI pair")


@pytest.mark.parametrize("read", [io.read, io.read_header])
def test_a_path_that_no_reader_takes(tmp_path, read):
    path = tmp_path / "scan.xyz"
    path.touch()
    with pytest.raises(ValueError) as error:
        read(path)
    for part in (str(path), "NIfTI", ".nii.gz", "MGH", ".mgz", ".img"):
        assert part in str(error.value)


@pytest.mark.parametrize("read", [io.read, io.read_header])
@pytest.mark.parametrize("name", ["missing.nii.gz", "missing.nii", "missing.mgz", "missing.hdr", "none/a.nii"])
def test_a_missing_file(tmp_path, read, name):
    with pytest.raises(FileNotFoundError, match=name):
        read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=name):
        read(str(tmp_path / name))


@pytest.mark.parametrize("read", [io.read, io.read_header])
def test_a_folder_is_no_file_of_that_suffix(tmp_path, read):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(ValueError, match=r"a\.nii"):
        read(tmp_path / "a.nii")


def test_registering(tmp_path, own_registry):
    io.register(constant(1, "One", ".one", ".nii.one"))
    io.register(constant(2, "Folder", ".folder/"))
    (tmp_path / "A.ONE").touch()
    (tmp_path / "a.folder").mkdir()
    assert io.formats()[-2:] == ("One", "Folder")
    assert io.read(tmp_path / "A.ONE")[0] == 1
    assert io.read_header(tmp_path / "a.folder").metadata == {"value": 2}


def test_a_file_whose_suffix_tells_nothing_is_known_by_its_content(tmp_path, own_registry):
    io.register(constant(1, "One", ".one")._replace(magic=(2, b"one")))
    for name, content in (("a", b"--one"), ("a.2000", b"--one--"), ("b", b"--two"), ("c", b"-")):
        (tmp_path / name).write_bytes(content)
    assert io.read(tmp_path / "a")[0] == io.read(tmp_path / "a.2000")[0] == 1
    for name in "bc":
        with pytest.raises(ValueError, match="not read"):
            io.read(tmp_path / name)


def test_the_longest_suffix_decides(tmp_path, own_registry):
    io.register(constant(1, "One", ".gz"))
    (tmp_path / "a.gz").touch()
    io.write(tmp_path / "a.nii.gz", ARRAY, AFFINE, {})
    assert io.read(tmp_path / "a.gz")[0] == 1
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii.gz")[0], ARRAY)


def test_a_format_of_the_same_name_is_replaced(tmp_path, own_registry):
    io.register(constant(1, "One", ".one", ".uno"))
    io.register(constant(2, "One", ".one"))
    (tmp_path / "a.one").touch()
    assert io.read(tmp_path / "a.one")[0] == 2
    assert io.formats().count("One") == 1
    with pytest.raises(ValueError, match=r"a\.uno"):
        io.read(tmp_path / "a.uno")


@pytest.mark.parametrize("suffix, message", [(".nii", "belongs to NIfTI"), ("one", "dot"), (".One", "lower case")])
def test_suffixes_that_cannot_be_registered(own_registry, suffix, message):
    before = io.formats()
    with pytest.raises(ValueError, match=message):
        io.register(constant(1, "One", ".first", suffix))
    assert io.formats() == before


@pytest.mark.parametrize("affine", [np.diag([1.0, 0, 1, 1]), np.diag([1.0, np.nan, 1, 1]), np.eye(3), np.ones((4, 4))])
def test_unsound_affines(tmp_path, own_registry, affine):
    one = constant(1, "One", ".one")
    bad = one.read_header(tmp_path)._replace(affine=affine)
    io.register(one._replace(read_header=lambda path: bad, read=lambda path: (ARRAY, bad)))
    path = tmp_path / "a.one"
    path.touch()
    for read in (io.read, io.read_header):
        with pytest.raises(ValueError, match=r"a\.one: the affine"):
            read(path)
    with pytest.raises(ValueError, match=r"a\.nii: the affine"):
        io.write(tmp_path / "a.nii", ARRAY, affine, {})


@pytest.mark.parametrize("name", ["a.xyz", "a.img", "a.hdr", "a"])
def test_a_format_that_is_not_written(tmp_path, name):
    with pytest.raises(ValueError) as error:
        io.write(tmp_path / name, ARRAY, AFFINE, {})
    assert str(tmp_path / name) in str(error.value)
    assert ".nii.gz" in str(error.value)
    assert ".mgz" in str(error.value)
    assert ".img" not in str(error.value).replace(name, "")


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        io.write(tmp_path / "nowhere" / "a.nii", ARRAY, AFFINE, {})


@pytest.mark.parametrize("array", [ARRAY[0], ARRAY[None], ARRAY[:, :0]])
def test_arrays_that_are_no_volume(tmp_path, array):
    with pytest.raises(ValueError, match=r"a\.nii.*C, I, J, K"):
        io.write(tmp_path / "a.nii", array, AFFINE, {})


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    io.write("~/a.nii", ARRAY, AFFINE, {})
    assert (tmp_path / "a.nii").exists()
    np.testing.assert_array_equal(io.read("~/a.nii")[0], ARRAY)
    assert io.read_header("~/a.nii").shape == ARRAY.shape


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"the old file"])
def test_a_crash_in_the_middle_leaves_nothing(tmp_path, own_registry, error, old):
    def half(path: Path, array, affine, metadata) -> None:
        path.write_bytes(b"half a file")
        assert not list(tmp_path.glob("*.one")) or old
        raise error("stop")

    io.register(constant(1, "One", ".one", write=half))
    path = tmp_path / "a.one"
    if old:
        path.write_bytes(old)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match="stop"):
        io.write(path, ARRAY, AFFINE, {})
    assert sorted(tmp_path.iterdir()) == before
    if old:
        assert path.read_bytes() == old


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz"])
def test_a_crash_at_the_end_leaves_nothing(tmp_path, monkeypatch, name):
    def refuse(*args, **kwargs):
        raise OSError("no replacing today")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="today"):
        io.write(tmp_path / name, ARRAY, AFFINE, {})
    assert not list(tmp_path.iterdir())


def test_a_written_file_has_the_usual_permissions(tmp_path):
    io.write(tmp_path / "a.nii", ARRAY, AFFINE, {})
    (tmp_path / "b").touch()
    assert (tmp_path / "a.nii").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_writing_over_a_file(tmp_path):
    for factor in (1, 2):
        io.write(tmp_path / "a.nii", ARRAY * factor, AFFINE, {})
    np.testing.assert_array_equal(io.read(tmp_path / "a.nii")[0], ARRAY * 2)
