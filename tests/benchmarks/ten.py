"""The ten intensity transforms that every library has, on one volume of 8.7 million voxels: each against its best peer.

python tests/benchmarks/ten.py
"""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from augment import running
from kspace import DEGREES, POINT, SHIFTS, TIMES
from timer import alternate, volume

import medjax as mj

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import monai.transforms as monai
    import torchio as tio
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform

GOALS = {"motion": 5, "ghosting": 5, "bias": 5, "percentiles": 3, "noise": 2}


def contestants(shape: tuple[int, ...]) -> dict[str, tuple[mj.Transform, list[Any]]]:
    """Each transform in medjax and in its peers."""
    draw = np.random.default_rng(0)
    bias = draw.uniform(-0.5, 0.5, 20).astype(np.float32)
    pairs = draw.integers(0, 170, (400, 2, 3))
    pairs = pairs[(np.abs(pairs[:, 0] - pairs[:, 1]) >= 15).any(1)][:100]
    listed = [tuple(tuple(int(v) for v in corner) for corner in pair) for pair in pairs]
    index = tuple(int(p * n) for p, n in zip(POINT[0], shape, strict=True))
    return {
        "bias": (mj.BiasField(bias), [tio.BiasField(bias.tolist(), 3), monai.RandBiasField(prob=1)]),
        "noise": (mj.RandomNoise(0, (0.1, 0.1)), [tio.Noise(0, 0.1, 3), GaussianNoiseTransform(0.1)]),
        "blur": (mj.Blur(1.0), [tio.Blur(1.0), monai.GaussianSmooth(1.0)]),
        "gamma": (mj.Gamma(1.2), [tio.Gamma([1.2]), monai.AdjustContrast(1.2), GammaTransform(1.2, 0, True, 1, 0)]),
        "motion": (mj.Motion(DEGREES, SHIFTS, TIMES), [tio.Motion(DEGREES, SHIFTS, TIMES, "linear")]),
        "ghosting": (mj.Ghosting(6, 0, 0.8, None), [tio.Ghosting(6, 0, 0.8, None)]),
        "spike": (mj.Spike(POINT, 0.5), [tio.Spike(POINT, 0.5), monai.KSpaceSpikeNoise(index, 14.0)]),
        "swap": (mj.Swap(15, pairs), [tio.Swap((15, 15, 15), listed)]),
        "z-norm": (mj.ZNormalization(), [tio.ZNormalization(), monai.NormalizeIntensity()]),
        "percentiles": (
            mj.RescaleIntensity(percentiles=(1, 99)),
            [tio.RescaleIntensity(percentiles=(1, 99)), monai.ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True)],
        ),
    }


def together(image: mj.Image, key: jax.Array) -> None:
    """Print what a run of five pointwise transforms costs of the dearest of them alone."""
    bias = np.random.default_rng(0).uniform(-0.5, 0.5, 20).astype(np.float32)
    five = [mj.BiasField(bias), mj.Gamma(1.2), mj.RandomNoise(0, (0.1, 0.1)), mj.Contrast(1.2), mj.Clamp(0, 1)]
    calls = {type(t).__name__: lambda t=t: t(image, key).data for t in (*five, mj.Compose(five))}
    best = alternate(calls, 7)
    run = best.pop("Compose")
    dearest = max(best, key=lambda name: best[name])
    print(f"bias, gamma, noise, contrast and clamp: {run / best[dearest]:.2f} of {dearest} alone (goal 1.5)")


def main() -> None:
    """Print a line for each, and the geometric mean of the ratios."""
    data, _, affine = volume()
    data = data.astype(np.float32) / data.max()
    ours, key = mj.ScalarImage.of(jax.device_put(data), affine), jax.random.key(0)
    tensor = torch.from_numpy(data)
    theirs = tio.ScalarImage(tensor=tensor, affine=affine)
    ratios = []
    print(f"{'':14}{'medjax ms':>10}{'peer ms':>10}{'ratio':>8}{'goal':>6}  best peer")
    for name, (t, peers) in contestants(data.shape[1:]).items():
        calls: dict[str, Callable[[], Any]] = {"medjax": lambda t=t: t(ours, key).data}
        libraries = {type(peer).__module__.split(".")[0]: peer for peer in peers}
        calls |= {library: running(peer, library, tensor, theirs) for library, peer in libraries.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = alternate(calls, 3 if name == "motion" else 7)
        mine = best.pop("medjax")
        peer = min(best, key=lambda library: best[library])
        ratios.append(best[peer] / mine)
        print(
            f"{name:14}{mine * 1e3:10.1f}{best[peer] * 1e3:10.1f}{ratios[-1]:8.1f}{GOALS.get(name, 1):6}  {peer}",
            flush=True,
        )
    print(f"geometric mean {np.exp(np.mean(np.log(ratios))):.2f} (goal 3, aim 4)")
    together(ours, key)


if __name__ == "__main__":
    main()
