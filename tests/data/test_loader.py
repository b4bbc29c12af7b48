import gc
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from conftest import OBLIQUE, compilations, small_subject
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import medjax as mj
from medjax import keys
from medjax.data.order import Order
from medjax.data.padding import padded_shapes

KEY = jax.random.key(7)
SHAPES = [(12, 11, 10), (14, 9, 12), (11, 13, 9), (12, 12, 12), (9, 10, 14)]
AUGMENT = mj.Compose([mj.Resample(1.5), mj.CropOrPad((9, 8, 7)), mj.RandomAffine(p=0.7), mj.RandomNoise(p=0.5)])
NOISE = mj.RandomNoise()
LIGHT = mj.Compose([mj.CropOrPad((9, 8, 7)), mj.RandomNoise(p=0.5)])  # quick to compile


def write(folder, shapes, affines):
    """Files of subjects, numbered."""
    subjects = []
    for number, (shape, affine) in enumerate(zip(shapes, affines, strict=True)):
        subject = small_subject(affine, shape, seed=number)
        t1, label = folder / f"t1_{number}.nii.gz", folder / f"label_{number}.nii.gz"
        mj.ScalarImage((subject.t1.numpy() * 1000).astype(np.int16), affine).save(t1)
        subject.label.save(label)
        subjects.append(mj.Subject(t1=mj.ScalarImage(t1), label=mj.LabelMap(label), number=number, name=f"s{number}"))
    return subjects


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """Five subjects of one shape."""
    return write(tmp_path_factory.mktemp("same"), [(10, 9, 8)] * 5, [np.diag([1, 1.5, 2, 1.0])] * 5)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Five subjects of five shapes, spacings and directions."""
    affines = [np.eye(4), np.diag([2, 1, 1.5, 1.0]), OBLIQUE, np.diag([-1, 1, 2, 1.0]), np.eye(4)]
    return write(tmp_path_factory.mktemp("mixed"), SHAPES, affines)


def numbers(batches):
    """Which subjects are in each batch."""
    return [batch.number for batch in batches]


def equal(one, other):
    """Assert that two lists of batches hold the same, bit by bit."""
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.number == b.number and a.name == b.name
        jax.tree.map(np.testing.assert_array_equal, a, b)


def threads():
    """Threads of a loader that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith(("medjax", "grain"))]


def test_batches_of_a_key_are_the_same_for_any_number_of_threads(mixed):
    dataset = mj.SubjectsDataset(mixed, AUGMENT)
    loader = mj.loader(dataset, 2, KEY, epochs=2)
    first = list(loader)
    assert len(loader) == len(first) == 6
    assert [len(n) for n in numbers(first)] == [2, 2, 1] * 2
    equal(first, list(loader))
    for count, prefetch in ((1, 1), (4, 3)):
        equal(first, list(mj.loader(dataset, 2, KEY, epochs=2, num_threads=count, prefetch=prefetch)))
    assert not threads()


def test_an_element_is_what_get_gives(mixed):
    """Whatever the batch size and the neighbours: bit-equal draws, voxels within 1e-5 of the range."""
    dataset = mj.SubjectsDataset(mixed, AUGMENT)
    for size, steps in ((2, 3), (3, 2)):
        for place, batch in enumerate(mj.loader(dataset, size, KEY, epochs=2)):
            epoch = place // steps
            for element in mj.unstack(batch):
                alone = dataset.get(element.number, keys.for_element(KEY, epoch, element.number))
                assert element.t1.shape == (1, 9, 8, 7) and element.t1.extent is None
                np.testing.assert_allclose(element.t1.affine, alone.t1.affine, atol=1e-12)
                np.testing.assert_allclose(element.t1.data, alone.t1.data, atol=1e-5 * np.ptp(alone.t1.numpy()))
                np.testing.assert_array_equal(element.label.data, alone.label.data)


def test_draws_are_those_of_the_subject_and_epoch(same):
    """Noise reads its key alone: equal noise is an equal key."""
    dataset = mj.SubjectsDataset(same, NOISE)
    one = {s.number: s for batch in mj.loader(dataset, 2, KEY) for s in mj.unstack(batch)}
    other = {s.number: s for batch in mj.loader(dataset, 5, KEY, shuffle=False) for s in mj.unstack(batch)}
    assert one.keys() == other.keys() == set(range(5))
    for number, subject in one.items():
        np.testing.assert_array_equal(subject.t1.data, other[number].t1.data)
        params = NOISE.sample(keys.for_element(KEY, 0, number), same[number])
        again = NOISE.apply(same[number], params)
        np.testing.assert_allclose(subject.t1.data, again.t1.data, atol=1e-5 * np.ptp(again.t1.numpy()))


def test_epochs_differ_in_order_and_draws(same):
    batches = list(mj.loader(mj.SubjectsDataset(same, NOISE), 5, KEY, epochs=4))
    orders = numbers(batches)
    assert all(sorted(order) == list(range(5)) for order in orders) and len(set(orders)) > 1
    found = [mj.unstack(batch)[batch.number.index(0)].t1.numpy() for batch in batches]
    assert len({f.tobytes() for f in found}) == 4
    assert numbers(mj.loader(mj.SubjectsDataset(same), 5, None, shuffle=False, epochs=2)) == [(0, 1, 2, 3, 4)] * 2


def test_orders_are_uniform():
    """All 6 orders of 3 subjects about equally often: chi-square, 5 degrees of freedom, p > 1e-3."""
    order = Order(3, 3, KEY, False, 600)
    found, counts = np.unique([[order[3 * e + i][1] for i in range(3)] for e in range(600)], axis=0, return_counts=True)
    assert len(found) == 6 and ((counts - 100) ** 2 / 100).sum() < 20.5


def test_drop_last(same):
    dataset = mj.SubjectsDataset(same)
    loader = mj.loader(dataset, 2, KEY, drop_last=True, epochs=3)
    assert len(loader) == 6 and [len(n) for n in numbers(loader)] == [2] * 6
    with pytest.raises(ValueError, match="no batch: 5 subjects, batch_size=6, drop_last=True"):
        mj.loader(dataset, 6, KEY, drop_last=True)
    assert numbers(mj.loader(dataset, 6, None, shuffle=False)) == [(0, 1, 2, 3, 4)]


def test_state_goes_on_where_it_was(mixed):
    loader = mj.loader(mj.SubjectsDataset(mixed, AUGMENT), 2, KEY, epochs=2)
    whole = list(loader)
    for stop in (0, 1, 3, 4, 6):
        batches = iter(loader)
        given = [next(batches) for _ in range(stop)]
        state = json.loads(json.dumps(batches.get_state()))
        assert len(json.dumps(state)) < 200
        again = iter(mj.loader(mj.SubjectsDataset(mixed, AUGMENT), 2, KEY, epochs=2, num_threads=3))
        again.set_state(state)
        equal(whole, given + list(again))
        next(batches, None)  # it may stand anywhere when it is set back
        batches.set_state(state)
        equal(whole[stop : stop + 1], list(batches)[:1])
    for name in ("batch_size", "subjects", "key", "options", "dataset"):
        with pytest.raises(ValueError, match=f"of another {name}: "):
            batches.set_state({**state, name: 3})
    for wrong in (7, -1, True, "1", None, 1.5):
        with pytest.raises(ValueError, match="batch must be from 0 to 6"):
            batches.set_state({**state, "batch": wrong})
    for wrong in ({}, {"batch": 1}, None, [], "state", {**state, "more": 1}):
        with pytest.raises(ValueError, match="a state is a dictionary with batch, batch_size, subjects, key"):
            batches.set_state(wrong)


def test_mixed_shapes_make_one_program(mixed):
    dataset = mj.SubjectsDataset(mixed, AUGMENT)
    list(mj.loader(dataset, 2, KEY))
    with compilations() as count:
        list(mj.loader(dataset, 2, jax.random.key(1), epochs=2))
    assert count() == 0


def test_mixed_shapes_need_a_fixed_end(mixed):
    which = r"subject \d \(number=\d, name='s\d'.*\) and subject \d .*do not stack: t1 is int16"
    for transform in (None, NOISE, mj.ToCanonical()):
        with pytest.raises(ValueError, match=which):
            list(mj.loader(mj.SubjectsDataset(mixed, transform), 2, KEY))


def test_one_shape_is_not_padded(same):
    loader = mj.loader(mj.SubjectsDataset(same, mj.CropOrPad(9)), 2, KEY)
    assert not loader.padding()
    assert next(iter(loader)).t1.shape == (2, 1, 9, 9, 9)


def test_the_shape_that_is_padded_to():
    def subject(*shape):
        return mj.Subject(t1=mj.ScalarImage(np.zeros((1, *shape), np.int16)))

    few = [subject(20, 20, 20), subject(24, 18, 20)]
    loader = mj.loader(mj.SubjectsDataset(few, mj.CropOrPad(9)), 2, KEY)
    assert padded_shapes(loader.padding(), few) == {"t1": (24, 20, 20)}
    huge = mj.loader(mj.SubjectsDataset([*few, subject(20, 500, 20)], mj.CropOrPad(9)), 2, KEY)
    assert padded_shapes(huge.padding(), few) == {"t1": (24, 24, 20)}

    def reader(path):
        return np.zeros((1, 17, 5, 5), np.int16)

    unknown = [*few, mj.Subject(t1=mj.ScalarImage("a.raw", reader=reader))]
    loader = mj.loader(mj.SubjectsDataset(unknown, mj.CropOrPad(9)), 3, KEY)
    assert loader.padding() == {"t1": None}
    assert next(iter(loader)).t1.shape == (3, 1, 9, 9, 9)


def test_metadata_is_a_tuple_per_batch_and_affines_are_float64(same):
    batches = list(mj.loader(mj.SubjectsDataset(same, LIGHT), 2, KEY))
    for batch, size in zip(batches, (2, 2, 1), strict=True):
        assert batch.name == tuple(f"s{n}" for n in batch.number) and len(batch.name) == size
        assert len(batch.t1.metadata) == size and all("header" in m for m in batch.t1.metadata)
        assert batch.t1.shape == (size, 1, 9, 8, 7)
        assert batch.t1.affine.dtype == np.float64 and batch.t1.affine.shape == (size, 4, 4)


def test_nothing_stays_in_the_subjects(same):
    fresh = [mj.Subject({n: type(i)(i.path) for n, i in subject.images.items()}) for subject in same]
    list(mj.loader(mj.SubjectsDataset(fresh, LIGHT), 2, KEY, epochs=2))
    for subject in fresh:
        for image in subject.images.values():
            assert image._data is None and image._affine is None and not image.metadata


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_leaving_early_ends_the_threads(same, taken):
    dataset = mj.SubjectsDataset(same, LIGHT)
    list(mj.loader(dataset, 2, KEY))
    for number, _ in enumerate(mj.loader(dataset, 2, KEY, epochs=50, num_threads=4), 1):
        if number > taken:
            break
    assert not threads()
    batches = iter(mj.loader(dataset, 2, KEY, epochs=50))
    next(batches)
    assert threads()
    batches.close()
    batches.close()
    assert not threads()
    assert len(list(batches)) == 149


def test_memory_is_given_back(same):
    """No batch is held once the loop is left, and as few in the last epoch as in the first."""
    dataset = mj.SubjectsDataset(same, LIGHT)

    def held():
        gc.collect()
        return sum(1 for array in jax.live_arrays() if array.shape[1:] == (1, 9, 8, 7))

    counts = []
    for _ in mj.loader(dataset, 2, KEY, epochs=4):
        counts.append(held())
    assert max(counts) <= 2 * 5 and held() <= 2
    del _
    assert held() == 0


def test_errors_reach_the_consumer_and_name_the_subject(same, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(same[0].t1.path.read_bytes()[:300])
    empty = tmp_path / "empty.nii.gz"
    mj.LabelMap(np.zeros((1, 10, 9, 8), np.uint8), same[0].label.affine).save(empty)
    damaged = [*same[:3], same[3].replace(t1=mj.ScalarImage(bad)), same[4]]
    masked = [*same[:3], same[3].replace(label=mj.LabelMap(empty)), same[4]]
    norm = mj.Compose([mj.ZNormalization(masking_method="label"), mj.RandomNoise()])
    for subjects, transform, text in (
        (damaged, None, rf"^subject 3 \(number=3, name='s3', t1: {re.escape(str(bad))}.*damaged"),
        (masked, norm, r"^subject 3 .*ZNormalization: the mask 'label' has no two voxels in t1"),
        (same, mj.ZNormalization(masking_method="brain"), r"^subject 0 .*brain"),
        ([*same[:3], same[3].replace(label=None)], None, r"subject 2 .* and subject 3 .*label \(missing\)"),
    ):
        batches = iter(mj.loader(mj.SubjectsDataset(subjects, transform), 2, KEY, shuffle=False))
        if not text.startswith("^subject 0"):
            if "and" not in text:
                assert next(batches).number == (0, 1)
            else:
                next(batches)
        with pytest.raises((ValueError, TypeError), match=text):
            next(batches)
        assert not threads()


def test_after_an_error_comes_the_next_batch_and_an_error_may_be_tried_again():
    fails = []

    def reader(path):
        if not fails:
            fails.append(path)
            raise OSError(5, "Input/output error", str(path))
        return np.ones((1, 4, 4, 4), np.float32)

    subjects = [mj.Subject(t1=mj.ScalarImage(f"{n}.raw", reader=reader)) for n in range(2)]
    batches = iter(mj.loader(mj.SubjectsDataset(subjects), 1, None, shuffle=False))
    begin = batches.get_state()
    with pytest.raises(OSError, match="subject 0"):
        next(batches)
    assert batches.get_state()["batch"] == 1 and len(list(batches)) == 1
    batches.set_state(begin)
    assert len(list(batches)) == 2


def test_a_slow_consumer_finds_the_next_batch_ready(same):
    dataset = mj.SubjectsDataset(same, LIGHT)
    batches = iter(mj.loader(dataset, 2, KEY))
    next(batches)
    deadline = time.monotonic() + 20
    while batches._take.__self__._ready.empty() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not batches._take.__self__._ready.empty()


def test_device(same):
    other = jax.devices()[3]
    for transform in (None, LIGHT):
        for batch in mj.loader(mj.SubjectsDataset(same, transform), 2, KEY, device=other):
            assert batch.t1.data.devices() == batch.label.data.devices() == {other}
    with pytest.raises(TypeError, match="device must be"):
        mj.loader(mj.SubjectsDataset(same), 2, KEY, device="cpu:0")


def test_settings_of_the_consumer_hold(same):
    dataset, other = mj.SubjectsDataset(same, NOISE), jax.devices()[2]
    with jax.default_device(other):
        batch = next(iter(mj.loader(dataset, 2, KEY)))
    assert batch.t1.data.devices() == {other}
    with jax.enable_x64(True):
        wide = [mj.Subject(t1=mj.ScalarImage(np.zeros((1, 4, 4, 4))))]
        assert next(iter(mj.loader(mj.SubjectsDataset(wide, NOISE), 1, KEY))).t1.data.dtype == np.float64


def test_sharding_splits_the_batch_and_changes_nothing(same):
    dataset = mj.SubjectsDataset([*same, *same[:3]], LIGHT)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    one, four = mj.loader(dataset, 4, KEY), mj.loader(dataset, 4, KEY, device=sharding)
    for a, b in zip(one, four, strict=True):
        assert b.t1.data.sharding.is_equivalent_to(sharding, 5) and a.number == b.number
        np.testing.assert_allclose(a.t1.data, b.t1.data, atol=1e-5 * np.ptp(a.t1.numpy()))
        np.testing.assert_array_equal(a.label.data, b.label.data)
    for size, text in ((3, r"a batch of \d does not divide over 4 devices"), (5, "a batch of")):
        with pytest.raises(ValueError, match=text):
            mj.loader(dataset, size, KEY, device=sharding)
    with pytest.raises(ValueError, match="a batch of 1 does not divide .*drop_last=True"):
        mj.loader(mj.SubjectsDataset(same), 4, KEY, device=sharding)
    with pytest.raises(ValueError, match="first axis"):
        mj.loader(dataset, 4, KEY, device=NamedSharding(mesh, PartitionSpec(None, "data")))


def test_keys(same):
    dataset = mj.SubjectsDataset(same, NOISE)
    with pytest.raises(TypeError, match="shuffle=True draws random numbers"):
        mj.loader(dataset, 2, None)
    with pytest.raises(TypeError, match="RandomNoise draws random numbers"):
        mj.loader(dataset, 2, None, shuffle=False)
    with pytest.raises(TypeError, match="key must be one key"):
        mj.loader(dataset, 2, 0)
    raw = list(mj.loader(dataset, 5, jax.random.PRNGKey(7)))
    equal(raw, list(mj.loader(dataset, 5, KEY)))


def test_bad_arguments(same):
    dataset = mj.SubjectsDataset(same)
    for name in ("batch_size", "epochs", "num_threads", "prefetch"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            mj.loader(dataset, **{"batch_size": 2, "key": KEY, name: 0})
    with pytest.raises(TypeError, match=r"SubjectsDataset\(subjects, transform\), got list"):
        mj.loader(same, 2, KEY)
    with pytest.raises(ValueError, match="no batch"):
        mj.loader(mj.SubjectsDataset([]), 2, KEY)


def test_without_grain(same, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'medjax[loader]'")):
        next(iter(mj.loader(mj.SubjectsDataset(same), 2, KEY)))


def test_a_script_may_end_in_the_middle(same):
    """grain is imported by the first batch alone, and neither thread keeps the process."""
    code = f"""
import sys, jax, medjax as mj
assert "grain" not in sys.modules
subjects = [mj.Subject(t1=mj.ScalarImage({str(same[0].t1.path)!r}))] * 9
batches = iter(mj.loader(mj.SubjectsDataset(subjects, mj.RandomNoise()), 1, jax.random.key(0), epochs=9))
print(next(batches).t1.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "(1, 1, 10, 9, 8)", "")


# -- bad subjects


def with_bad(count=9, bad=(2, 3, 7), masks=()):
    """Subjects in memory, some of which cannot be read or, where a mask is due, transformed."""

    def reader(path):
        raise OSError(5, "Input/output error", str(path))

    found = []
    for n in range(count):
        data = np.random.default_rng(n).normal(size=(1, 6, 5, 4)).astype(np.float32)
        t1 = mj.ScalarImage(f"{n}.raw", reader=reader) if n in bad else mj.ScalarImage(data)
        label = mj.LabelMap(np.full(data.shape, n not in masks, np.uint8))
        found.append(mj.Subject(t1=t1, label=label, number=n, name=f"s{n}"))
    return found


MASKED = mj.Compose([mj.ZNormalization(masking_method="label"), mj.RandomNoise()])


def test_with_raise_the_loop_goes_on_with_the_batch_after():
    good = list(mj.loader(mj.SubjectsDataset(with_bad(bad=()), NOISE), 2, KEY, shuffle=False))
    batches = iter(mj.loader(mj.SubjectsDataset(with_bad(), NOISE), 2, KEY, shuffle=False))
    found, errors = [], []
    while True:
        try:
            found.append(next(batches))
        except StopIteration:
            break
        except OSError as error:
            errors.append(str(error))
    equal(found, [good[0], good[2], good[4]])
    assert len(errors) == 2 and "subject 2" in errors[0] and "subject 7" in errors[1]
    assert not threads()


def test_skipped_subjects_leave_all_else_as_it_was():
    good = {s.number: s for b in mj.loader(mj.SubjectsDataset(with_bad(bad=()), MASKED), 2, KEY) for s in mj.unstack(b)}
    loader = mj.loader(mj.SubjectsDataset(with_bad(masks=(5,)), MASKED), 2, KEY, epochs=2, on_error="skip")
    batches = iter(loader)
    with compilations() as count:
        first = next(batches)
        states, given = [batches.get_state()], [first]
        with pytest.warns(UserWarning) as warned:
            for batch in batches:
                given.append(batch)
                states.append(batches.get_state())
    assert count() == 0, "a smaller batch has compiled"
    for epoch, warning in enumerate(warned):
        assert str(warning.message).startswith(f"4 subjects were skipped in epoch {epoch}: ")
        assert all(f"number={n}" in str(warning.message) for n in (2, 3, 5, 7))
    assert epoch == 1
    for epoch in range(2):
        assert sorted(s.index for s in batches.skipped if s.epoch == epoch) == [2, 3, 5, 7]
    seen = [n for batch in given for n in batch.number]
    assert sorted(seen) == sorted([0, 1, 4, 6, 8] * 2)
    for subject in mj.unstack(given[0]):
        np.testing.assert_allclose(subject.t1.data, good[subject.number].t1.data, atol=1e-5)
    for stop in (0, 2):
        again = iter(loader)
        again.set_state(json.loads(json.dumps(states[stop])))
        with pytest.warns(UserWarning):
            equal(list(again), given[stop + 1 :])
    with pytest.raises(ValueError, match="on_error='ignore' is not one of 'raise', 'skip'"):
        mj.loader(mj.SubjectsDataset(with_bad()), 2, KEY, on_error="ignore")


def test_check_lists_what_is_wrong(same, tmp_path):
    cut, text, fine = tmp_path / "cut.nii.gz", tmp_path / "text.nii.gz", same[0].t1.path
    mj.ScalarImage(np.random.default_rng(0).integers(0, 999, (1, 64, 64, 64)).astype(np.int16)).save(cut)
    whole = cut.read_bytes()
    cut.write_bytes(whole[:-8] + bytes(255 - b for b in whole[-8:-4]) + whole[-4:])  # its checksum
    text.write_text("no image")
    paths = [fine, cut, text, tmp_path / "missing.nii.gz", fine]
    dataset = mj.SubjectsDataset([mj.Subject(t1=mj.ScalarImage(p), number=n) for n, p in enumerate(paths)], NOISE)
    assert [p.index for p in dataset.check()] == [2, 3]
    problems = dataset.check(voxels=True)
    assert [p.index for p in problems] == [1, 2, 3]
    for problem in problems:
        assert str(paths[problem.index]) in str(problem.error) and f"number={problem.index}" in problem.name
    assert all(subject.t1.held()[0] is None for subject in dataset.subjects)
    masked = mj.SubjectsDataset(dataset.subjects[:1], mj.ZNormalization(masking_method="brain"))
    assert "brain" in str(masked.check()[0].error)


# -- interrupts and several consumers


class Slow:
    """A reader that counts the files that it begins, and reads no further than it is let."""

    def __init__(self):
        self.begun, self.go = 0, threading.Event()

    def __call__(self, path):
        self.begun += 1
        self.go.wait(20)
        return np.zeros((1, 4, 4, 4), np.float32)


def test_after_an_interrupt_no_file_is_begun():
    """What is being read is waited for, and is all that was read: of subjects of two images too."""
    for make in (
        lambda dataset: mj.loader(dataset, 4, KEY, num_threads=2),
        lambda dataset: mj.PatchQueue(dataset, mj.UniformSampler(2), 4, KEY, num_threads=2),
    ):
        slow = Slow()
        image = mj.ScalarImage("x.raw", reader=slow)
        batches = iter(make(mj.SubjectsDataset([mj.Subject(a=image, b=image)] * 32)))
        main = threading.main_thread().ident

        def interrupt(slow=slow, batches=batches, main=main):
            while slow.begun < 2:
                time.sleep(0.01)
            signal.pthread_kill(main, signal.SIGINT)
            while not batches._take.__self__._reading.stop.is_set():
                time.sleep(0.01)
            slow.go.set()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        thread.join()
        assert slow.begun == 2 and not threads()
        assert batches.get_state()["batch"] == 0 and next(batches) is not None
        batches.close()


def test_consumers_share_an_iterator(same):
    batches = iter(mj.loader(mj.SubjectsDataset(same, LIGHT), 1, KEY, epochs=20))
    found = [[] for _ in range(4)]

    def consume(mine):
        for batch in batches:
            mine.append((batch.number, np.asarray(batch.t1.data).tobytes()))

    workers = [threading.Thread(target=consume, args=(mine,)) for mine in found]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    given = [batch for mine in found for batch in mine]
    expected = [
        (b.number, np.asarray(b.t1.data).tobytes()) for b in mj.loader(batches._source.dataset, 1, KEY, epochs=20)
    ]
    assert sorted(given) == sorted(expected)


def test_closing_wakes_who_waits():
    slow = Slow()
    dataset = mj.SubjectsDataset([mj.Subject(a=mj.ScalarImage("x.raw", reader=slow))] * 8)
    batches, errors = iter(mj.loader(dataset, 1, KEY)), []

    def wait():
        try:
            next(batches)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    while slow.begun < 2:
        time.sleep(0.01)
    threading.Timer(0.2, slow.go.set).start()
    batches.close()
    thread.join(20)
    assert not thread.is_alive() and (not errors or "was closed" in errors[0])


# -- state


def test_a_state_is_of_its_key_order_options_and_data(same):
    def state(subjects=same, key=KEY, size=2, **options):
        return iter(mj.loader(mj.SubjectsDataset(subjects), size, key, **options)).get_state()

    ours = state()
    for other, name in (
        (state(key=jax.random.key(8)), "key"),
        (state(key=jax.random.key(7, impl="rbg")), "key"),
        (state(same[::-1]), "dataset"),
        (state([s.replace(number=9) for s in same]), "dataset"),
        (state(shuffle=False), "options"),
        (state(drop_last=True), "options"),
        (state(size=3), "batch_size"),
        (state(same[:4]), "subjects"),
    ):
        with pytest.raises(ValueError, match=f"of another .*{name}"):
            iter(mj.loader(mj.SubjectsDataset(same), 2, KEY)).set_state(other)
    assert state(epochs=7) == ours, "a longer training goes on"
    assert all(s.t1.held()[0] is None for s in same), "no voxels are read"


def test_a_state_is_the_same_elsewhere(tmp_path):
    """In another process, with other hashes, and when the data set has moved: stable, so a number is frozen here."""
    code = """
import sys, jax, medjax as mj
subjects = [mj.Subject(t1=mj.ScalarImage(f"{sys.argv[1]}/s{n}/t1.nii"), age=n) for n in range(3)]
print(iter(mj.loader(mj.SubjectsDataset(subjects), 2, jax.random.key(3))).get_state())
"""
    found = set()
    for folder in (tmp_path / "a", tmp_path / "b" / "c"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
    words = hashlib.sha256(json.dumps([str(jax.random.key_impl(KEY)), [0, 3]]).encode()).hexdigest()[:8]
    assert f"'key': '{words}'" in found.pop()
