"""Normalisation of one volume of 8.7 million voxels against TorchIO and MONAI, same arrays, taking turns.

python tests/benchmarks/normalisation.py
"""

import warnings
from collections.abc import Callable

import jax
import numpy as np
import torch
import torchio as tio
from monai import transforms as monai
from timer import alternate, volume

import medjax as mj

GOALS = {"z-norm": 3, "z-norm, mask": 3, "percentiles": 3, "histogram": 1, "clamp": 1, "mask": 1, "window": 1}
TARGETS = 100 * np.linspace(0, 1, 13) ** 1.5


def contestants(subject: mj.Subject, theirs: tio.Subject) -> dict[str, dict[str, Callable]]:
    """The same normalisation in each library that has it."""
    tensor, mask = theirs["t1"].data, theirs["label"].data > 0

    def mine(t: mj.Transform) -> Callable:
        return lambda: t(subject).t1.data

    def peer(t: tio.Transform) -> Callable:
        return lambda: t(theirs)["t1"].data

    def other(t: Callable) -> Callable:
        return lambda: t(tensor)

    return {
        "z-norm": {
            "medjax": mine(mj.ZNormalization()),
            "torchio": peer(tio.ZNormalization()),
            "monai": other(monai.NormalizeIntensity()),
        },
        "z-norm, mask": {
            "medjax": mine(mj.ZNormalization("label")),
            "torchio": peer(tio.ZNormalization(masking_method="label")),
            "monai": other(monai.NormalizeIntensity(nonzero=True)),
        },
        "percentiles": {
            "medjax": mine(mj.RescaleIntensity(percentiles=(1, 99))),
            "torchio": peer(tio.RescaleIntensity(percentiles=(1, 99))),
            "monai": other(monai.ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)),
        },
        "histogram": {
            "medjax": mine(mj.HistogramStandardization(TARGETS)),
            "torchio": peer(tio.HistogramStandardization({"t1": TARGETS})),
        },
        "clamp": {"medjax": mine(mj.Clamp(100, 900)), "torchio": peer(tio.Clamp(100, 900))},
        "mask": {
            "medjax": mine(mj.Mask("label")),
            "torchio": peer(tio.Mask("label")),
            "monai": other(monai.MaskIntensity(mask)),
        },
        "window": {
            "medjax": mine(mj.Window(500, 800)),
            "monai": other(monai.ScaleIntensityRange(100, 900, 0, 1, clip=True)),
        },
    }


def main() -> None:
    """Print a line for each: milliseconds, and how many times the quickest peer's time is that of medjax."""
    data, label, affine = volume()
    noise = np.random.default_rng(0).normal(scale=5, size=data.shape)
    data = (data + noise).astype(np.float32)
    image = mj.ScalarImage(jax.device_put(data), affine)
    subject = mj.Subject(t1=image, label=mj.LabelMap(jax.device_put(label), affine))
    theirs = tio.Subject(
        t1=tio.ScalarImage(tensor=torch.from_numpy(data), affine=affine),
        label=tio.LabelMap(tensor=torch.from_numpy(label), affine=affine),
    )
    print(f"{'':14}{'medjax ms':>12}{'torchio':>10}{'monai':>10}{'ratio':>8}{'goal':>6}")
    for name, runs in contestants(subject, theirs).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = {library: 1e3 * time for library, time in alternate(runs).items()}
        ours = best.pop("medjax")
        peers = "".join(f"{best[p]:10.1f}" if p in best else f"{'-':>10}" for p in ("torchio", "monai"))
        print(f"{name:14}{ours:12.1f}{peers}{min(best.values()) / ours:8.1f}{GOALS[name]:6}")


if __name__ == "__main__":
    main()
