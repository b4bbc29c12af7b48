"""Programs about what must not be lost or left by torch_bridge, in processes of their own: `python faults.py NAME [COUNT]`.

Each raises if something is wrong; whoever runs them gives them a time limit, for what fails here may hang.
"""

import gc
import resource
import sys
import threading
import time

import jax
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

import torch_bridge as tio


def dataset(transform, count=4, size=9):
    """Subjects of tensors, each with a number."""
    tensors = [
        torch.from_numpy(np.random.default_rng(i).random((1, size, size, size), np.float32)) for i in range(count)
    ]
    subjects = [tio.Subject(t1=tio.ScalarImage(tensor=tensor), number=i) for i, tensor in enumerate(tensors)]
    return tio.SubjectsDataset(subjects, transform)


def pipeline():
    """Made anew, always the same."""
    return tio.Compose([tio.RandomFlip((0, 1)), tio.RandomNoise(std=(0, 0.5), p=0.5)])


def queue(transform):
    return tio.Queue(dataset(transform), 6, 3, tio.UniformSampler(4), num_workers=2)


WAYS = {
    "DataLoader": lambda transform: DataLoader(dataset(transform), 2),
    "DataLoader of a worker": lambda t: DataLoader(dataset(t), 2, num_workers=1, multiprocessing_context="fork"),
    "SubjectsLoader": lambda transform: tio.SubjectsLoader(dataset(transform), 2),
    "Queue": queue,
    "DataLoader of a Queue": lambda transform: DataLoader(queue(transform), 2),
}


def first(way, transform):
    """The voxels of the first batch, looked at."""
    return next(iter(WAYS[way](transform)))["t1"][tio.DATA].sum().item()


def memory():
    """What does not fit is an error that begins with the subject, in a process that may have 1 GB more than it has."""
    for way in WAYS:
        first(way, pipeline())
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
    edge = int(((used + 2**30) / 4) ** (1 / 3) * 1.2)  # of float32; of one byte it would fit, so that it may be begun
    sizes = {"huge": tio.CropOrPad(3000), "far": tio.Resample(0.002), "large": tio.CropOrPad(edge)}
    for name, transform in sizes.items():
        for way in WAYS:
            try:
                first(way, transform)
            except (MemoryError, ValueError) as error:
                refused = "voxels" in str(error) or (name == "large" and isinstance(error, MemoryError))
                assert "number=" in str(error) and refused, (name, way, error)
            else:
                raise AssertionError(f"{name}, {way}: nothing was raised")


def counts():
    """Threads, file descriptors and children."""
    gc.collect()
    process = psutil.Process()
    return threading.active_count(), process.num_fds(), len(process.children())


def dropped(times="4"):
    """Loaders and queues, each made anew and left after a batch, leave no more than the first of them did."""
    compiled = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(duration)

    for way in WAYS:
        first(way, pipeline())
    before = counts()
    jax.monitoring.register_event_duration_secs_listener(listen)
    for _ in range(int(times)):
        for way in WAYS:
            first(way, pipeline())
    deadline = time.monotonic() + 10
    while counts() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(a <= b for a, b in zip(counts(), before, strict=True)), (before, counts())
    assert not compiled, f"{len(compiled)} programs were compiled"
    print(f"{int(times) * len(WAYS)} made and dropped")


def flat(batches="60"):
    """The memory of a process over batches grows by no more than 2 per cent."""
    for way in ("DataLoader", "SubjectsLoader", "Queue"):
        source, sizes = WAYS[way](pipeline()), []
        while len(sizes) < 50 + int(batches):
            for batch in source:
                batch["t1"][tio.DATA].sum().item()
                sizes.append(psutil.Process().memory_info().rss)
        begin, end = max(sizes[50:60]), max(sizes[-10:])
        assert end < 1.02 * begin, (way, begin, end)
        print(f"{way}: {len(sizes) - 50} batches, {begin / 2**20:.1f} MB, then {end / 2**20:.1f}")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("done")
