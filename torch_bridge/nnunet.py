"""nnU-Net's trainer with medjax's augmentation on its device, in place of the one its workers run on the CPU.

Nothing here imports nnunetv2. A trainer is made of the two, in a file of the user's that nnU-Net finds:

    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from torch_bridge.nnunet import MedjaxAugmentation

    class nnUNetTrainerMedjax(MedjaxAugmentation, nnUNetTrainer):
        pass
"""

from collections.abc import Sequence
from typing import Any

import torch

import medjax as mj
from medjax.transforms.choice import OneOf
from medjax.transforms.spatial.crop import RandomCrop
from torch_bridge.augment import Augment

INSIDE = "inside"
"""The mask of normalisation, carried through the augmentation where a plan asks for it."""


class MedjaxAugmentation:
    """Mix-in, named before a subclass of nnunetv2's `nnUNetTrainer`: whole batches are augmented where they train.

    Workers cut the larger initial patch, foreground oversampled, and leave it as it is; `train_step` moves the batch to
    the device, augments it and makes the targets of deep supervision and of regions. Validation is unchanged. For
    another augmentation override `augmentation`; `seed` is that of its draws, which go on by the epoch after a resume.

    Voxels outside of the mask of normalisation are set to 0, as there. 2-D plans too; no cascade. The mirroring is that
    of the preset, along every axis. Tried with nnunetv2 2.8.1.
    Raises ValueError for a cascade.
    """

    seed: int = 0
    augment: Augment | None = None

    @staticmethod
    def get_training_transforms(*args: Any, is_cascaded: bool = False, **kwargs: Any) -> Any:
        """What workers do to the initial patch: nothing."""
        del args, kwargs
        if is_cascaded:
            raise ValueError("MedjaxAugmentation has no augmentation of the previous stage: train the cascade without")
        return unchanged

    def augmentation(self, patch_size: Sequence[int], scales: Sequence[Any]) -> mj.Transform:
        """The transform of one initial patch: images 'data', labels 'target' and 'target_<i>' for scales but 1."""
        return centred(mj.presets.nnunet(patch_size, label="target", deep_supervision=scales))

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
            self.augment = Augment(self.augmentation(size, scales), self.seed, labels=("target",))
            self.augment.count = self.current_epoch * self.num_iterations_per_epoch
        tensors = {name: batch[name].to(self.device, non_blocking=True) for name in ("data", "target")}
        tensors = {name: tensor[:, :, None] if flat else tensor for name, tensor in tensors.items()}
        masked = [c for c, use in enumerate(self.configuration_manager.use_mask_for_norm) if use]
        if masked:
            tensors[INSIDE] = (tensors["target"][:, :1] >= 0).to(torch.uint8)
            self.augment.labels = ("target", INSIDE)
        done = self.augment(tensors)
        if masked:
            done["data"][:, masked] *= done[INSIDE]
        names = ["target" if set(scale) == {1.0} else f"target_{i}" for i, scale in enumerate(scales)]
        targets = [self.with_regions(done[name]) for name in names or ["target"]]
        data, *targets = (tensor[:, :, 0] if flat else tensor for tensor in (done["data"], *targets))
        return {**batch, "data": data, "target": targets if asked is not None else targets[0]}

    def with_regions(self: Any, target: torch.Tensor) -> torch.Tensor:
        """A target of labels as channels of regions, the label to ignore as the last, if the plan has regions."""
        manager = self.label_manager
        if not manager.has_regions:
            return target
        ignored = [] if manager.ignore_label is None else [manager.ignore_label]
        groups = [
            [group] if isinstance(group, int) else list(group) for group in (*manager.foreground_regions, *ignored)
        ]
        return torch.cat([torch.isin(target[:, :1], target.new_tensor(group)) for group in groups], 1)


def unchanged(**patch: Any) -> dict[str, Any]:
    """A patch as it came."""
    return patch


def centred(preset: mj.Compose) -> mj.Compose:
    """A preset without its choice of a place: the patch is the middle of what nnU-Net's loader has cut."""

    def chooses(member: mj.Transform) -> bool:
        return isinstance(member, OneOf) and all(isinstance(inner, RandomCrop) for inner in member.members)

    return mj.Compose([member for member in preset.members if not chooses(member)])
