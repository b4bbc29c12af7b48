"""torch_bridge: what it adds to a program, and the guide's loops under torch's DataLoader against TorchIO 1.2.1.

python tests/benchmarks/bridge.py [overhead queue loader leaks] [--rounds N] [--batches N]

overhead: milliseconds that a batch of 2x1x160x192x160 takes beyond the jitted pipeline.  queue: the guide's "Training
Loop with Patches" without its network, four workers.  loader: its "Create DataLoader", four workers, with the share of
decoding in the time of a volume.  leaks: memory, files, threads and children over many batches of four workers.

Contestants of queue and loader run in processes of their own, in turns; whole epochs are timed, with the start of their
workers, after one that warms up. Files are eight .nii.gz of 8.7 million voxels with their labels.
"""

import argparse
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
import torch
from loader import SUBJECTS, subjects, write
from timer import alternate
from torch.utils.data import DataLoader

BATCH, WORKERS, REPEATED = 8, 4, 2
GOALS = {"queue": 20, "loader": 4}
EPOCHS = {("queue", "torchio"): 1, ("queue", "medjax"): 8, ("loader", "torchio"): 1, ("loader", "medjax"): 3}
"""That are timed."""


def preprocessing(library: Any) -> Any:
    """The guide's."""
    return library.Compose([library.Resample(1.0), library.CropOrPad((128, 128, 128)), library.ZNormalization()])


def training(library: Any) -> Any:
    """The guide's preprocessing and augmentation."""
    augmentation = library.Compose(
        [
            library.RandomAffine(scales=(0.9, 1.1), degrees=10, p=0.75),
            library.RandomElasticDeformation(p=0.5),
            library.RandomBiasField(p=0.5),
            library.RandomNoise(std=(0, 0.05), p=0.5),
        ]
    )
    return library.Compose([preprocessing(library), augmentation])


def overhead(options: argparse.Namespace) -> None:
    """Print what a batch takes beyond the program: as a difference, and as the sum of what the host does."""
    import medjax as mj
    import torch_bridge as tio
    from medjax.patches.samplers import compiled_keys
    from medjax.transforms import host
    from medjax.transforms.elements import compiled_each
    from torch_bridge.lending import subject_to_medjax

    ours = tio.RandomBrightness()
    tensors = [torch.rand(1, 160, 192, 160) for _ in range(2)]
    batch = torch.utils.data.default_collate([tio.Subject(t1=tio.ScalarImage(tensor=t)) for t in tensors])
    inner, back = subject_to_medjax(batch)
    arrays = inner.replace(t1=inner.t1.replace(data=jax.device_put(np.array(inner.t1.data))))
    words = np.array([[0, 0], [0, 1]], np.uint32)
    many = compiled_keys(words, 2)
    result, record = jax.block_until_ready(compiled_each(ours, inner, many, None))
    contestants = {
        "program": lambda: compiled_each(ours, arrays, many, None),
        "medjax": lambda: mj.Transform.batch(ours, arrays, many).t1.data,
        "bridge": lambda: ours.batch(batch, words).t1.data,
        "lend": lambda: subject_to_medjax(batch),
        "keys": lambda: compiled_keys(words, 2),
        "checks": lambda: host.check_subject(ours, inner),
        "affines": lambda: host.after_batch(ours, inner, result, record, 2),
        "wrap": lambda: back(result),
    }
    best = {name: 1e3 * spent for name, spent in alternate(contestants, options.repeats).items()}
    parts = {name: best[name] for name in list(best)[3:]}
    print(
        f"overhead: program {best['program']:.1f} ms; medjax {best['medjax'] - best['program']:+.2f} ms, bridge "
        f"{best['bridge'] - best['program']:+.2f} ms; what the host does {sum(parts.values()):.2f} ms ("
        + ", ".join(f"{name} {spent:.2f}" for name, spent in parts.items())
        + "); goal 1"
    )


def loop(name: str, library: Any, folder: Path) -> Any:
    """The DataLoader of one of the guide's loops."""
    many = subjects(library, folder)
    if name == "loader":
        dataset = library.SubjectsDataset(many * REPEATED, transform=preprocessing(library))
        return DataLoader(dataset, batch_size=2, shuffle=True, num_workers=WORKERS, collate_fn=COLLATE.get(library))
    dataset = library.SubjectsDataset(many, transform=training(library))
    queue = library.Queue(
        subjects_dataset=dataset,
        max_length=50,
        samples_per_volume=5,
        sampler=library.UniformSampler(patch_size=64),
        num_workers=WORKERS,
        shuffle_subjects=True,
        shuffle_patches=True,
    )
    return DataLoader(queue, batch_size=BATCH, collate_fn=COLLATE.get(library))


COLLATE: dict[Any, Any] = {}
"""How a library's subjects are collated, if not as torch does by itself."""


def run(name: str, library_name: str, folder: Path) -> None:
    """Print batches per second, seconds of one core for each, those of workers too, and the share of decoding in them."""
    torch.manual_seed(0)
    if library_name == "torchio":
        import torchio as library

        torch.set_num_threads(1)  # workers that fork hang otherwise
        COLLATE[library] = library.SubjectsLoader._collate
    else:
        import torch_bridge as library
    loader, epochs = loop(name, library, folder), EPOCHS[name, library_name]
    for batch in loader:
        touch(batch)
    count, start, busy = 0, time.perf_counter(), sum(os.times()[:4])
    for _ in range(epochs):
        for batch in loader:
            touch(batch)
            count += 1
    spent, busy = time.perf_counter() - start, sum(os.times()[:4]) - busy
    read = SUBJECTS * epochs * (REPEATED if name == "loader" else 1)
    print(count / spent, busy / count, decoding(library, folder) * read / busy)


def touch(batch: Any) -> float:
    """Look at the voxels of a batch, as a network would."""
    return float(batch["t1"]["data"][..., 0].sum() + batch["label"]["data"][..., 0].sum())


def decoding(library: Any, folder: Path) -> float:
    """Seconds of one core to read a subject."""
    many = subjects(library, folder)
    start = time.process_time()
    for subject in many:
        subject.load()
    return (time.process_time() - start) / len(many)


def measure(name: str, library: str, folder: Path) -> list[float]:
    """What `run` prints, in a fresh process."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", str(here), name, "--contestant", library, "--folder", str(folder)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True, check=True
    )
    return list(map(float, done.stdout.split()[-3:]))


def against(name: str, options: argparse.Namespace) -> None:
    """Print batches per second of both, in turns, and the ratio of each round; that of processor time as well."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), False)
        ratios = []
        for number in range(options.rounds):
            peer, ours = (measure(name, library, Path(folder)) for library in ("torchio", "medjax"))
            ratios.append((ours[0] / peer[0], peer[1] / ours[1]))
            print(
                f"{name}, round {number}: TorchIO {peer[0]:.3f}, bridge {ours[0]:.2f} batches/s, {ratios[-1][0]:.1f} "
                f"times; {peer[1]:.2f} and {ours[1]:.2f} s of one core each, {ratios[-1][1]:.1f} times, of which "
                f"{peer[2]:.0%} and {ours[2]:.0%} decode",
                flush=True,
            )
        wall, busy = np.median(ratios, 0)
        print(f"{name}: median {wall:.1f} times TorchIO (goal {GOALS[name]}), {busy:.1f} in processor time")


def leaks(options: argparse.Namespace) -> None:
    """Print what 500 batches of a DataLoader of four workers leave behind."""
    import torch_bridge as tio

    process = psutil.Process()

    def state() -> dict[str, Any]:
        gc.collect()
        return {
            "MB": process.memory_info().rss / 2**20, "files": process.num_fds(), "threads": threading.active_count(),
            "children": len(process.children(recursive=True)),
        }  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(SUBJECTS):
            t1 = torch.rand(1, 96, 96, 96)
            tio.ScalarImage(tensor=t1).save(folder / f"t1_{number}.nii.gz")
            tio.LabelMap(tensor=(t1 > 0.5).byte()).save(folder / f"label_{number}.nii.gz")
        t = tio.Compose([tio.ZNormalization(), tio.RandomAffine(p=0.75), tio.RandomNoise(p=0.5)])
        dataset = tio.SubjectsDataset(subjects(tio, folder) * 7, t)
        print("before:", state())
        loader = DataLoader(dataset, batch_size=2, num_workers=WORKERS)
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        for number, batch in enumerate(itertools.islice(epochs, options.batches), 1):
            touch(batch)
            if number in (options.batches // 10, options.batches // 2, options.batches):
                print(f"{number} batches:", state(), flush=True)
        del epochs, batch
        print("after:", state())


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["overhead", "queue", "loader", "leaks"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--batches", type=int, default=500)
    parser.add_argument("--contestant", choices=["torchio", "medjax"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.names:
        if options.contestant:
            run(name, options.contestant, options.folder)
        elif name in GOALS:
            against(name, options)
        else:
            {"overhead": overhead, "leaks": leaks}[name](options)


if __name__ == "__main__":
    main()
