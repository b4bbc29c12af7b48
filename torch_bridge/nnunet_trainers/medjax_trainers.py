"""Trainers that nnU-Net finds by `nnUNet_extTrainer`, the folder of this file: `python -m torch_bridge.nnunet`."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # pyright: ignore
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import (  # pyright: ignore
    nnUNetTrainerDA5,
)

import medjax as mj
from torch_bridge.nnunet import MedjaxAugmentation


class nnUNetTrainerMedjax(MedjaxAugmentation, nnUNetTrainer):
    """nnU-Net's trainer, its augmentation on the device."""


class nnUNetTrainerMedjaxDA5(MedjaxAugmentation, nnUNetTrainerDA5):
    """The trainer of nnU-Net's stronger augmentation, on the device."""

    preset = staticmethod(mj.presets.nnunet_da5)
