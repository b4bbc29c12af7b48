"""Both stores of a cache keep one contract: an entry is there wholly or not at all, and is what was written."""

import time

import ml_dtypes
import numpy as np
import pytest
from data.served import bucket as bucket  # fixtures
from data.served import server as server

from medjax.data import remote
from medjax.data.entry import checksum, verify
from medjax.data.local import Local
from medjax.data.remote import Remote
from medjax.data.store import Damaged, Entry

ONE, OTHER = "0" * 31 + "1", "0" * 31 + "2"
SHAPE = (2, 33, 20, 5)
TYPES = ["bool", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64", "complex64", ml_dtypes.bfloat16]


def of(*arrays):
    """An entry of some arrays."""
    images = [
        {"name": f"image {n}", "shape": array.shape, "kept": array.dtype.name, "error": 0.5, "crc32": checksum(array)}
        for n, array in enumerate(arrays)
    ]
    return Entry({"images": images}, list(arrays))


def noise(seed=0, shape=SHAPE, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.fixture(params=["a path", "a URL"])
def store(request, tmp_path):
    return Local(tmp_path) if request.param == "a path" else Remote(f"file://{tmp_path}")


def same(found, given):
    """Assert that what was read is what was written, bit by bit."""
    verify(found)
    for one, other in zip(found.arrays, given.arrays, strict=True):
        one = one.view(other.dtype) if one.dtype.kind == "V" else one  # bfloat16
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


# -- the contract


def test_what_is_written_is_read_bit_by_bit(store):
    whole = np.random.default_rng(0).integers(0, 200, SHAPE)
    given = of(*(whole.astype(dtype) for dtype in TYPES), np.zeros(SHAPE, np.int16), noise())
    assert store.read(ONE) is None and store.box(ONE, 0, (0, 0, 0), (1, 1, 1)) is None
    store.write(ONE, given)
    found = store.read(ONE)
    same(found, given)
    assert all(array.ctypes.data % 64 == 0 and array.flags.c_contiguous for array in found.arrays)
    for array in found.arrays:
        array.view(np.uint8)[:] = 0  # reaches no file
    same(store.read(ONE), given)
    assert store.records([ONE, OTHER])[0]["images"][0]["name"] == "image 0" and len(store.records([OTHER])) == 0


@pytest.mark.parametrize(
    ("start", "shape"), [((0, 0, 0), (33, 20, 5)), ((31, 3, 2), (2, 9, 1)), ((32, 19, 4), (1, 1, 1))]
)
def test_a_box_is_a_part_of_the_array(store, start, shape):
    given = noise()
    store.write(ONE, of(np.zeros(SHAPE, np.uint8), given))
    expected = given[(slice(None), *(slice(a, a + n) for a, n in zip(start, shape)))]
    np.testing.assert_array_equal(store.box(ONE, 1, start, shape), expected)


@pytest.mark.parametrize(("start", "shape"), [((0, 0, 0), (34, 1, 1)), ((-1, 0, 0), (1, 1, 1)), ((0, 0), (1, 1, 1))])
def test_a_box_outside_is_refused(store, start, shape):
    store.write(ONE, of(noise()))
    with pytest.raises(ValueError, match="is not inside the array of|start must be"):
        store.box(ONE, 0, start, shape)


def test_who_is_first_stays(store):
    store.write(ONE, of(noise(0)))
    store.write(ONE, of(noise(1)))
    same(store.read(ONE), of(noise(0)))


def test_sizes_times_and_removal_are_of_whole_entries(store, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for seed, key in enumerate((ONE, OTHER)):
        store.write(key, of(noise(seed), noise(seed)))
        store.touch(key)
    sizes, used = store.sizes(), store.last_used([ONE, OTHER, "0" * 32])
    assert set(sizes) == {ONE, OTHER} and all(0.8 < size / (2 * noise().nbytes) < 1.1 for size in sizes.values())
    assert all(abs(used[key] - time.time()) < 600 for key in (ONE, OTHER)) and used["0" * 32] == 0
    store.remove([ONE, "0" * 32])
    assert store.read(ONE) is None and set(store.sizes()) == {OTHER}
    same(store.read(OTHER), of(noise(1), noise(1)))
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", OTHER}


def objects(folder):
    """The files of an entry that are read."""
    return sorted(
        path for path in (folder / ONE).rglob("*") if path.is_file() and path.name not in ("used", "zarr.json")
    )


def test_whatever_is_missing_or_changed_is_never_taken_for_voxels(store, tmp_path):
    given, random = of(noise(), np.zeros(SHAPE, np.uint8)), np.random.default_rng(0)
    store.write(ONE, given)
    assert len(objects(tmp_path)) == 3
    for path in objects(tmp_path):
        whole = path.read_bytes()
        changes = [None, b"", whole[:-1], whole[: len(whole) // 2], bytes(len(whole))]
        for place in random.integers(
            0 if path.suffix != ".npy" else 128, len(whole), 12
        ):  # the header of NumPy is padded
            changes.append(whole[:place] + bytes([whole[place] ^ 1 << random.integers(8)]) + whole[place + 1 :])
        for change in changes:
            path.unlink() if change is None else path.write_bytes(change)
            if change is None and path.name == "record.json" and isinstance(store, Remote):
                assert store.read(ONE) is None
            else:
                with pytest.raises(Damaged):
                    verify(store.read(ONE))
            path.write_bytes(whole)
    same(store.read(ONE), given)


# -- what only a URL has


def test_of_two_that_write_at_the_same_time_one_is_kept_whole(tmp_path, monkeypatch):
    store, other, encode = Remote(f"file://{tmp_path}"), Remote(f"file://{tmp_path}"), remote.encoded

    def slowly(arrays):
        monkeypatch.setattr(remote, "encoded", encode)
        other.write(ONE, of(noise(1), noise(1)))
        return encode(arrays)

    monkeypatch.setattr(remote, "encoded", slowly)
    store.write(ONE, of(noise(0), noise(0)))
    same(store.read(ONE), of(noise(1), noise(1)))
    assert len(objects(tmp_path)) == 3  # what was too late has gone


def test_an_entry_that_leaves_while_it_is_read_is_none(tmp_path, monkeypatch):
    store, decode = Remote(f"file://{tmp_path}"), remote.decoded
    for again in (False, True):
        store.write(ONE, of(noise()))

        def leaving(*arguments, again=again):
            store.remove([ONE])
            if again:
                store.write(ONE, of(noise()))
            return decode(*arguments)

        monkeypatch.setattr(remote, "decoded", leaving)
        assert store.read(ONE) is None
        monkeypatch.setattr(remote, "decoded", decode)


@pytest.mark.parametrize("moment", ["arrays", "record"])
def test_what_is_interrupted_leaves_no_arrays(tmp_path, monkeypatch, moment):
    def interrupt(futures):
        for future in futures if moment == "record" else ():
            future.result()
        raise KeyboardInterrupt

    store = Remote(f"file://{tmp_path}")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(remote, "encoded" if moment == "arrays" else "each", interrupt)
        store.write(ONE, of(noise()))
    assert store.read(ONE) is None and not objects(tmp_path)
    store.write(ONE, of(noise()))
    same(store.read(ONE), of(noise()))


def test_what_killed_processes_left_goes_after_a_day_and_not_before(tmp_path):
    store = Remote(f"file://{tmp_path}")
    store.write(ONE, of(noise()))
    (tmp_path / ONE / "record.json").unlink()
    assert set(store.sizes()) == {ONE}
    (tmp_path / ONE / "used").write_text(str(time.time() - 25 * 3600))
    assert store.sizes() == {} and not (tmp_path / ONE).exists()


def test_a_process_says_once_in_a_while_that_it_uses_an_entry(tmp_path):
    store, file = Remote(f"file://{tmp_path}"), tmp_path / ONE / "used"
    store.write(ONE, of(noise()))
    store.touch(ONE)
    file.write_text("1.5")
    store.touch(ONE)
    assert store.last_used([ONE]) == {ONE: 1.5}
    file.write_text("damaged")
    assert store.last_used([ONE]) == {ONE: 0}
    store.remove([ONE])
    store.write(ONE, of(noise()))  # or it would seem abandoned while it is written
    assert store.last_used([ONE])[ONE] > 1e9
    file.write_text("1.5")
    Remote(f"file://{tmp_path}").touch(ONE)
    assert store.last_used([ONE])[ONE] > 1e9


def test_a_web_server_gives_what_was_kept_and_boxes_cost_little(server, tmp_path):
    given = np.random.default_rng(3).integers(0, 255, (1, 128, 128, 128), np.uint8)
    Remote(f"file://{tmp_path}").write(ONE, of(given))
    store = Remote(server.url)
    same(store.read(ONE), of(given))
    assert store.read(OTHER) is None
    whole, server.sent = server.sent, 0
    box = store.box(ONE, 0, (40, 40, 70), (32, 32, 32))
    np.testing.assert_array_equal(box, given[:, 40:72, 40:72, 70:102])
    assert whole > 0.8 * given.nbytes and 0 < server.sent < 0.2 * whole


def test_a_web_server_is_only_read(server, tmp_path):
    store, before = Remote(server.url), set(tmp_path.iterdir())
    store.touch(ONE)  # nothing
    for function in (lambda: store.write(ONE, of(noise())), store.sizes, lambda: store.remove([ONE])):
        with pytest.raises(OSError, match=r"http://127.* is only read: fill it, .* as file://, gs://, s3://"):
            function()
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_bucket_keeps_the_contract(bucket, scheme):
    store, given = Remote(f"{scheme}://some-bucket/a prefix"), of(noise(0), np.zeros(SHAPE, np.uint8))
    assert store.read(ONE) is None and store.sizes() == {}
    for key in (ONE, OTHER):
        store.write(key, given)
    store.write(ONE, of(noise(1)))
    same(store.read(ONE), given)
    np.testing.assert_array_equal(store.box(ONE, 0, (3, 4, 2), (30, 1, 3)), given.arrays[0][:, 3:33, 4:5, 2:5])
    assert set(store.sizes()) == {ONE, OTHER} and len(store.records([ONE, OTHER])) == 2
    assert all(abs(used - time.time()) < 600 for used in store.last_used([ONE, OTHER]).values())
    store.remove([ONE])
    assert store.read(ONE) is None and set(store.sizes()) == {OTHER}
    shard = next(name for name in bucket.objects if name.endswith("0/c/0/0/0/0"))
    del bucket.objects[shard]
    with pytest.raises(Damaged, match="is missing"):
        store.read(OTHER)
    store.remove([OTHER])
    assert not bucket.objects
