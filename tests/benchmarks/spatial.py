"""Spatial transforms on one volume of 8.7 million voxels against TorchIO 1, TorchIO 2 and MONAI, taking turns.

python tests/benchmarks/spatial.py                        (TorchIO 1.2.1 and MONAI in this interpreter)
TORCHIO2=folder python tests/benchmarks/spatial.py        (TorchIO 2.0.0a2, installed there by pip --target, in its own)
"""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
from timer import alternate, volume

warnings.simplefilter("ignore")
GOALS = {"affine": 10, "elastic": 10, "resample": 2, "the whole chain": 50}
MOVE = dict(scales=(1.1, 0.9, 1.05), degrees=(5, -8, 10), translation=(2, 3, -4))
PATCH = (96, 96, 96)


def control_points():
    """Points of an elastic deformation whose two outer layers rest."""
    points = np.random.default_rng(0).uniform(-7.5, 7.5, (7, 7, 7, 3)).astype(np.float32)
    points[[0, 1, -2, -1]] = points[:, [0, 1, -2, -1]] = points[:, :, [0, 1, -2, -1]] = 0
    return points


def ours():
    """medjax, jitted, the volume on the device."""
    import jax

    import medjax as mj

    points = control_points()
    data, _, affine = volume()
    data = jax.device_put(data.astype(np.float32) / data.max())
    image = mj.ScalarImage.of(data, jax.device_put(affine.astype(np.float32)))
    small = mj.ScalarImage.of(data[:, 50:146, 60:156, 40:136] + 0, image.affine)
    key = jax.random.key(0)
    chain = [mj.Affine(**MOVE), mj.ElasticDeformation(points), mj.Flip("LR"), mj.CropOrPad(PATCH)]
    transforms = {
        "affine": mj.Affine(**MOVE),
        "elastic": mj.ElasticDeformation(points),
        "resample": mj.Compose([mj.Resample(1.3), mj.CropOrPad((151, 179, 145))]),
        "resize": mj.Resize((150, 150, 150)),
        "flip": mj.Flip("LR"),
        "crop": mj.Crop(20),
        "pad": mj.Pad(10),
        "crop or pad": mj.CropOrPad((160, 256, 160)),
        "transpose": mj.Transpose(),
        "affine, cubic": mj.Affine(**MOVE, image_interpolation="cubic"),
        "the whole chain": mj.Compose(chain),
    }
    compiled = {name: jax.jit(t) for name, t in transforms.items()}
    calls = {name: lambda t=t: t(image, key).data for name, t in compiled.items()}
    calls["affine of 96^3"] = lambda: compiled["affine"](small, key).data
    copy = jax.jit(lambda x: x + 0)
    calls["copy"] = lambda: copy(data)
    for name in ("crop", "pad", "crop or pad", "flip", "transpose"):
        out = calls[name]()
        calls[f"copy of {name}"] = lambda out=out: copy(out)
    return calls


def torchio_1():
    """TorchIO 1.2.1."""
    import torch
    import torchio as tio

    data, _, affine = volume()
    image = tio.ScalarImage(tensor=torch.from_numpy(data.astype(np.float32) / data.max()), affine=affine)
    points = control_points()
    affine_t, elastic = tio.Affine(**MOVE), tio.ElasticDeformation(points, (7.5, 7.5, 7.5))
    transforms = {
        "affine": affine_t,
        "elastic": elastic,
        "resample": tio.Resample(1.3),
        "resize": tio.Resize((150, 150, 150)),
        "flip": tio.Flip((0,)),
        "crop": tio.Crop(20),
        "pad": tio.Pad(10),
        "crop or pad": tio.CropOrPad((160, 256, 160)),
        "transpose": tio.Transpose(),
        "affine, cubic": tio.Affine(**MOVE, image_interpolation="bspline"),
        "the whole chain": tio.Compose([affine_t, elastic, tio.Flip((0,)), tio.CropOrPad(PATCH)]),
    }
    return {name: lambda t=t: t(image).data.numpy() for name, t in transforms.items()}


def torchio_2():
    """TorchIO 2.0.0a2."""
    import torch
    import torchio as tio

    data, _, affine = volume()
    image = tio.ScalarImage(torch.from_numpy(data.astype(np.float32) / data.max()), affine=affine)
    affine_t = tio.Affine(**MOVE)
    elastic = tio.ElasticDeformation(control_points=torch.from_numpy(control_points()), max_displacement=7.5)
    transforms = {
        "affine": affine_t,
        "elastic": elastic,
        "resample": tio.Resample(1.3),
        "resize": tio.Resize((150, 150, 150)),
        "flip": tio.Flip(axes=0),
        "crop": tio.Crop(cropping=20),
        "pad": tio.Pad(padding=10),
        "crop or pad": tio.CropOrPad((160, 256, 160)),
        "the whole chain": tio.Compose([affine_t, elastic, tio.Flip(axes=0), tio.CropOrPad(PATCH)]),
    }
    return {name: lambda t=t: t(image).data.numpy() for name, t in transforms.items()}


def monai():
    """MONAI 1.6.1, whole volumes in memory."""
    import monai.transforms as mt
    import torch
    from monai.data import MetaTensor

    data, _, affine = volume()
    image = MetaTensor(torch.from_numpy(data.astype(np.float32) / data.max()), affine=torch.from_numpy(affine))
    radians = tuple(np.deg2rad(MOVE["degrees"]))
    move = mt.Affine(
        rotate_params=radians, translate_params=(2, 3, -4), scale_params=MOVE["scales"], padding_mode="zeros"
    )
    elastic = mt.Rand3DElastic((5, 7), (50, 150), prob=1.0, padding_mode="zeros")
    cubic = mt.Affine(rotate_params=radians, translate_params=(2, 3, -4), scale_params=MOVE["scales"], mode=3)
    made = {
        "elastic": elastic,
        "resample": mt.Spacing((1.3,) * 3, mode="bilinear"),
        "resize": mt.Resize((150, 150, 150), mode="trilinear"),
        "flip": mt.Flip(0),
        "crop": mt.SpatialCrop(roi_start=(20,) * 3, roi_end=(177, 213, 169)),
        "pad": mt.BorderPad(10),
        "crop or pad": mt.ResizeWithPadOrCrop((160, 256, 160)),
    }
    transforms = {"affine": lambda: move(image)[0], "affine, cubic": lambda: cubic(image)[0]}
    transforms |= {name: lambda t=t: t(image) for name, t in made.items()}
    return {name: lambda t=t: np.ascontiguousarray(t()) for name, t in transforms.items()}


def in_its_own(folder: str) -> dict[str, float]:
    """Best times of TorchIO 2, in an interpreter that finds it first."""
    environment = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run([sys.executable, __file__, "torchio_2"], env=environment, capture_output=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each transform: times of the peers as ratios to ours."""
    fast, peers = ours(), {"TorchIO 1": torchio_1(), "MONAI": monai()}
    other = in_its_own(os.environ["TORCHIO2"]) if "TORCHIO2" in os.environ else {}
    print(f"{'':18}{'medjax ms':>10}" + "".join(f"{name:>11}" for name in (*peers, "TorchIO 2")) + f"{'goal':>6}")
    for name in GOALS | fast:
        if name.startswith("copy of"):
            continue
        runs = {"medjax": fast[name], **{peer: calls[name] for peer, calls in peers.items() if name in calls}}
        if f"copy of {name}" in fast:
            runs["copy"] = fast[f"copy of {name}"]
        best = alternate(runs, 2 if "cubic" in name or "chain" in name else 5)
        columns = [f"{best[p] / best['medjax']:11.1f}" if p in best else f"{'':11}" for p in peers]
        columns.append(f"{other[name] / best['medjax']:11.1f}" if name in other else f"{'':11}")
        end = f"   {best['medjax'] / best['copy']:.2f} of a copy of its result" if "copy" in best else ""
        print(f"{name:18}{best['medjax'] * 1e3:10.1f}{''.join(columns)}{GOALS.get(name, 1):6}{end}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["torchio_2"]:
        print(json.dumps(alternate(torchio_2(), 3)))
    else:
        main()
