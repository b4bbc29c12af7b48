"""Data loaders, pools and forks, in processes of their own with a time limit: what fails here hangs."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def program(*arguments, seconds=90):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=FOLDER,
        timeout=seconds,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout


# A server forks from a process that knows as little of JAX as one that is spawned.
METHODS = ["fork", pytest.param("forkserver", marks=pytest.mark.long), "spawn"]


@pytest.mark.parametrize("method", METHODS)
def test_batches_are_the_same_without_workers_and_with_them(method):
    assert "done" in program("programs.py", "loaders", method)


@pytest.mark.parametrize("method", METHODS)
def test_looking_and_failing_inside_a_worker(method):
    assert "done" in program("programs.py", "workers", method)


NAMES = ["pool", "orphan", "leaks", "interrupted", "own_and_numbered", "strangers", "widowed"]


@pytest.mark.parametrize("name", NAMES)
def test_forked_children(name):
    assert "done" in program("programs.py", name)


@pytest.mark.parametrize("count", [50, pytest.param(400, marks=pytest.mark.long)])
def test_many_forked_children_at_once(count):
    assert "done" in program("programs.py", "crowd", str(count), seconds=600)


def test_importing_building_and_reading_start_no_backend():
    code = """
import torch, torch_bridge as tio
from jax._src.xla_bridge import backends_are_initialized
t = tio.Compose([tio.RandomAffine(degrees=10, p=0.5), tio.OneOf([tio.RandomNoise(), tio.RandomBlur()]), tio.Resample(1)])
image = tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 4))
subject = tio.SubjectsDataset([tio.Subject(t1=image)] * 2, t)[0]
batch = torch.utils.data.default_collate([subject, subject])
import pickle
pickle.loads(pickle.dumps((t, subject, batch)))
assert not backends_are_initialized()
"""
    program("-c", code)


def test_whether_devices_are_started_can_be_asked_without_starting_them():
    code = """
import jax, torch_bridge
from jax._src.xla_bridge import backends_are_initialized
number = jax.config.jax_num_cpu_devices
assert not torch_bridge.devices_are_started() and not backends_are_initialized()
assert len(jax.devices()) == 3
assert torch_bridge.devices_are_started() and jax.config.jax_num_cpu_devices == number == 3
"""
    program("-c", "import jax; jax.config.update('jax_num_cpu_devices', 3)\n" + code)


def test_medjax_does_not_import_torch():
    program("-c", "import sys, medjax; assert 'torch' not in sys.modules")
