"""Files that are read and written beyond medjax's formats: pictures, MINC, Analyze pairs, tensors of torch."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

import medjax as mj
from medjax import io
from medjax.io import itk, objects

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
BYTES = (".png", ".jpg", ".jpeg", ".bmp")
"""Pictures of whole numbers from 0 to 255."""
TENSORS = (".pt", ".pth")


def checked_paths(path: Any, verify: bool = True) -> Any:
    """A path, or a list of them. Raises TypeError for what is none, FileNotFoundError for one that is not there."""
    if hasattr(path, "__iter__") and not isinstance(path, str | dict | np.ndarray | torch.Tensor):
        return [checked_paths(each, verify) for each in path]
    if not isinstance(path, (str, Path)):
        hint = ": for voxels write tensor=..." if isinstance(path, (np.ndarray, torch.Tensor)) else ""
        raise TypeError(f"path must be a path or a list of them, got {type(path).__name__}{hint}")
    path = Path(path).expanduser()
    if verify and not path.exists():
        raise FileNotFoundError(f"File not found: {path}")
    return path


def path_text(path: Any) -> str:
    """A path as it stands among the items of an image; '' for none."""
    return "" if path is None else str(path)


def stem(path: Any) -> Any:
    """The name of a file without its suffixes; of several a list; '' for none."""
    if isinstance(path, list):
        return [stem(each) for each in path]
    return "" if path is None else Path(path).name.split(".")[0]


def reader_of(path: Any) -> Callable[[Path], Any] | None:
    """What reads files of this kind, where medjax does not; None where it does."""
    suffix = (path[0] if isinstance(path, list) else path).suffix.lower()
    if suffix in TENSORS:
        return read_tensor
    return read_by_itk if suffix in (*PICTURES, ".mnc") else None


def read_tensor(path: Path) -> np.ndarray:
    """The voxels that `torch.save` wrote."""
    found = torch.load(path, weights_only=True)
    if not isinstance(found, torch.Tensor) or not 2 <= found.ndim <= 4:
        raise ValueError(f"{path} holds no tensor (C, I, J, K), (I, J, K) or (I, J)")
    found = found[None, ..., None] if found.ndim == 2 else found
    return (found[None] if found.ndim == 3 else found).numpy()


def read_by_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine by SimpleITK."""
    data, header = itk.read(path)
    return data, header.affine


def save(image: Any, path: Path, squeeze: bool | None) -> None:
    """Write an image that is read, by medjax where it writes files of this kind."""
    suffix = path.suffix.lower()
    if suffix in TENSORS:
        torch.save(image.data, path)
    elif suffix in (".img", ".hdr"):
        made = image.to_nibabel()
        nibabel.save(nibabel.Nifti1Pair(made.dataobj, made.affine, made.header), path)
    elif suffix in (*PICTURES, ".mnc") or squeeze:
        data = image.data
        if suffix in BYTES and data.dtype != torch.uint8:
            warnings.warn(f"{path.name}: voxels are cast to uint8", RuntimeWarning, stacklevel=3)
            data = data.to(torch.uint8)
        flat = suffix in PICTURES if squeeze is None else squeeze
        objects.sitk().WriteImage(as_sitk(data, image.affine, force_3d=not flat), str(path), True)
    else:
        io.write(path, image.numpy(), image.affine, image.metadata)


def as_sitk(tensor: torch.Tensor, affine: np.ndarray, *, force_3d: bool = False) -> Any:
    """A SimpleITK image, in LPS; of two dimensions if there is one slice, whose axes are then the picture's."""
    data = tensor.detach().cpu().numpy()
    if force_3d or data.shape[-1] != 1:
        return objects.to_sitk(data, affine)
    sitk, flat = objects.sitk(), np.moveaxis(data[..., 0], 0, -1).swapaxes(0, 1)
    made = sitk.GetImageFromArray(flat if len(data) > 1 else flat[..., 0], isVector=len(data) > 1)
    made.SetOrigin((objects.LPS @ affine)[:2, 3].tolist())
    made.SetSpacing(np.linalg.norm(affine[:3, :2], axis=0).tolist())
    made.SetDirection((-1.0, 0.0, 0.0, -1.0))
    return made


def from_sitk(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine of a SimpleITK image."""
    made = mj.ScalarImage(image)
    return np.array(made.data), np.asarray(made.affine, np.float64)
