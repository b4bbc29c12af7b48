"""Artefacts of k-space on one volume of 8.7 million voxels against TorchIO and MONAI, same arrays, taking turns.

python tests/benchmarks/kspace.py
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
import torchio as tio
from monai.transforms import GibbsNoise, KSpaceSpikeNoise
from timer import alternate, volume

import medjax as mj

DEGREES = np.array([(2.5, -3, 4), (-4, 1.5, 2)], np.float32)
SHIFTS = np.array([(1, -0.7, 0.4), (-1.3, 0.6, 1)], np.float32)
TIMES = np.array([0.31, 0.66], np.float32)
POINT = np.array([(0.4, 0.53, 0.61)], np.float32)


def contestants(shape: tuple[int, ...]) -> dict[str, tuple[mj.Transform, dict[str, Any]]]:
    """The same artefact in medjax and in its peers."""
    index = tuple(int(p * n) for p, n in zip(POINT[0], shape, strict=True))
    found = {
        "motion": (mj.Motion(DEGREES, SHIFTS, TIMES), {"TorchIO": tio.Motion(DEGREES, SHIFTS, TIMES, "linear")}),
        "spike": (mj.Spike(POINT, 0.5), {"TorchIO": tio.Spike(POINT, 0.5), "MONAI": KSpaceSpikeNoise(index, 14.0)}),
        "gibbs": (mj.Gibbs(0.5), {"MONAI": GibbsNoise(0.5)}),
        "gibbs, one axis": (mj.Gibbs((1, 0.5, 1)), {"MONAI": GibbsNoise(0.5)}),
    }
    for axis in range(3):
        numbers = (6, axis, 0.8, None)
        found[f"ghosting, axis {axis}"] = (mj.Ghosting(*numbers), {"TorchIO": tio.Ghosting(*numbers)})
    return found


def main() -> None:
    """Print a line for each artefact and peer."""
    data, _, affine = volume()
    data = data.astype(np.float32) / data.max()
    ours = mj.ScalarImage(jax.device_put(data), affine)
    theirs = tio.ScalarImage(tensor=torch.from_numpy(data), affine=affine)

    def call(t: Any) -> Callable[[], Any]:
        if isinstance(t, mj.Transform):
            return lambda: t(ours).data
        return (lambda: t(theirs).data.numpy()) if isinstance(t, tio.Transform) else lambda: t(theirs.data).numpy()

    print(f"{'':20}{'peer':>10}{'peer ms':>10}{'medjax ms':>11}{'ratio':>8}")
    for name, (mine, peers) in contestants(data.shape[1:]).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = alternate({"medjax": call(mine), **{peer: call(t) for peer, t in peers.items()}})
        for peer in peers:
            ratio = best[peer] / best["medjax"]
            print(f"{name:20}{peer:>10}{best[peer] * 1e3:10.1f}{best['medjax'] * 1e3:11.1f}{ratio:8.1f}", flush=True)


if __name__ == "__main__":
    main()
