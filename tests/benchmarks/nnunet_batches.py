"""Training batches of nnU-Net's own loader and transforms, and of the trainer with medjax's, on one tiny data set.

Mean, deviation, range, foreground and energy of the gradient of each patch: their means over both, and how many
standard errors these are apart. For an isotropic plan, an anisotropic one and a plan of two axes.

Runs where nnunetv2 is importable, in an environment of its own (it is in no group here):
python tests/benchmarks/nnunet_batches.py [--patches 200]
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(tempfile.mkdtemp())
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):  # read when nnunetv2 is imported
    os.environ[name] = str(ROOT / name)
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as of_nnunet
from scipy.ndimage import gaussian_filter

import medjax as mj
import torch_bridge.nnunet

sys.path.insert(0, str(Path(torch_bridge.nnunet.__file__).with_name("nnunet_trainers")))
from medjax_trainers import nnUNetTrainerMedjax  # pyright: ignore[reportMissingImports]

DATASETS = {1: ((64, 72, 68), (1.0, 1.0, 1.0)), 2: ((80, 80, 16), (0.7, 0.7, 4.0))}
"""Shape and spacing in mm of the cases, by the number of the data set."""
PLANS = {"isotropic": (1, "3d_fullres"), "anisotropic": (2, "3d_fullres"), "of two axes": (1, "2d")}
MEASURES = ("mean", "deviation", "range", "foreground", "gradient")


def write(number: int, shape: tuple[int, ...], spacing: tuple[float, ...], cases: int = 5) -> None:
    """A data set of one channel and two classes, planned and preprocessed."""
    folder = ROOT / "nnUNet_raw" / f"Dataset{number:03d}_Tiny"
    for case in range(cases):
        rng = np.random.default_rng(case)
        fields = gaussian_filter(rng.normal(size=(2, *shape)), (0, 3, 3, 2))
        fields /= fields.std((1, 2, 3), keepdims=True)
        label = np.digitize(fields[1], (0.8, 1.6)).astype(np.uint8)
        image = (100 + 30 * fields[0] + 40 * label + rng.normal(0, 5, shape)).astype(np.float32)
        affine = np.diag([*spacing, 1.0])
        for kind, item in (
            ("images", mj.ScalarImage(image[None], affine)),
            ("labels", mj.LabelMap(label[None], affine)),
        ):
            (folder / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
            item.save(folder / f"{kind}Tr" / f"case{case}{'_0000' if kind == 'images' else ''}.nii.gz")
    labels = {"background": 0, "a": 1, "b": 2}
    told = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(told))
    extract_fingerprints([number], num_processes=1)
    plan_experiments([number])
    preprocess([number], configurations=("2d", "3d_fullres"), num_processes=(1, 1))


def measured(data: torch.Tensor, target: torch.Tensor) -> list[float]:
    """MEASURES of a patch (C, *axes)."""
    energy = [(data.diff(dim=axis) ** 2).mean().item() for axis in range(1, data.ndim)]
    span, inside = (data.max() - data.min()).item(), (target > 0).float().mean().item()
    return [data.mean().item(), data.std().item(), span, inside, float(np.mean(energy))]


def patches(cls: Any, number: int, configuration: str, count: int) -> np.ndarray:
    """MEASURES of so many patches as a trainer's network sees them, (count, 5)."""
    np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002 - nnU-Net draws from it
    folder = ROOT / "nnUNet_preprocessed" / f"Dataset{number:03d}_Tiny"
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    trainer = cls(plans, configuration, 0, json.loads((folder / "dataset.json").read_text()), torch.device("cpu"))
    trainer.initialize()
    loader, found = trainer.get_dataloaders()[0], []
    while len(found) < count:
        batch = next(loader)
        batch = trainer.augmented(batch) if cls is nnUNetTrainerMedjax else batch
        target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
        found += map(measured, batch["data"].float(), target)
    return np.array(found[:count])


def main() -> None:
    """Print the means, and how far they are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patches", type=int, default=200)
    count = parser.parse_args().patches
    for number, (shape, spacing) in DATASETS.items():
        write(number, shape, spacing)
    of_nnunet.get_allowed_n_proc_DA = lambda: 0  # in this process: what is drawn is seeded
    for name, (number, configuration) in PLANS.items():
        own, ours = (
            patches(cls, number, configuration, count) for cls in (of_nnunet.nnUNetTrainer, nnUNetTrainerMedjax)
        )
        apart = (ours.mean(0) - own.mean(0)) / np.sqrt((own.var(0) + ours.var(0)) / count)
        for measure, a, b, errors in zip(MEASURES, own.mean(0), ours.mean(0), apart, strict=True):
            print(f"{name}, {measure}: nnU-Net {a:.4f}, medjax {b:.4f}, {errors:+.2f} standard errors", flush=True)


if __name__ == "__main__":
    main()
