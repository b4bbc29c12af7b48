"""medjax for torch users: `import torch_bridge as tio`, and what was written for TorchIO runs as it is.

Images, subjects and batches hold tensors; transforms, data sets, samplers and queues take TorchIO's arguments and draw
from torch's default generator. Importing it starts no JAX device. JAX computes, in this process alone: workers of data
loaders read, and a forked child asks the process that it was forked from.
"""

import multiprocessing
import os
import warnings
from typing import Any

import jax

from medjax import Cache as Cache
from medjax import Directions as Directions
from medjax import Landmarks as Landmarks
from medjax import Points as Points
from medjax import __version__ as __version__
from medjax import to_config as to_config
from torch_bridge import aliases
from torch_bridge import constants as constants
from torch_bridge import datasets as datasets
from torch_bridge import transforms as transforms
from torch_bridge import types as types
from torch_bridge import users as users
from torch_bridge import utils as utils
from torch_bridge.augment import Augment as Augment
from torch_bridge.beside_monai import as_monai as as_monai
from torch_bridge.beside_monai import crop_by_ratio as crop_by_ratio
from torch_bridge.beside_monai import from_monai as from_monai
from torch_bridge.constants import AFFINE as AFFINE
from torch_bridge.constants import CHANNELS_DIMENSION as CHANNELS_DIMENSION
from torch_bridge.constants import DATA as DATA
from torch_bridge.constants import DATA_REPO as DATA_REPO
from torch_bridge.constants import HISTORY as HISTORY
from torch_bridge.constants import IMAGE as IMAGE
from torch_bridge.constants import INTENSITY as INTENSITY
from torch_bridge.constants import LABEL as LABEL
from torch_bridge.constants import LOCATION as LOCATION
from torch_bridge.constants import MIN_FLOAT_32 as MIN_FLOAT_32
from torch_bridge.constants import NUM_SAMPLES as NUM_SAMPLES
from torch_bridge.constants import PATH as PATH
from torch_bridge.constants import REPO_URL as REPO_URL
from torch_bridge.constants import SAMPLING_MAP as SAMPLING_MAP
from torch_bridge.constants import STEM as STEM
from torch_bridge.constants import TENSOR as TENSOR
from torch_bridge.constants import TYPE as TYPE
from torch_bridge.dataset import SubjectsDataset as SubjectsDataset
from torch_bridge.dlpack import to_jax as to_jax
from torch_bridge.dlpack import to_torch as to_torch
from torch_bridge.gradients import differentiable as differentiable
from torch_bridge.grid import GridAggregator as GridAggregator
from torch_bridge.grid import GridSampler as GridSampler
from torch_bridge.image import Image as Image
from torch_bridge.image import LabelMap as LabelMap
from torch_bridge.image import ScalarImage as ScalarImage
from torch_bridge.lending import from_torchio as from_torchio
from torch_bridge.loader import SubjectsLoader as SubjectsLoader
from torch_bridge.monai_adapter import MonaiAdapter as MonaiAdapter
from torch_bridge.prediction import predict as predict
from torch_bridge.queue import Queue as Queue
from torch_bridge.samplers import LabelSampler as LabelSampler
from torch_bridge.samplers import UniformSampler as UniformSampler
from torch_bridge.samplers import WeightedSampler as WeightedSampler
from torch_bridge.subject import Batch as Batch
from torch_bridge.subject import Subject as Subject
from torch_bridge.transforms import from_config as from_config
from torch_bridge.transforms import train_histogram as train_histogram
from torch_bridge.users import FourierTransform as FourierTransform
from torch_bridge.users import IntensityTransform as IntensityTransform
from torch_bridge.users import LabelTransform as LabelTransform
from torch_bridge.users import RandomTransform as RandomTransform
from torch_bridge.users import SpatialTransform as SpatialTransform
from torch_bridge.users import To as To
from torch_bridge.users import Transform as Transform

KEPT_IN = ("transforms", "bridge", "users", "files", "utils", "looks", "samplers", "monai_adapter")
PLACES = (__name__, *(f"{__name__}.{name}" for name in KEPT_IN))
"""Where the names of TorchIO's modules are looked up."""
SETTING = "XLA_PYTHON_CLIENT_PREALLOCATE"
COUNT = "jax_num_cpu_devices"


def devices_are_started() -> bool:
    """Whether JAX has looked for its devices.

    From then on it refuses to change their number; the other public ways to ask make it look.
    """
    number = getattr(jax.config, COUNT)
    try:
        jax.config.update(COUNT, number + 1)
    except RuntimeError:
        return True
    jax.config.update(COUNT, number)
    return False


def prepare() -> None:
    """Leave GPU memory to torch, and the GPU to the first process. Before JAX looks at its settings."""
    if devices_are_started():
        if jax.default_backend() == "gpu" and os.environ.get(SETTING, "true").lower() not in ("false", "0"):
            warnings.warn(
                "JAX has already taken most of the GPU's memory, which torch then lacks: import torch_bridge before "
                f"JAX computes anything, or set {SETTING}=false",
                stacklevel=3,
            )
        return
    os.environ.setdefault(SETTING, "false")
    # A fork server that imports the main module is no child yet, but it does so as one.
    importing_main = getattr(multiprocessing.current_process(), "_inheriting", False)
    if multiprocessing.parent_process() is not None or importing_main:
        jax.config.update("jax_platforms", "cpu")  # a worker by spawn or forkserver


prepare()
aliases.install(__name__, PLACES)
# JAX warns of every fork, which it does not survive. Here a forked child leaves JAX alone.
warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
globals().update({name: getattr(transforms, name) for name in transforms.REGISTRY})


def __getattr__(name: str) -> Any:
    raise transforms.unknown(__name__, name)
