"""Single transforms on one volume of 8.7 million voxels against TorchIO, same arrays, taking turns.

python tests/benchmarks/transforms.py
"""

import warnings

import jax
import numpy as np
import torch
import torchio as tio
from timer import alternate, volume

import medjax as mj

GOALS = {"affine": 10, "elastic": 10, "bias field": 50, "gamma": 3, "resample": 2, "blur": 1, "noise": 1, "z-norm": 1}


def contestants() -> dict[str, tuple[mj.Transform, tio.Transform]]:
    """The same transform in both libraries."""
    draw = np.random.default_rng(0)
    points = draw.uniform(-7.5, 7.5, (7, 7, 7, 3)).astype(np.float32)
    points[[0, 1, -2, -1]] = points[:, [0, 1, -2, -1]] = points[:, :, [0, 1, -2, -1]] = 0
    bias = draw.uniform(-0.5, 0.5, 20).astype(np.float32)
    move = dict(scales=(1.1, 0.9, 1.05), degrees=(5, -8, 10), translation=(2, 3, -4))
    return {
        "affine": (mj.Affine(**move), tio.Affine(**move)),
        "elastic": (mj.ElasticDeformation(points), tio.ElasticDeformation(points, (7.5, 7.5, 7.5))),
        "bias field": (mj.BiasField(bias), tio.BiasField(bias.tolist(), 3)),
        "gamma": (mj.Gamma(1.2), tio.Gamma([1.2])),
        "resample": (mj.Resample(1.3), tio.Resample(1.3)),
        "blur": (mj.Blur((2.0, 2.0, 2.0)), tio.Blur((2.0, 2.0, 2.0))),
        "noise": (mj.Noise(0.0, 0.1, 3), tio.Noise(0.0, 0.1, 3)),
        "z-norm": (mj.ZNormalization(), tio.ZNormalization()),
    }


def main() -> None:
    """Print a line for each transform."""
    data, _, affine = volume()
    data = data.astype(np.float32) / data.max()
    ours = mj.ScalarImage(jax.device_put(data), affine)
    theirs = tio.ScalarImage(tensor=torch.from_numpy(data), affine=affine)
    print(f"{'':12}{'TorchIO ms':>12}{'medjax ms':>12}{'ratio':>8}{'goal':>6}")
    for name, (fast, slow) in contestants().items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best = alternate({"medjax": lambda t=fast: t(ours).data, "torchio": lambda t=slow: t(theirs).data.numpy()})
        ratio = best["torchio"] / best["medjax"]
        print(f"{name:12}{best['torchio'] * 1e3:12.1f}{best['medjax'] * 1e3:12.1f}{ratio:8.1f}{GOALS[name]:6}")


if __name__ == "__main__":
    main()
