"""MONAI 1.6.1: its form of the rows."""

from collections.abc import Callable
from typing import Any

import monai.transforms as mt
import numpy as np
import torch
from monai.data import MetaTensor

from tests.benchmarks.volumes import MOVE, POINT, Volume

DISTRIBUTION = "monai"


def transforms(shape: tuple[int, ...]) -> dict[str, Any]:
    """Every transform that MONAI has."""
    edge = min(shape) // 8
    index = tuple(int(p * n) for p, n in zip(POINT[0], shape, strict=True))
    move = dict(
        rotate_params=tuple(np.deg2rad(MOVE["degrees"])),
        translate_params=MOVE["translation"],
        scale_params=MOVE["scales"],
        padding_mode="zeros",
        image_only=True,
    )
    return {
        "affine": mt.Affine(**move),
        "affine, cubic": mt.Affine(**move, mode=3),
        "elastic": mt.Rand3DElastic((5, 7), (50, 150), prob=1.0, padding_mode="zeros"),
        "resample": mt.Spacing((1.3,) * 3, mode="bilinear"),
        "resize": mt.Resize(tuple(n * 3 // 4 for n in shape), mode="trilinear"),
        "flip": mt.Flip(0),
        "crop": mt.SpatialCrop(roi_start=(edge,) * 3, roi_end=[n - edge for n in shape]),
        "pad": mt.BorderPad(10),
        "z-norm": mt.NormalizeIntensity(),
        "percentiles": mt.ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True),
        "gamma": mt.AdjustContrast(1.2),
        "gamma of nnU-Net": mt.AdjustContrast(1.2, invert_image=True, retain_stats=True),
        "brightness": mt.ScaleIntensity(None, None, 0.2),
        "rician noise": mt.RandRicianNoise(1, 0, 0.1, sample_std=False),
        "blur": mt.GaussianSmooth(1.0),
        "median": mt.MedianSmooth(1),
        "bias field": mt.RandBiasField(prob=1),
        "spike": mt.KSpaceSpikeNoise(index, 14.0),
        "gibbs": mt.GibbsNoise(0.5),
        "low resolution": mt.RandSimulateLowResolution(1, zoom_range=(0.5, 0.5)),
    }


def calls(volume: Volume) -> dict[str, Callable[[], Any]]:
    """Each row as a call; what only gives a view is copied, as the others copy."""
    image = MetaTensor(torch.from_numpy(volume.data), affine=torch.from_numpy(volume.affine))
    made = transforms(volume.data.shape[1:])
    return {name: lambda t=t: torch.as_tensor(t(image)).contiguous() for name, t in made.items()}
