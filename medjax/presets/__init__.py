"""Whole augmentations of the field as one transform: nnU-Net's and SynthSeg's."""

from medjax.presets.nnunet import nnunet as nnunet
from medjax.presets.nnunet_da5 import nnunet_da5 as nnunet_da5
from medjax.presets.synthseg import synthseg as synthseg
