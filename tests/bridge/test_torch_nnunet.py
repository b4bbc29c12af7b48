"""The mix-in for nnU-Net's trainer, on a trainer of the same methods; nnunetv2 itself is in no group here."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import torch
from bridge.shared import time_limit as time_limit

import medjax as mj
from torch_bridge.nnunet import MedjaxAugmentation, centred, line


class Trainer:
    """What the mix-in asks of nnUNetTrainer."""

    device = torch.device("cpu")
    current_epoch, num_iterations_per_epoch = 0, 10

    def __init__(
        self, patch=(12, 12, 12), scales=((1, 1, 1), (0.5, 0.5, 0.5)), use_mask=(False,), regions=None, cascaded=False
    ):
        self.is_cascaded = cascaded
        self.configuration_manager = SimpleNamespace(patch_size=patch, use_mask_for_norm=use_mask)
        self.scales = scales
        self.label_manager = SimpleNamespace(
            has_regions=bool(regions), foreground_regions=regions, ignore_label=None, foreground_labels=[1, 2]
        )
        self.seen = []

    @staticmethod
    def get_training_transforms(patch_size, is_cascaded=False):
        raise AssertionError("the augmentation of the CPU")

    def _get_deep_supervision_scales(self):
        return None if self.scales is None else [list(scale) for scale in self.scales]

    def train_step(self, batch):
        self.seen.append(batch)
        return {"loss": 0.0}


class Mine(MedjaxAugmentation, Trainer):
    """A quick pipeline: what the steps are made of is tested elsewhere."""

    def augmentation(self, patch_size, scales):
        preset = super().augmentation(patch_size, scales)
        kept = (mj.CropOrPad, mj.RemapLabels, mj.Resize, mj.RandomFlip, mj.Regions)
        return mj.Compose([member for member in preset.members if isinstance(member, kept)])


def batch(shape=(16, 16, 16), seed=0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(2, 1, *shape, generator=generator)
    target = (data > 0).to(torch.int16) + (data > 1).to(torch.int16)
    target[..., :7] = -1
    return {"data": data, "target": target, "keys": ["a", "b"]}


def test_workers_leave_the_patch_as_it_is():
    transforms = Mine().get_training_transforms((8, 8, 8), is_cascaded=False)
    image = torch.zeros(1)
    assert transforms(image=image, segmentation=image)["image"] is image


def test_a_step_sees_the_middle_augmented_and_its_targets():
    trainer, given = Mine(), batch()
    before = given["data"].clone()
    assert trainer.train_step(given) == {"loss": 0.0}
    (seen,) = trainer.seen
    assert seen["keys"] == ["a", "b"] and torch.equal(given["data"], before)
    assert seen["data"].shape == (2, 1, 12, 12, 12) and seen["data"].dtype == torch.float32
    full, half = seen["target"]
    assert full.shape == (2, 1, 12, 12, 12) and half.shape == (2, 1, 6, 6, 6) and full.dtype == torch.int16
    middle = before[0, 0, 2:14, 2:14, 2:14]
    flips = [[axis for axis in range(3) if bits >> axis & 1] for bits in range(8)]
    assert any(torch.equal(seen["data"][0, 0], middle.flip(f)) for f in flips)
    # The labels have moved along: they are what the intensities say, -1 has become 0.
    labelled = full != 0
    assert full.min() == 0 and torch.equal((seen["data"] > 1)[labelled], (full == 2)[labelled]) and labelled.any()
    assert torch.equal(half, full[..., 1::2, 1::2, 1::2])  # nearest, ties up


def test_draws_differ_by_step_and_go_on_after_a_resume():
    first, second = Mine(), Mine()
    for _ in range(3):
        first.train_step(batch())
    results = [seen["data"] for seen in first.seen]
    assert not (torch.equal(results[0], results[1]) and torch.equal(results[1], results[2]))
    second.current_epoch, second.num_iterations_per_epoch = 1, 2
    second.train_step(batch())
    assert torch.equal(second.seen[0]["data"], results[2])


def test_voxels_outside_of_the_mask_are_zero():
    trainer = Mine(use_mask=(True,), scales=None)
    trainer.train_step(batch())
    seen = trainer.seen[0]
    assert isinstance(seen["target"], torch.Tensor)
    # 5 of 12 planes of the last axis were outside.
    empty = (seen["data"] == 0).all(2).all(2).sum(-1)
    assert empty.tolist() == [[5], [5]]


def test_a_plan_of_two_axes():
    trainer = Mine(patch=(12, 10), scales=((1, 1), (0.5, 0.5)))
    trainer.train_step(batch((16, 14)))
    seen = trainer.seen[0]
    assert seen["data"].shape == (2, 1, 12, 10)
    assert [tuple(t.shape) for t in seen["target"]] == [(2, 1, 12, 10), (2, 1, 6, 5)]


def test_regions():
    plain, trainer = Mine(), Mine(regions=[(1, 2), 2])
    plain.train_step(batch())
    trainer.train_step(batch())
    for labels, regions in zip(plain.seen[0]["target"], trainer.seen[0]["target"]):
        assert torch.equal(regions, torch.cat([labels > 0, labels == 2], 1))


def test_a_cascade_sees_the_stage_before_behind_the_data():
    given = batch()
    previous = given["target"].clamp(min=0)
    trainer = Mine(cascaded=True)
    trainer.train_step({**given, "target": torch.cat([given["target"], previous], 1)})
    seen = trainer.seen[0]
    assert seen["data"].shape == (2, 3, 12, 12, 12) and seen["data"].dtype == torch.float32
    # It has moved with the labels, of which it is a copy here: one channel for each.
    for channel, label in ((1, 1), (2, 2)):
        assert torch.equal(seen["data"][:, channel], (seen["target"][0][:, 0] == label).float())
    plain = Mine()
    plain.train_step(batch())
    assert torch.equal(seen["data"][:, :1], plain.seen[0]["data"])


def test_the_line_for_a_shell_finds_the_trainers_and_keeps_others():
    shell = f'nnUNet_extTrainer=/others; {line()}; echo "$nnUNet_extTrainer"'
    found = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.strip()
    folder, others = found.split(":")
    assert others == "/others" and "class nnUNetTrainerMedjax(" in (Path(folder) / "medjax_trainers.py").read_text()


def test_the_preset_without_its_choice_of_a_place():
    preset = mj.presets.nnunet((8, 8, 8), classes=(1, 2))
    members = centred(preset).members
    assert len(members) == len(preset.members) - 1 and not any(isinstance(m, mj.OneOf) for m in members)
