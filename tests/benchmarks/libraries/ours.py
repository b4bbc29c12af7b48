"""medjax: the rows of the table, and what each of them is."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import medjax as mj
from tests.benchmarks.pipelines import cut, guide, patch
from tests.benchmarks.volumes import BIAS, CORNERS, DEGREES, MOVE, PAIRS, POINT, POINTS, SHIFTS, TIMES, Volume

DISTRIBUTION = "medjax"


def transforms(shape: tuple[int, ...]) -> dict[str, mj.Transform]:
    """Every transform that is measured alone, on a volume of this shape."""
    near = dict(location=(0.3, 1.1, 0.5), scale=tuple(np.divide((60.0, 80.0, 90.0), shape)))
    half = tuple(n * 3 // 4 for n in shape)
    chain = [mj.Affine(**MOVE), mj.ElasticDeformation(POINTS), mj.Flip("LR"), mj.CropOrPad(min(96, *shape))]
    return {
        "affine": mj.Affine(**MOVE),
        "affine, cubic": mj.Affine(**MOVE, image_interpolation="cubic"),
        "elastic": mj.ElasticDeformation(POINTS),
        "affine, elastic, flip, crop": mj.Compose(chain),
        "resample": mj.Resample(1.3),
        "resize": mj.Resize(half),
        "flip": mj.Flip("LR"),
        "crop": mj.Crop(min(shape) // 8),
        "pad": mj.Pad(10),
        "transpose": mj.Transpose(),
        "z-norm": mj.ZNormalization(),
        "percentiles": mj.RescaleIntensity(percentiles=(1, 99)),
        "histogram": mj.HistogramStandardization(100 * np.linspace(0, 1, 13) ** 1.5),
        "clamp": mj.Clamp(0.1, 0.9),
        "gamma": mj.Gamma(1.2),
        "gamma of nnU-Net": mj.Gamma(1.2, rescale=True, invert_image=True, retain_stats=True),
        "contrast": mj.Contrast(1.2),
        "brightness": mj.Brightness(1.2),
        "noise": mj.Noise(0, 0.1),
        "rician noise": mj.Noise(0, 0.1, distribution="rician"),
        "blur": mj.Blur(1.0),
        "sharpen": mj.Sharpen(0.5),
        "median": mj.Median(3),
        "bias field": mj.BiasField(BIAS),
        "bias field of splines": mj.BSplineBiasField(np.random.default_rng(0).normal(0, 0.3, (4, 4, 4))),
        "motion": mj.Motion(DEGREES, SHIFTS, TIMES),
        "ghosting": mj.Ghosting(6, 0, 0.8, None),
        "spike": mj.Spike(POINT, 0.5),
        "gibbs": mj.Gibbs(0.5),
        "anisotropy": mj.Anisotropy(2, 3.0),
        "low resolution": mj.LowResolution(0.5),
        "swap": mj.Swap(15, PAIRS),
        "coarse dropout": mj.CoarseDropout(CORNERS, min(50, *shape)),
        "brightness gradient": mj.BrightnessGradient(2, **near),
        "local gamma": mj.LocalGamma(2, **near),
        "bias, gamma, noise, contrast, clamp": mj.Compose(
            [mj.BiasField(BIAS), mj.Gamma(1.2), mj.Noise(0, 0.1), mj.Contrast(1.2), mj.Clamp(0, 1)]
        ),
    }


def pipelines(shape: tuple[int, ...]) -> dict[str, mj.Transform]:
    """Pipelines that draw anew at each call, on an image with its label."""
    return {"guide": guide(mj, cut(shape)), "nnU-Net's list": mj.presets.nnunet(patch(shape))}


def calls(volume: Volume) -> dict[str, Callable[[], Any]]:
    """Each row as a call whose result is waited for."""
    data = jax.device_put(volume.data)
    image = mj.ScalarImage(data, volume.affine)
    subject = mj.Subject(image=image, label=mj.LabelMap(jax.device_put(volume.label), volume.affine))
    key, seeds = jax.random.key(0), iter(range(1 << 30))
    found: dict[str, Callable[[], Any]] = {
        name: lambda t=t: jax.block_until_ready(t(image, key).data) for name, t in transforms(data.shape[1:]).items()
    }
    for name, t in pipelines(data.shape[1:]).items():
        found[name] = lambda t=t: jax.block_until_ready(t(subject, jax.random.key(next(seeds))).image.data)
    return found
