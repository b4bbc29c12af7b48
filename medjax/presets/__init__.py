"""Whole augmentations of the field as one transform, nnU-Net's and SynthSeg's, and nnU-Net's preprocessing."""

from medjax.presets.nnunet import nnunet as nnunet
from medjax.presets.nnunet_da5 import nnunet_da5 as nnunet_da5
from medjax.presets.nnunet_preprocess import NNUNetPreprocess as NNUNetPreprocess
from medjax.presets.nnunet_preprocess import nnunet_preprocess as nnunet_preprocess
from medjax.presets.nnunet_preprocess import nnunet_preprocess_from_plans as nnunet_preprocess_from_plans
from medjax.presets.synthseg import synthseg as synthseg
