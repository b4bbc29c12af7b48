"""Files that are read and written beyond medjax's formats: pictures, MINC, Analyze pairs, tensors of torch."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

import medjax as mj
from medjax.io import itk, objects
from torch_bridge.dlpack import to_torch

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
    suffixes = {one.suffix.lower() for one in (path if isinstance(path, list) else [path])}
    if suffixes <= set(TENSORS):
        return read_tensor
    return read_by_itk if suffixes & {*PICTURES, ".mnc"} else None


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


def ensure_4d(tensor: Any, num_spatial_dims: int | None = None) -> torch.Tensor:
    """Voxels (C, I, J, K) of an array of two to five axes, (I, J, K, 1, C) being NIfTI's way of channels.

    num_spatial_dims: how many of three axes are of space; None to take three channels for the colours of a picture.
    """
    found = torch.as_tensor(tensor)
    if found.ndim == 5 and found.shape[3] == 1:
        return found[..., 0, :].permute(3, 0, 1, 2)
    if found.ndim == 2:
        return found[None, ..., None]
    if found.ndim == 3:
        colours = num_spatial_dims is None and 3 in (found.shape[0], found.shape[-1])
        if num_spatial_dims == 2 or colours:
            return (found.permute(2, 0, 1) if colours and found.shape[-1] == 3 else found)[..., None]
        return found[None]
    if found.ndim != 4:
        raise ValueError(f"an image has two to five axes, got shape {tuple(found.shape)}")
    return found


class Reader:
    """A reader of the user's whose voxels may have two or three axes, as `ensure_4d` takes them."""

    def __init__(self, function: Callable[[Path], Any]):
        self.function = function

    def __call__(self, path: Path) -> Any:
        found = self.function(path)
        data, affine = found if isinstance(found, tuple) else (found, None)
        narrow = isinstance(data, np.ndarray | torch.Tensor) and data.ndim != 4
        return (np.asarray(ensure_4d(data)) if narrow else data), affine


def read_shape(path: str | Path) -> tuple[int, ...]:
    """(C, I, J, K) of a file, by its header where there is one that medjax reads."""
    path = checked_paths(path)
    return mj.ScalarImage(path, reader=reader_of(path)).shape


def read_affine(path: str | Path) -> np.ndarray:
    """The affine of a file."""
    path = checked_paths(path)
    return np.array(mj.ScalarImage(path, reader=reader_of(path)).affine, np.float64)


def write(image: mj.Image, path: Path, squeeze: bool | None) -> None:
    """Write an image that is read, by medjax where it writes files of this kind."""
    suffix, data = path.suffix.lower(), image.numpy()
    if suffix in TENSORS:
        torch.save(torch.from_numpy(data.copy()), path)
    elif suffix in (".img", ".hdr"):
        made = image.to_nibabel()
        nibabel.save(nibabel.Nifti1Pair(made.dataobj, made.affine, made.header), path)
    elif suffix in (*PICTURES, ".mnc") or squeeze:
        if suffix in BYTES and data.dtype != np.uint8:
            warnings.warn(f"{path.name}: voxels are cast to uint8", RuntimeWarning, stacklevel=4)
            data = data.astype(np.uint8)
        flat = suffix in PICTURES if squeeze is None else squeeze
        objects.sitk().WriteImage(nib_to_sitk(data, image.affine, not flat), str(path), True)
    else:
        image.save(path)


def nib_to_sitk(data: Any, affine: Any, force_3d: bool = False) -> Any:
    """A SimpleITK image, in LPS; of two dimensions if there is one slice, whose axes are then the picture's."""
    data, affine = np.asarray(torch.as_tensor(data).detach().cpu()), np.asarray(affine, np.float64)
    if force_3d or data.shape[-1] != 1:
        return objects.to_sitk(data, affine)
    sitk, flat = objects.sitk(), np.moveaxis(data[..., 0], 0, -1).swapaxes(0, 1)
    made = sitk.GetImageFromArray(flat if len(data) > 1 else flat[..., 0], isVector=len(data) > 1)
    made.SetOrigin((objects.LPS @ affine)[:2, 3].tolist())
    made.SetSpacing(np.linalg.norm(affine[:3, :2], axis=0).tolist())
    made.SetDirection((-1.0, 0.0, 0.0, -1.0))
    return made


def sitk_to_nib(image: Any) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C, I, J, K) and affine of a SimpleITK image."""
    made = mj.ScalarImage(image)
    return np.array(made.data), np.asarray(made.affine, np.float64)


def read_image(path: str | Path) -> tuple[torch.Tensor, np.ndarray]:
    """Voxels (C, I, J, K) and affine of a file."""
    path = checked_paths(path)
    image = mj.ScalarImage(path, reader=reader_of(path)).stored()
    return to_torch(image.data, copy=True), np.array(image.affine, np.float64)


def write_image(tensor: torch.Tensor, affine: Any, path: str | Path, squeeze: bool | None = None) -> None:
    """Write voxels (C, I, J, K) with an affine; squeeze as in `Image.save`."""
    image = mj.ScalarImage(torch.as_tensor(tensor).numpy(), np.asarray(affine, np.float64))
    write(image, Path(path), squeeze)


def get_ras_affine_from_sitk(sitk_object: Any) -> np.ndarray:
    """The affine of a SimpleITK image, or of the reader of one of three or two dimensions; of four, that of space."""
    size = min(sitk_object.GetDimension(), 3)
    full = sitk_object.GetDimension()
    affine, spacing = np.eye(4), np.array(sitk_object.GetSpacing()[:size])
    direction = np.array(sitk_object.GetDirection()).reshape(full, full)[:size, :size]
    affine[:size, :size], affine[:size, 3] = direction * spacing, sitk_object.GetOrigin()[:size]
    return objects.LPS @ affine


def read_matrix(path: str | Path) -> torch.Tensor:
    """An affine (4, 4) between points in world mm, RAS+, of ITK's (.tfm, .h5) or of NiftyReg's (.txt, .trsf)."""
    suffix = Path(path).suffix
    if suffix in (".txt", ".trsf"):
        return torch.from_numpy(np.linalg.inv(np.loadtxt(path)))
    if suffix not in (".tfm", ".h5"):
        raise ValueError(f"matrices are read from .tfm, .h5, .txt and .trsf, got {str(path)!r}")
    found, matrix = objects.sitk().ReadTransform(str(path)), np.eye(4)
    matrix[:3, 3] = found.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        matrix[:3, axis] = np.array(found.TransformPoint(np.eye(3)[axis].tolist())) - matrix[:3, 3]
    return torch.from_numpy(np.linalg.inv(objects.LPS @ matrix @ objects.LPS))


def write_matrix(matrix: torch.Tensor, path: str | Path) -> None:
    """Write an affine (4, 4); see `read_matrix`. The files hold its inverse: both take points of the result."""
    given, suffix = np.linalg.inv(np.asarray(matrix, np.float64)), Path(path).suffix
    if suffix in (".txt", ".trsf"):
        np.savetxt(path, given, fmt="%.8f")
        return
    if suffix not in (".tfm", ".h5"):
        raise ValueError(f"matrices are written to .tfm, .h5, .txt and .trsf, got {str(path)!r}")
    sitk, given = objects.sitk(), objects.LPS @ given @ objects.LPS
    made = sitk.AffineTransform(3)
    made.SetMatrix(given[:3, :3].ravel().tolist())
    made.SetTranslation(given[:3, 3].tolist())
    sitk.WriteTransform(made, str(path))
