"""batchgeneratorsv2 0.3.6: its form of the rows, and nnU-Net's list of it."""

import sys
import types
from collections.abc import Callable
from typing import Any

# Its blur imports a picture for its own demonstration from scikit-image, which need not be there.
sys.modules.setdefault("skimage.data", types.SimpleNamespace(camera=None))  # pyright: ignore[reportArgumentType]

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform
from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
from batchgeneratorsv2.transforms.noise.rician import RicianNoiseTransform
from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from tests.benchmarks.pipelines import patch
from tests.benchmarks.volumes import Volume

DISTRIBUTION = "batchgeneratorsv2"


def transforms(shape: tuple[int, ...]) -> dict[str, Any]:
    """Every transform that batchgeneratorsv2 has."""
    place, width = (0.3, 1.1, 0.5), (60.0, 80.0, 90.0)
    near = (lambda _, axis: width[axis], lambda _, axis: place[axis], 2.0)
    return {
        "noise": GaussianNoiseTransform(0.1),
        "rician noise": RicianNoiseTransform((0.1, 0.1)),
        "low resolution": SimulateLowResolutionTransform(0.5, True, True, None),
        "contrast": ContrastTransform(1.2, True, True),
        "brightness": MultiplicativeBrightnessTransform(1.2, True),
        "gamma": GammaTransform(1.2, 0, True, 1, 0),
        "gamma of nnU-Net": GammaTransform(1.2, 1, True, 1, 1),
        "blur": GaussianBlurTransform(1.0, False, True, 1.0),
        "sharpen": SharpeningTransform(0.5),
        "coarse dropout": BlankRectangleTransform(min(50, *shape), lambda x: x.mean(), 4),
        "brightness gradient": BrightnessGradientAdditiveTransform(*near, True, False),
        "local gamma": LocalGammaTransform(*near),
        "median": MedianFilterTransform(3),
    }


def trainers(patch: tuple[int, ...]) -> ComposeTransforms:
    """nnUNetTrainer's list."""
    return ComposeTransforms(
        [
            SpatialTransform(
                patch, 0, False, p_rotation=0.2, rotation=(-np.pi / 6, np.pi / 6), p_scaling=0.2, scaling=(0.7, 1.4),
                p_synchronize_scaling_across_axes=1,
            ),
            RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), 0.1),
            RandomTransform(GaussianBlurTransform((0.5, 1.0), False, False, 0.5), 0.2),
            RandomTransform(MultiplicativeBrightnessTransform(BGContrast((0.75, 1.25)), False), 0.15),
            RandomTransform(ContrastTransform(BGContrast((0.75, 1.25)), True, False), 0.15),
            RandomTransform(SimulateLowResolutionTransform((0.5, 1), False, True, None, None, 0.5), 0.25),
            RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 1, False, 1, 1), 0.1),
            RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 0, False, 1, 1), 0.3),
            MirrorTransform((0, 1, 2)),
            RemoveLabelTansform(-1, 0),
        ]
    )  # fmt: skip


def calls(volume: Volume) -> dict[str, Callable[[], Any]]:
    """Each row as a call; it writes into its input, so it is given a copy."""
    image, label = torch.from_numpy(volume.data), torch.from_numpy(volume.label.astype(np.int16))
    shape = volume.data.shape[1:]
    found: dict[str, Callable[[], Any]] = {
        name: lambda t=t: t(image=image.clone())["image"] for name, t in transforms(shape).items()
    }
    listed = trainers(patch(shape))
    return {**found, "nnU-Net's list": lambda: listed(image=image.clone(), segmentation=label.clone())}
