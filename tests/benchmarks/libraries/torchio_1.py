"""TorchIO 1.2.1: its form of the rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchio as tio

from tests.benchmarks.pipelines import cut, guide
from tests.benchmarks.volumes import BIAS, DEGREES, MOVE, PAIRS, POINT, POINTS, SHIFTS, TIMES, Volume

DISTRIBUTION = "torchio"


def transforms(shape: tuple[int, ...]) -> dict[str, tio.Transform]:
    """Every transform that TorchIO has."""
    affine, elastic = tio.Affine(**MOVE), tio.ElasticDeformation(POINTS, (7.5, 7.5, 7.5))
    pairs = [tuple(tuple(int(v) for v in corner) for corner in pair) for pair in PAIRS]
    return {
        "affine": affine,
        "affine, cubic": tio.Affine(**MOVE, image_interpolation="bspline"),
        "elastic": elastic,
        "affine, elastic, flip, crop": tio.Compose([affine, elastic, tio.Flip((0,)), tio.CropOrPad(min(96, *shape))]),
        "resample": tio.Resample(1.3),
        "resize": tio.Resize(tuple(n * 3 // 4 for n in shape)),
        "flip": tio.Flip((0,)),
        "crop": tio.Crop(min(shape) // 8),
        "pad": tio.Pad(10),
        "transpose": tio.Transpose(),
        "z-norm": tio.ZNormalization(),
        "percentiles": tio.RescaleIntensity(percentiles=(1, 99)),
        "histogram": tio.HistogramStandardization({"image": 100 * np.linspace(0, 1, 13) ** 1.5}),
        "clamp": tio.Clamp(0.1, 0.9),
        "gamma": tio.Gamma([1.2]),
        "noise": tio.Noise(0, 0.1, 3),
        "blur": tio.Blur(1.0),
        "bias field": tio.BiasField(BIAS.tolist(), 3),
        "motion": tio.Motion(DEGREES, SHIFTS, TIMES, "linear"),
        "ghosting": tio.Ghosting(6, 0, 0.8, None),
        "spike": tio.Spike(POINT, 0.5),
        "anisotropy": tio.RandomAnisotropy(2, (3, 3)),
        "swap": tio.Swap((15, 15, 15), pairs),
    }


def calls(volume: Volume) -> dict[str, Callable[[], Any]]:
    """Each row as a call."""
    images = {
        "image": tio.ScalarImage(tensor=torch.from_numpy(volume.data), affine=volume.affine),
        "label": tio.LabelMap(tensor=torch.from_numpy(volume.label), affine=volume.affine),
    }
    alone, subject = tio.Subject(image=images["image"]), tio.Subject(images)
    found = {name: lambda t=t: t(alone)["image"].data for name, t in transforms(volume.data.shape[1:]).items()}
    pipeline = guide(tio, cut(volume.data.shape[1:]))
    return {**found, "guide": lambda: pipeline(subject)["image"].data}
