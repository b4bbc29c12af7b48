"""Types that annotations of TorchIO's users name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

TypePath = str | Path
TypeNumber = int | float
TypeKeys = Sequence[str] | None
TypeData = torch.Tensor | np.ndarray
TypeImageTensor = torch.Tensor
TypeImageArray = np.ndarray
TypeImageData = torch.Tensor | np.ndarray
TypeAffineMatrix = np.ndarray
TypeDataAffine = tuple[torch.Tensor, np.ndarray]
TypeImageDataAffine = tuple[torch.Tensor, np.ndarray]
TypeSlice = int | slice
TypeDoubletInt = tuple[int, int]
TypeTripletInt = tuple[int, int, int]
TypeQuartetInt = tuple[int, int, int, int]
TypeSextetInt = tuple[int, int, int, int, int, int]
TypeDoubleFloat = tuple[float, float]
TypeTripletFloat = tuple[float, float, float]
TypeQuartetFloat = tuple[float, float, float, float]
TypeSextetFloat = tuple[float, float, float, float, float, float]
TypeTuple = int | TypeTripletInt
TypeRangeInt = int | TypeDoubletInt
TypeSpacing = float | TypeTripletFloat
TypeSpatialShape = int | TypeTripletInt
TypeRangeFloat = float | TypeDoubleFloat
TypeCallable = Callable[[torch.Tensor], torch.Tensor]
TypeDirection3D = tuple[float, ...]
TypeDirection = tuple[float, ...]
