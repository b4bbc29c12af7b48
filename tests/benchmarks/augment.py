"""Intensity augmentations on one volume of 8.7 million voxels against the quickest of TorchIO, MONAI, batchgeneratorsv2.

Same arrays, taking turns; peers that write into their input are given a copy. python tests/benchmarks/augment.py [name]
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from timer import alternate, volume

import medjax as mj

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import monai.transforms as monai
    import torchio as tio
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.local.brightness_gradient import BrightnessGradientAdditiveTransform
    from batchgeneratorsv2.transforms.local.local_gamma import LocalGammaTransform
    from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
    from batchgeneratorsv2.transforms.noise.median_filter import MedianFilterTransform
    from batchgeneratorsv2.transforms.noise.rician import RicianNoiseTransform
    from batchgeneratorsv2.transforms.noise.sharpen import SharpeningTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform

SLOW = {"median 7": 1, "median 3": 1}
"""Repeats, of those that take a peer many seconds."""


def contestants() -> dict[str, tuple[mj.Transform, dict[str, Any]]]:
    """The same transform in medjax and in the peers that have it."""
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 170, (400, 2, 3))
    pairs = pairs[(np.abs(pairs[:, 0] - pairs[:, 1]) >= 15).any(1)][:100]
    listed = [tuple(tuple(int(v) for v in corner) for corner in pair) for pair in pairs]
    place, width = (0.3, 1.1, 0.5), (60.0, 80.0, 90.0)
    location, scale = (lambda _, axis: place[axis]), (lambda _, axis: width[axis])
    spread = np.divide(width, (197, 233, 189))
    gamma = dict(rescale=True, invert_image=True, retain_stats=True)
    points = draw.normal(0, 0.3, (4, 4, 4))
    return {
        "anisotropy 0": (mj.Anisotropy(0, 3.0), {"torchio": tio.RandomAnisotropy(0, (3, 3))}),
        "anisotropy 2": (mj.Anisotropy(2, 3.0), {"torchio": tio.RandomAnisotropy(2, (3, 3))}),
        "swap": (mj.Swap(15, pairs), {"torchio": tio.Swap((15, 15, 15), listed)}),
        "noise": (mj.Noise(0, 0.1), {"torchio": tio.Noise(0, 0.1, 3), "bgv2": GaussianNoiseTransform(0.1)}),
        "rician": (
            mj.Noise(0, 0.1, distribution="rician"),
            {"monai": monai.RandRicianNoise(1, 0, 0.1, sample_std=False), "bgv2": RicianNoiseTransform((0.1, 0.1))},
        ),
        "low resolution": (
            mj.LowResolution(0.5),
            {
                "bgv2": SimulateLowResolutionTransform(0.5, True, True, None),
                "monai": monai.RandSimulateLowResolution(1, zoom_range=(0.5, 0.5)),
            },
        ),
        "low resolution, cubic": (mj.LowResolution(0.5, image_interpolation="cubic"), {}),
        "contrast": (mj.Contrast(1.2), {"bgv2": ContrastTransform(1.2, True, True)}),
        "brightness": (
            mj.Brightness(1.2),
            {"bgv2": MultiplicativeBrightnessTransform(1.2, True), "monai": monai.ScaleIntensity(None, None, 0.2)},
        ),
        "gamma": (mj.Gamma(1.2), {"torchio": tio.Gamma([1.2])}),
        "gamma of nnU-Net": (
            mj.Gamma(1.2, **gamma),
            {
                "bgv2": GammaTransform(1.2, 1, True, 1, 1),
                "monai": monai.AdjustContrast(1.2, invert_image=True, retain_stats=True),
            },
        ),
        "bias field": (
            mj.BSplineBiasField(points),
            {"torchio": tio.BiasField(list(points.flat)[:20], 3), "monai": monai.RandBiasField(prob=1)},
        ),
        "sharpen": (mj.Sharpen(0.5), {"bgv2": SharpeningTransform(0.5)}),
        "coarse dropout": (
            mj.CoarseDropout([(10, 20, 30), (90, 5, 60), (70, 70, 70), (100, 100, 100)], 50),
            {"bgv2": BlankRectangleTransform(50, lambda x: x.mean(), 4)},
        ),
        "brightness gradient": (
            mj.BrightnessGradient(2, place, spread),
            {"bgv2": BrightnessGradientAdditiveTransform(scale, location, 2.0, True, False)},
        ),
        "local gamma": (mj.LocalGamma(2, place, spread), {"bgv2": LocalGammaTransform(scale, location, 2.0)}),
        "median 3": (mj.Median(3), {"bgv2": MedianFilterTransform(3)}),
        "median 7": (mj.Median(7), {"bgv2": MedianFilterTransform(7)}),
    }


def running(peer: Any, library: str, tensor: torch.Tensor, image: Any) -> Callable[[], Any]:
    """A call of a peer on the volume."""
    if library == "torchio":
        return lambda: peer(image).data
    if library == "monai":
        return lambda: peer(tensor)
    return lambda: peer(image=tensor.clone())["image"]


def volumes(t: mj.Transform, data: jax.Array) -> float:
    """How many volumes a compiled call holds at once, beside its input."""
    memory = jax.jit(lambda data: t(data)).lower(data).compile().memory_analysis()
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / data.nbytes


def main() -> None:
    """Print a line for each transform."""
    data, _, affine = volume()
    data = data.astype(np.float32) / data.max()
    device = jax.device_put(data)
    ours = mj.ScalarImage(device, affine)
    tensor = torch.from_numpy(data)
    theirs = tio.ScalarImage(tensor=tensor, affine=affine)
    print(f"{'':24}{'best peer':>10}{'peer ms':>10}{'medjax ms':>12}{'ratio':>8}{'volumes':>9}")
    for name, (t, peers) in contestants().items():
        if sys.argv[1:] and sys.argv[1] not in name:
            continue
        calls: dict[str, Callable[[], Any]] = {"medjax": lambda t=t: t(ours).data}
        calls |= {library: running(peer, library, tensor, theirs) for library, peer in peers.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = alternate(calls, SLOW.get(name, 5))
        mine = best.pop("medjax")
        peer = min(best, key=lambda library: best[library]) if best else "none"
        their = best.get(peer, float("nan"))
        held = volumes(t, device)
        print(f"{name:24}{peer:>10}{their * 1e3:10.1f}{mine * 1e3:12.1f}{their / mine:8.1f}{held:9.1f}", flush=True)


if __name__ == "__main__":
    main()
