"""What must not be lost: by memory that ends, processes that are killed, and iterators that are dropped half way."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import psutil
import pytest
from conftest import compilations

import medjax as mj
from medjax.errors import about
from medjax.transforms import buckets

KEY = jax.random.key(1)

MEMORY = """
import sys, resource, numpy as np, jax, medjax as mj
jax.devices()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
subject = mj.Subject(a=mj.ScalarImage(np.ones((1, 8, 8, 8), np.float32)), name="sub-1")
limit = int((0.95 * (used + 2**30) / 4) ** (1 / 3))  # of float32
sampler = mj.UniformSampler(4)
transforms = {"pad": mj.CropOrPad(2 * limit), "resample": mj.Resample(6 / limit), "far": mj.Resample(0.002), "huge": mj.CropOrPad(3000)}
for name, t in transforms.items():
    dataset = mj.SubjectsDataset([subject] * 2, t)
    ways = {
        "call": lambda: t(subject),
        "dataset": lambda: dataset[1],
        "batch": lambda: t.batch(mj.stack([subject] * 2)),
        "loader": lambda: next(iter(mj.loader(dataset, 2, jax.random.key(0)))),
        "queue": lambda: next(iter(mj.PatchQueue(dataset, sampler, 2, jax.random.key(0)))),
    }
    for way, make in ways.items():
        try:
            make()
            print(name, way, "nothing was raised")
        except (MemoryError, ValueError, TypeError) as error:
            told = "sub-1" in str(error) or way in ("call", "batch")
            print(name, way, "refused" if told and "voxels" in str(error) else f"{type(error).__name__}: {error}")
large = mj.CropOrPad(limit)  # what the process may have would hold it, but not beside what it has: so it is begun
ways = {
    "call": lambda: large(subject).a.numpy(),
    "queue": lambda: next(iter(mj.PatchQueue(mj.SubjectsDataset([subject], large), sampler, 2, jax.random.key(0)))),
}
for way, make in ways.items():
    try:
        make()
        print("large", way, "nothing was raised")
    except (MemoryError, RuntimeError) as error:
        told = "RESOURCE_EXHAUSTED" in str(error) and ("sub-1" in str(error) or way == "call")
        print("large", way, "refused" if told else error)
"""


def test_a_result_that_does_not_fit_is_refused_in_voxels():
    """In a process that may have 1 GB more than it has; neither an abort nor a hang."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.strip().splitlines()
    # A spacing that makes a shape of its own is none for a batch, which says so.
    other = [line for line in lines if not line.endswith("refused") and "known while tracing" not in line]
    assert len(lines) == 22 and not other, other


def test_patches_that_wait_and_do_not_fit_are_refused(monkeypatch):
    """A dozen patches of 2916 bytes in a machine that has room for 7."""
    monkeypatch.setattr(buckets, "SMALL", 0)
    monkeypatch.setattr(buckets, "available", lambda: 7 * 2916)
    dataset, sampler = mj.SubjectsDataset(in_memory()), mj.UniformSampler(9)
    fits = mj.PatchQueue(dataset, sampler, 2, KEY, samples_per_volume=2, max_length=2)
    assert len(list(fits)) == 6
    queue = mj.PatchQueue(dataset, sampler, 2, KEY, samples_per_volume=12, max_length=12)
    with pytest.raises(MemoryError, match="number=.*max_length.*voxels"):
        next(iter(queue))


def test_a_device_without_memory_gives_a_memory_error():
    """Found by asking XLA for more than any machine has, where nothing knows of it beforehand."""
    with pytest.raises(MemoryError, match="^subject 3: "), about("subject 3"):
        jax.block_until_ready(jax.jit(lambda: jnp.zeros(2**46, jnp.int8))())


SAVE = """
import sys, numpy as np, medjax as mj
images = [mj.ScalarImage(np.full((1, 40, 40, 40), value, np.float32) + np.arange(40, dtype=np.float32)) for value in (1, 2)]
images[0].save(sys.argv[1])
print("begun", flush=True)
while True:
    for image in images:
        image.save(sys.argv[1])
"""


@pytest.mark.parametrize("times", [6, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_file_is_old_or_new_whenever_its_writer_is_killed(name, times, tmp_path):
    path = tmp_path / name
    rng = np.random.default_rng(0)
    for _ in range(times):
        process = subprocess.Popen([sys.executable, "-c", SAVE, str(path)], stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"begun\n"
            time.sleep(rng.random() * 0.1)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        found = nibabel.load(path).get_fdata()
        assert found.shape == (40, 40, 40)
        assert any(np.array_equal(found, np.broadcast_to(value + np.arange(40.0), found.shape)) for value in (1, 2))


ITERATE = """
import sys, numpy as np, jax, medjax as mj
subjects = [mj.Subject(a=mj.ScalarImage(sys.argv[1]))] * 50
dataset = mj.SubjectsDataset(subjects, mj.RandomNoise())
batches = iter(mj.PatchQueue(dataset, mj.UniformSampler(4), 4, jax.random.key(0), epochs=100, num_threads=4))
next(batches)
print("begun", flush=True)
for batch in batches:
    pass
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_process_leaves_no_other_and_no_file(how, tmp_path):
    path, folder = tmp_path / "a.nii.gz", tmp_path / "temporary"
    folder.mkdir()
    mj.ScalarImage(np.random.default_rng(0).random((1, 12, 12, 12), np.float32)).save(path)
    before = set(Path("/dev/shm").iterdir())
    process = subprocess.Popen(
        [sys.executable, "-c", ITERATE, str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        assert process.stdout.readline() == b"begun\n"
        assert not psutil.Process(process.pid).children(), "only threads read"
        process.send_signal(how)
        assert process.wait(20) != 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert not list(folder.iterdir()) and set(Path("/dev/shm").iterdir()) <= before


def in_memory(count=6, bad=()):
    """Subjects, some of which cannot be read."""

    def reader(path):
        raise OSError(5, "Input/output error", str(path))

    arrays = [np.random.default_rng(n).random((1, 9, 9, 9), np.float32) for n in range(count)]
    return [
        mj.Subject(
            t1=mj.ScalarImage("x.raw", reader=reader) if n in bad else mj.ScalarImage(array),
            label=mj.LabelMap((array > 0.5).astype(np.uint8)),
            number=n,
        )
        for n, array in enumerate(arrays)
    ]


def counts():
    """Threads, file descriptors and children of this process."""
    process = psutil.Process()
    return threading.active_count(), process.num_fds(), len(process.children())


def equal(count=6):
    """A data set, a pipeline and a sampler, made anew and always the same."""
    pipeline = mj.Compose([mj.RandomFlip((0, 1)), mj.RandomNoise(p=0.5)])
    return mj.SubjectsDataset(in_memory(count), pipeline), mj.LabelSampler(4, "label", {1: 2.0, 0: 1.0})


def batches_of(way, epochs=5):
    """The batches of a loader or queue that is made anew."""
    dataset, sampler = equal()
    if way == "loader":
        return iter(mj.loader(dataset, 2, KEY, epochs=epochs))
    return iter(mj.PatchQueue(dataset, sampler, 4, KEY, samples_per_volume=4, epochs=epochs))


WAYS = ("loader", "queue")


@pytest.mark.parametrize("times", [10, pytest.param(100, marks=pytest.mark.long)])
def test_loaders_and_queues_dropped_half_way_leave_nothing(times):
    for way in WAYS:
        next(batches_of(way))
    before = counts()
    with compilations() as compiled:
        for _ in range(times):
            for way in WAYS:
                next(batches_of(way))
    assert counts() == before and compiled() == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.long)])
def test_memory_is_flat_over_batches(way, count):
    sizes = []
    for number, _ in enumerate(batches_of(way, epochs=400)):
        if number >= 100:
            sizes.append(psutil.Process().memory_info().rss)
        if len(sizes) == count:
            break
    print(f"{way}: {count} batches, {max(sizes[:20]) / 2**20:.1f} MB, then {max(sizes[-20:]) / 2**20:.1f}")
    assert len(sizes) == count and max(sizes[-20:]) < 1.02 * max(sizes[:20])


# -- queues of subjects that cannot be used


def test_a_queue_gives_others_in_the_stead_of_skipped_volumes():
    """All patches of good subjects stay where they were; the others are of good subjects, and no two are the same."""
    make = {"samples_per_volume": 3, "max_length": 6, "epochs": 2}

    def queue(bad, **options):
        dataset = mj.SubjectsDataset(in_memory(bad=bad), mj.RandomNoise())
        return mj.PatchQueue(dataset, mj.UniformSampler(4), 4, KEY, **make, **options)

    whole = list(queue(()))
    for bad in ((2,), (0, 4, 5)):
        skipping = queue(bad, on_error="skip")
        batches, states, found = iter(skipping), [], []
        with pytest.warns(UserWarning) as warned:
            for batch in batches:
                found.append(batch)
                states.append(batches.get_state())
        assert len(warned) == 2 and len(found) == len(whole) == len(skipping)
        assert {(s.epoch, s.index) for s in batches.skipped} == {(e, i) for e in range(2) for i in bad}
        keys = set()
        for ours, theirs in zip(found, whole, strict=True):
            assert ours.t1.shape == theirs.t1.shape
            keys |= {tuple(key) for key in jax.random.key_data(ours["key"]).tolist()}
            for i, number in enumerate(theirs.number):
                assert ours.number[i] not in bad
                if number not in bad:
                    assert ours.number[i] == number
                    np.testing.assert_array_equal(ours.t1.data[i], theirs.t1.data[i])
        assert len(keys) == 36
        again = iter(skipping)
        again.set_state(states[2])
        with pytest.warns(UserWarning):
            for ours, theirs in zip(again, found[3:], strict=True):
                np.testing.assert_array_equal(ours.t1.data, theirs.t1.data)
    batches, errors, given = iter(queue((2,))), 0, 0
    for _ in range(len(whole)):
        try:
            next(batches)
            given += 1
        except OSError as error:
            assert "number=2" in str(error)
            errors += 1
    assert errors and given and errors + given == len(whole)
    with pytest.raises(StopIteration):
        next(batches)
    with pytest.raises(OSError, match="number="):
        next(iter(queue(range(6), on_error="skip")))


def test_the_state_of_a_queue_is_of_its_options():
    dataset, sampler = mj.SubjectsDataset(in_memory(), mj.RandomNoise()), mj.UniformSampler(4)

    def state(sampler=sampler, **options):
        return iter(mj.PatchQueue(dataset, sampler, 4, KEY, **{"samples_per_volume": 3, **options})).get_state()

    ours = iter(mj.PatchQueue(dataset, mj.UniformSampler(4), 4, KEY, samples_per_volume=3))
    ours.set_state(state())
    for other in (
        state(samples_per_volume=4), state(max_length=3), state(epochs=2), state(shuffle_subjects=False),
        state(mj.UniformSampler(3)), state(mj.LabelSampler(4)), state(order=[0, 1]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="of another options"):
            ours.set_state(other)
