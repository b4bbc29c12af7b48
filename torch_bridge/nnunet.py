"""nnU-Net's trainer with medjax's augmentation on its device, in place of the one its workers run on the CPU.

nnU-Net finds the trainers of `nnunet_trainers`, with the line that `python -m torch_bridge.nnunet` prints:

    eval "$(python -m torch_bridge.nnunet)"
    nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerMedjax

nnUNetTrainerMedjaxDA5 is that of the stronger augmentation. Prediction asks for the trainer, and so for the line, too.
Nothing here imports nnunetv2: another trainer is made of `MedjaxAugmentation` and one of nnU-Net's in a file of yours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import medjax as mj
from medjax.transforms.choice import OneOf
from medjax.transforms.spatial.crop import RandomCrop
from torch_bridge.augment import Augment

INSIDE = "inside"
"""The mask of normalisation, carried through the augmentation where a plan asks for it."""
PREVIOUS = "previous"
"""The prediction of the stage before, in a cascade."""


class MedjaxAugmentation:
    """Mix-in, named before a subclass of nnunetv2's `nnUNetTrainer`: whole batches are augmented where they train.

    Workers cut the larger initial patch, foreground oversampled, and leave it as it is; `train_step` moves the batch to
    the device, augments it and makes the targets of deep supervision and of regions. Validation is unchanged. For
    another augmentation override `augmentation`; `seed` is that of its draws, which go on by the epoch after a resume.

    Voxels outside of the mask of normalisation are set to 0, as there. 2-D plans too. In a cascade the prediction of
    the stage before is given errors and put behind the channels of the data, one-hot, as there; it needs the extra
    `morphology`. The mirroring is that of the preset, along every axis. Tried with nnunetv2 2.8.1.
    """

    seed: int = 0
    augment: Augment | None = None
    preset: Callable[..., mj.Compose] = staticmethod(mj.presets.nnunet)
    """The augmentation, in medjax's words."""

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        """What workers do to the initial patch: nothing."""
        del args, kwargs
        return unchanged

    def augmentation(self: Any, patch_size: Sequence[int], scales: Sequence[Any]) -> mj.Transform:
        """The transform of one initial patch: images 'data', labels 'target' and 'target_<i>' for scales but 1."""
        manager = self.label_manager
        options: dict[str, Any] = {"label": "target", "deep_supervision": scales}
        if manager.has_regions:
            options |= {"regions": manager.foreground_regions, "ignore_label": manager.ignore_label}
        if self.is_cascaded:
            options |= {"previous": PREVIOUS, "cascade_labels": manager.foreground_labels}
        return centred(self.preset(patch_size, **options))

    def train_step(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """A step on the batch, augmented."""
        return super().train_step(self.augmented(batch))  # pyright: ignore

    def augmented(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its data augmented, (B, C, *patch), and its target, a list of them by deep supervision."""
        flat = batch["data"].ndim == 4  # a 2-D plan: one slice
        size = tuple(int(n) for n in self.configuration_manager.patch_size)
        asked = self._get_deep_supervision_scales()
        scales = [tuple(float(s) for s in scale) for scale in asked or []]
        if flat:
            size, scales = (1, *size), [(1.0, *scale) for scale in scales]
        if self.augment is None:
            self.augment = Augment(self.augmentation(size, scales), self.seed)
            self.augment.count = self.current_epoch * self.num_iterations_per_epoch
        tensors = {name: batch[name].to(self.device, non_blocking=True) for name in ("data", "target")}
        tensors = {name: tensor[:, :, None] if flat else tensor for name, tensor in tensors.items()}
        if self.is_cascaded:
            tensors["target"], tensors[PREVIOUS] = tensors["target"][:, :1], tensors["target"][:, 1:2]
        masked = [c for c, use in enumerate(self.configuration_manager.use_mask_for_norm) if use]
        if masked:
            tensors[INSIDE] = (tensors["target"][:, :1] >= 0).to(torch.uint8)
        self.augment.labels = tuple(name for name in tensors if name != "data")
        done = self.augment(tensors)
        if masked:
            done["data"][:, masked] *= done[INSIDE]
        if self.is_cascaded:
            done["data"] = torch.cat([done["data"], done[PREVIOUS].to(done["data"].dtype)], 1)
        names = ["target" if set(scale) == {1.0} else f"target_{i}" for i, scale in enumerate(scales)]
        targets = [done[name].bool() if self.label_manager.has_regions else done[name] for name in names or ["target"]]
        data, *targets = (tensor[:, :, 0] if flat else tensor for tensor in (done["data"], *targets))
        return {**batch, "data": data, "target": targets if asked is not None else targets[0]}


def unchanged(**patch: Any) -> dict[str, Any]:
    """A patch as it came."""
    return patch


def centred(preset: mj.Compose) -> mj.Compose:
    """A preset without its choice of a place: the patch is the middle of what nnU-Net's loader has cut."""

    def chooses(member: mj.Transform) -> bool:
        return isinstance(member, OneOf) and all(isinstance(inner, RandomCrop) for inner in member.members)

    return mj.Compose([member for member in preset.members if not chooses(member)])


def line() -> str:
    """The line of a shell after which nnU-Net finds the trainers that are here, beside those that it found before."""
    folder = Path(__file__).with_name("nnunet_trainers")
    return f'export nnUNet_extTrainer="{folder}${{nnUNet_extTrainer:+:$nnUNet_extTrainer}}"'


if __name__ == "__main__":
    print(line())
