"""MINC, Philips PAR/REC and AFNI files, by nibabel alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.minc1 import Minc1Image
from nibabel.parrec import PARRECImage

from medjax.errors import needs_extra
from medjax.io import nifti
from medjax.io.registry import Format, Header, register

nib: Any = nibabel  # its type hints know less than it does


def read_header(path: Path) -> Header:
    """`medjax.io.read_header`; one voxel is read, which tells the dtype. A time axis becomes the channels."""
    with _opened(path) as image:
        return _header(path, image)


def read(path: Path) -> tuple[np.ndarray, Header]:
    """`medjax.io.read`. Integers with a scale become float32."""
    with _opened(path) as image:
        header = _header(path, image)
        data = np.array(np.asanyarray(image.dataobj), header.dtype)  # a copy: nibabel may map the file
    c, i, j, k = header.shape
    if isinstance(image, Minc1Image):
        return data.reshape(c, i, j, k), header
    return np.moveaxis(data.reshape(i, j, k, c), -1, 0), header


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """nibabel's image. Volumes of PAR/REC are in the order of their numbers, not of the file."""
    if path.suffix.lower() not in (".par", ".rec"):
        try:
            image = nib.load(path)
        except ImportError:
            needs_extra("h5py", "minc", "reading MINC 2")
        yield image
        return
    files = PARRECImage.filespec_to_file_map(str(path))
    names = [str(files[part].filename) for part in ("header", "image")]
    with open(names[0]) as header, open(names[1], "rb") as voxels:  # opened here: nibabel would leave the second open
        held = {"header": nib.FileHolder(fileobj=header), "image": nib.FileHolder(fileobj=voxels)}
        yield PARRECImage.from_file_map(held, mmap=False, strict_sort=True)


def _header(path: Path, image: Any) -> Header:
    stored, found = image.get_data_dtype(), image.dataobj[(slice(0, 1),) * image.ndim].dtype
    shape = image.shape
    if isinstance(image, Minc1Image) and len(shape) == 4:
        shape = (*shape[1:], shape[0])  # of MINC's axes that of time is the first
    if found.kind not in "iuf":
        raise ValueError(f"{found} is not read")
    dtype = np.dtype(np.float32) if stored.kind in "iu" and found.kind == "f" else found.newbyteorder("=")
    return Header(nifti.volume_shape(path, shape, 1), np.asarray(image.affine, np.float64), dtype, {})


register(Format("MINC", (".mnc", ".mnc.gz"), read_header, read))
register(Format("PAR/REC", (".par", ".rec"), read_header, read))
register(Format("AFNI", (".head", ".brik", ".brik.gz"), read_header, read))
