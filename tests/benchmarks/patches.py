"""Patches of one volume of 8.7 million voxels and their way back, against TorchIO and MONAI, taking turns.

python tests/benchmarks/patches.py
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torchio as tio
from monai.inferers import sliding_window_inference
from timer import alternate, volume

import medjax as mj

SIZE, OVERLAP, COUNT, BATCH = 64, 32, 10, 8
RATIOS = {0: 1.0, 1: 3.0}


def row(what: str, best: dict[str, float], goal: float) -> None:
    """Print a line: the peer's time, ours and the ratio."""
    (_, mine), (_, peer) = best.items()
    print(f"{what:34}{peer * 1e3:10.1f}{mine * 1e3:12.1f}{peer / mine:8.1f}{goal:7}", flush=True)


def sampling(data: np.ndarray, label: np.ndarray, affine: np.ndarray) -> None:
    """Ten patches of a loaded subject, as one vmapped draw of arrays on the device and from those of the host."""
    mine = mj.Subject(t1=mj.ScalarImage(data, affine), label=mj.LabelMap(label, affine))
    there = jax.device_put(mine)
    theirs = tio.Subject(
        t1=tio.ScalarImage(tensor=torch.from_numpy(data), affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label), affine=affine),
    )
    pairs = {
        "uniform": (mj.UniformSampler(SIZE), tio.UniformSampler(SIZE)),
        "weighted": (mj.WeightedSampler(SIZE, "label"), tio.WeightedSampler(SIZE, "label")),
        "label": (mj.LabelSampler(SIZE, "label", RATIOS), tio.LabelSampler(SIZE, "label", RATIOS)),
    }
    goals = {"uniform": (1, 3), "weighted": (5, 5), "label": (5, 5)}
    keys = jax.random.split(jax.random.key(0), COUNT)
    for name, (sampler, peer) in pairs.items():
        drawn = jax.jit(lambda subject, many, s=sampler: s.batch(subject, many, COUNT))
        ways: dict[str, Callable[[], Any]] = {
            "eagerly": lambda s=sampler: s.batch(mine, jax.random.key(0), COUNT),
            "as one vmapped draw": lambda d=drawn: d(there, keys),
        }
        for (way, run), goal in zip(ways.items(), goals[name], strict=True):
            best = alternate({"medjax": run, "torchio": lambda p=peer: list(p(theirs, COUNT))})
            row(f"{name} {way}", best, goal)


def aggregation(data: np.ndarray, affine: np.ndarray) -> None:
    """All patches back into a volume, in batches."""
    subject = tio.Subject(t1=tio.ScalarImage(tensor=torch.from_numpy(data.astype(np.float32)), affine=affine))
    peer = tio.GridSampler(subject, SIZE, OVERLAP)
    mine = mj.GridSampler(mj.Subject(t1=mj.ScalarImage(data, affine)), SIZE, OVERLAP)
    patches = torch.stack([patch["t1"][tio.DATA] for patch in peer])
    places = torch.stack([torch.as_tensor(patch[tio.LOCATION]) for patch in peer])
    parts = [slice(n, n + BATCH) for n in range(0, len(patches), BATCH)]
    batches = [(jax.device_put(patches[part].numpy()), mine.locations[part]) for part in parts]
    for mode in ("crop", "average", "hann"):
        made = mj.GridAggregator(mine, mode)

        def ours(aggregator: mj.GridAggregator = made) -> mj.Image:
            state = aggregator.init(1)
            for batch, locations in batches:
                state = aggregator.add(state, batch, locations)
            return aggregator.finish(state).data

        def theirs(mode: str = mode) -> torch.Tensor:
            aggregator = tio.GridAggregator(peer, mode)
            for part in parts:
                aggregator.add_batch(patches[part], places[part])
            return aggregator.get_output_tensor()

        row(f"{len(patches)} patches, {mode}", alternate({"medjax": ours, "torchio": theirs}), 2)


def windows(data: np.ndarray, affine: np.ndarray) -> None:
    """A network that does nothing, over the volume."""
    data = data.astype(np.float32)
    subject = mj.Subject(t1=mj.ScalarImage(jax.device_put(data), affine))
    tensor = torch.from_numpy(data)[None]
    for mode, peer, goal in (("average", "constant", 1.5), ("gaussian", "gaussian", 2.5)):

        def ours(mode: str = mode) -> Any:
            return mj.sliding_window(identity, subject, SIZE, OVERLAP, BATCH, mode).data

        def theirs(peer: str = peer) -> torch.Tensor:
            return sliding_window_inference(tensor, (SIZE,) * 3, BATCH, lambda x: x, overlap=OVERLAP / SIZE, mode=peer)

        row(f"sliding window, {mode}", alternate({"medjax": ours, "monai": theirs}), goal)


def identity(batch: mj.Subject) -> jax.Array:
    """The network."""
    return batch["t1"].data


def main() -> None:
    """Print a line for each task."""
    data, label, affine = volume()
    print(f"{'':34}{'peer ms':>10}{'medjax ms':>12}{'ratio':>8}{'goal':>7}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampling(data, label, affine)
        aggregation(data, affine)
        windows(data, affine)


if __name__ == "__main__":
    main()
