"""One data set shared by several processes, and the state of iterators beside a model's."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import small_subject

import medjax as mj

FOLDER = Path(__file__).parent.parent
KEY = jax.random.key(7)
PIPELINE = mj.Compose(
    [mj.CropOrPad((6, 5, 4)), mj.RandomNoise(p=0.5), mj.LastElements([mj.Gamma(2.0), mj.Gamma(0.5)], fraction=0.5)]
)


def subjects(count):
    """Numbered subjects of one shape."""
    return [small_subject(np.eye(4), (7, 6, 5), seed=n).replace(number=n, y=np.int32(n)) for n in range(count)]


def check_joined(parts, whole):
    """Assert that what processes give, in the order of their indices, is what one alone gives."""
    assert [len(part) for part in parts] == [len(whole)] * len(parts)
    for *shares, batch in zip(*parts, whole, strict=True):
        assert sum((share.number for share in shares), ()) == batch.number
        np.testing.assert_array_equal(np.concatenate([share.y for share in shares]), batch.y)
        for name, image in batch.images.items():
            together = np.concatenate([share[name].numpy() for share in shares])
            np.testing.assert_allclose(together, image.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_the_shares_of_processes_are_the_batches_of_one(count):
    """A last batch of 4 divides as well; a share's element is in the whole batch's place, which LastElements goes by."""
    dataset = mj.SubjectsDataset(subjects(12), PIPELINE)
    parts = [list(mj.loader(dataset, 8, KEY, epochs=2, shard=(i, count))) for i in range(count)]
    check_joined(parts, list(mj.loader(dataset, 8, KEY, epochs=2)))


def test_a_state_goes_on_with_another_number_of_processes():
    dataset = mj.SubjectsDataset(subjects(8), mj.RandomNoise())
    whole = list(mj.loader(dataset, 4, KEY, epochs=2))
    half = iter(mj.loader(dataset, 4, KEY, epochs=2, shard=(1, 2)))
    next(half)
    one = iter(mj.loader(dataset, 4, KEY, epochs=2))
    one.set_state(json.loads(json.dumps(half.get_state())))
    check_joined([list(one)], whole[1:])
    again = iter(mj.loader(dataset, 4, KEY, epochs=2, shard=(0, 2)))
    again.set_state(half.get_state())
    check_joined([list(again), list(half)], whole[1:])


def test_what_does_not_divide_is_refused():
    dataset = mj.SubjectsDataset(subjects(6))
    with pytest.raises(ValueError, match="a batch of 3 does not divide over 2 processes"):
        mj.loader(dataset, 3, KEY, shard=(0, 2))
    with pytest.raises(ValueError, match="a batch of 2 does not divide over 4 processes; drop_last=True"):
        mj.loader(dataset, 4, KEY, shard=(0, 4))
    with pytest.raises(ValueError, match="skip.*processes"):
        mj.loader(dataset, 2, KEY, shard=(0, 2), on_error="skip")
    for wrong in ((2, 2), (-1, 2), (0, 0), 1, "12", (0, 1, 2), (0.5, 2), None):
        with pytest.raises((TypeError, ValueError), match=r"shard must be a pair \(index, count\)"):
            mj.loader(dataset, 2, KEY, shard=wrong)
        with pytest.raises((TypeError, ValueError), match=r"shard must be a pair \(index, count\)"):
            mj.PatchQueue(dataset, mj.UniformSampler(3), 2, KEY, shard=wrong)
    with pytest.raises(ValueError, match="a batch of 3 does not divide over 2 processes"):
        mj.PatchQueue(dataset, mj.UniformSampler(3), 3, KEY, shard=(0, 2))


def test_queues_share_the_volumes():
    """Every volume of an epoch in one process alone, as many in each, and no patch twice."""
    dataset = mj.SubjectsDataset(subjects(5), mj.RandomNoise())
    options = dict(samples_per_volume=4, max_length=8, epochs=2)
    parts = [list(mj.PatchQueue(dataset, mj.UniformSampler(3), 4, KEY, shard=(i, 2), **options)) for i in range(2)]
    assert [len(part) for part in parts] == [8, 8]  # 2 volumes of 4 patches in each of 2 epochs, by twos
    for epoch in (slice(0, 4), slice(4, 8)):
        volumes = [{number for batch in part[epoch] for number in batch.number} for part in parts]
        assert [len(found) for found in volumes] == [2, 2] and not volumes[0] & volumes[1]
    drawn = np.concatenate([jax.random.key_data(batch["key"]) for part in parts for batch in part])
    assert len(np.unique(drawn, axis=0)) == len(drawn)


def test_a_subject_given_twice_is_drawn_anew_whichever_process_has_it():
    queues = [
        mj.PatchQueue(
            mj.SubjectsDataset(subjects(2), mj.RandomNoise()), mj.UniformSampler(3), 2, KEY, samples_per_volume=2,
            max_length=2, order=[0, 0, 1, 1], shard=(i, 2),
        )
        for i in range(2)
    ]  # fmt: skip
    drawn = np.concatenate([jax.random.key_data(batch["key"]) for queue in queues for batch in queue])
    assert len(np.unique(drawn, axis=0)) == len(drawn) == 8


def sources():
    """A loader and a queue."""
    dataset = mj.SubjectsDataset(subjects(4), mj.RandomNoise())
    return {
        "loader": mj.loader(dataset, 2, KEY, epochs=2),
        "queue": mj.PatchQueue(dataset, mj.UniformSampler(3), 2, KEY, samples_per_volume=2, max_length=4),
    }


@pytest.mark.parametrize("kind", ["loader", "queue"])
def test_grain_and_orbax_save_and_restore_it_beside_a_model(kind, tmp_path):
    model = {"w": np.arange(3.0)}
    whole = list(sources()[kind])
    batches = iter(sources()[kind])
    assert isinstance(batches, grain.DatasetIterator)
    next(batches)
    with ocp.CheckpointManager(tmp_path, item_names=("model", "data")) as manager:
        saved = ocp.args.Composite(model=ocp.args.StandardSave(model), data=grain.checkpoint.CheckpointSave(batches))
        manager.save(1, args=saved)
        manager.wait_until_finished()
        again = iter(sources()[kind])
        restored = manager.restore(
            1,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(model), data=grain.checkpoint.CheckpointRestore(again)
            ),
        )
    np.testing.assert_array_equal(restored["model"]["w"], model["w"])
    check_joined([list(restored["data"])], whole[1:])


PROCESS = """
import sys
from pathlib import Path
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
import medjax as mj
from data.test_shards import KEY, PIPELINE, subjects
one_each = [next(d for d in jax.devices() if d.process_index == i) for i in range(2)]
mesh = jax.sharding.Mesh(np.array(one_each), ("batch",))
split = jax.NamedSharding(mesh, jax.P("batch"))
dataset = mj.SubjectsDataset(subjects(8), PIPELINE)
mean = jax.jit(lambda x: (x * np.arange(1.0, 5)[:, None, None, None, None]).mean())
for batch in mj.loader(dataset, 4, KEY, shard=(jax.process_index(), jax.process_count())):
    whole = jax.make_array_from_process_local_data(split, np.asarray(batch.t1.data))
    print(whole.shape[0], float(mean(whole)), flush=True)
"""


def test_two_processes_of_jax_distributed_see_the_batches_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, address]
    running = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, cwd=FOLDER, text=True) for i in range(2)]
    texts = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    lines = [[line for line in text.splitlines() if not line.startswith("[Gloo]")] for text in texts]
    assert lines[0] == lines[1]
    weights = np.arange(1.0, 5)[:, None, None, None, None]
    whole = mj.loader(mj.SubjectsDataset(subjects(8), PIPELINE), 4, KEY)
    means = [(np.asarray(batch.t1.data) * weights).mean() for batch in whole]
    found = [line.split() for line in lines[0]]
    assert [size for size, _ in found] == ["4", "4"]
    np.testing.assert_allclose([float(mean) for _, mean in found], means, rtol=1e-5)
