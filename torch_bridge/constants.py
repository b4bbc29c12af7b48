"""Names of what images, patches and subjects hold, as in TorchIO."""

import torch

INTENSITY, LABEL, SAMPLING_MAP = "intensity", "label", "sampling_map"
"""Types of images."""
PATH, TYPE, STEM, DATA, AFFINE, TENSOR = "path", "type", "stem", "data", "affine", "tensor"
"""What an image holds."""
IMAGE, LOCATION, HISTORY, NUM_SAMPLES = "image", "location", "history", "num_samples"
CHANNELS_DIMENSION = 1
"""The axis of the channels in a batch."""
MIN_FLOAT_32 = torch.finfo(torch.float32).eps
REPO_URL = "https://github.com/TorchIO-project/torchio/"
DATA_REPO = "https://github.com/TorchIO-project/torchio-data/raw/main/data/"
