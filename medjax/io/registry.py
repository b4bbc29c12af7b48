"""Which format reads or writes a path, and what all formats have in common."""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medjax.io import drafts
from medjax.io.affines import check_affine
from medjax.io.boxes import cut


class Header(NamedTuple):
    """What is known of a volume without reading its voxels.

    shape: (C, I, J, K), the channels (or time) first.
    affine: (4, 4) float64, voxel index to RAS+ world mm.
    dtype: of the array that `read` gives, in native byte order.
    metadata: what the file says and medjax does not use, to be handed back to `write`;
        `metadata["header"]` is the header object of the format's library.
    """

    shape: tuple[int, int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    metadata: dict


class Format(NamedTuple):
    """A file format: its name, the endings of its paths, and the functions that read and write them.

    suffixes: lower case with the leading dot (".nii.gz"); "/" stands for a folder.
    read_header, read, write: as the functions of this module, but called with an existing `Path`
        (`write`: with a path to create, a (C, I, J, K) array and a sound affine).
        Whatever they raise, the functions of this module say of which file. write=None: the format is only read.
    read_box: as `read`, of the box from voxel (i, j, k) on of a shape (I, J, K) alone; None: such a file is read whole.
    magic: where and what bytes stand in every such file; it takes files whose suffix belongs to no format.
    """

    name: str
    suffixes: tuple[str, ...]
    read_header: Callable[[Path], Header]
    read: Callable[[Path], tuple[np.ndarray, Header]]
    write: Callable[[Path, np.ndarray, np.ndarray, dict], None] | None = None
    magic: tuple[int, bytes] | None = None
    read_box: Callable[[Path, Sequence[int], Sequence[int]], tuple[np.ndarray, Header]] | None = None


_BY_SUFFIX: dict[str, Format] = {}


def register(reader: Format) -> None:
    """Let `read`, `read_header` and `write` take the paths that end in one of the format's suffixes.

    A format of the same name is replaced. The longest matching suffix decides, whatever its case.

    Raises: ValueError if a suffix belongs to another format, or is not lower case with a leading dot (or "/").
    """
    for suffix in reader.suffixes:
        if suffix != suffix.lower() or not suffix.startswith((".", "/")):
            raise ValueError(f"suffix {suffix!r} of {reader.name} must be lower case and begin with a dot (or be '/').")
        if suffix in _BY_SUFFIX and _BY_SUFFIX[suffix].name != reader.name:
            raise ValueError(f"suffix {suffix!r} of {reader.name} already belongs to {_BY_SUFFIX[suffix].name}.")
    for suffix in [suffix for suffix, known in _BY_SUFFIX.items() if known.name == reader.name]:
        del _BY_SUFFIX[suffix]
    _BY_SUFFIX.update(dict.fromkeys(reader.suffixes, reader))


def formats() -> tuple[str, ...]:
    """Names of the registered formats, in the order of their registration."""
    return tuple(known.name for known in _registered())


def format_of(path: str | os.PathLike) -> str | None:
    """Name of the format that takes a path, or None."""
    found = _match(Path(path).expanduser())
    return found.name if found else None


def is_written(path: str | os.PathLike) -> bool:
    """Whether `write` takes a path, by how it ends."""
    found = _match(Path(path).expanduser())
    return found is not None and found.write is not None


def read_header(path: str | os.PathLike) -> Header:
    """Shape, affine, dtype and metadata of a file, without reading its voxels.

    The affine follows nibabel where a NIfTI file holds two: sform if its code is above 0, else qform
    (https://nipy.org/nibabel/nifti_images.html, "The NIfTI affines"); a UserWarning tells if the two differ.

    Raises: FileNotFoundError, PermissionError and the like of the system; ImportError for a missing extra; ValueError
        if no format takes the path, or if it is a pipe or a device, or the file is damaged, has no shape
        (C, I, J, K), holds complex numbers or an affine that is singular or not finite. Each names the file.
    """
    path, reader = _reader(path)
    with named(path):
        header = reader.read_header(path)
    check_affine(header.affine, path)
    return header


def read(path: str | os.PathLike) -> tuple[np.ndarray, Header]:
    """Voxels (C, I, J, K) of a file, in native byte order, and the header that `read_header` gives.

    The array is in the order of the file (often a transposed view), held in memory of its own: the file may be
    changed or removed. Integers and floats keep their dtype; integers with a scale become float32.

    Raises: as `read_header`. A truncated file never gives partial data.
    """
    path, reader = _reader(path)
    with named(path):
        array, header = reader.read(path)
    check_affine(header.affine, path)
    return array, header


def read_box(path: str | os.PathLike, start: Sequence[int], shape: Sequence[int]) -> tuple[np.ndarray, Header]:
    """Voxels (C, *shape) of the box that begins at voxel `start` and lies inside the volume; the header of all of it.

    No more of the file is read than its format asks for. Raises: as `read`.
    """
    path, reader = _reader(path)
    if reader.read_box is None:
        array, header = read(path)
        return cut(array, start, shape), header
    with named(path):
        array, header = reader.read_box(path, start, shape)
    check_affine(header.affine, path)
    return array, header


def write(path: str | os.PathLike, array: np.ndarray, affine: np.ndarray, metadata: dict) -> None:
    """Write a volume in the format that the path's suffix names: the whole file or, on any failure, none.

    array: (C, I, J, K); one channel is written as a 3-D file, several as a 4-D one.
    affine: (4, 4), voxel index to RAS+ world mm.
    metadata: of a `Header`, or {}; what still holds for this array is written back.

    A file that is there is replaced and its permissions are kept; through a symbolic link, what the link points to.
    It belongs to whoever writes, and its other hard links keep the old content. A file that may not be written to
    stays. What a process that was killed while it wrote left behind in the folder is removed.

    Raises: FileNotFoundError if the folder is missing; PermissionError; ValueError if the format is not written, cannot
        store the dtype, or the array or the affine is unsound. Each names the path.
    """
    path = Path(path).expanduser()
    target = _match(path)
    if target is None or target.write is None:
        writable = _listing([known for known in _registered() if known.write])
        raise ValueError(f"{path}: files of this kind are not written. Written are {writable}.")
    final = Path(os.path.realpath(path))
    if not final.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such folder to write to", str(final.parent))
    array = np.asarray(array)
    if array.ndim != 4 or array.size == 0:
        raise ValueError(
            f"{path}: an array (C, I, J, K) with at least one voxel is written, not one of shape {array.shape}."
        )
    affine = check_affine(affine, path)
    old = final.stat() if final.exists() else None
    if old is not None and not os.access(final, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    # The draft lies in a folder of its own, so that it bears its final name (writers look at the suffix)
    # and a search for files beside it does not find it half written.
    with _written_as(path, final.parent), drafts.folder_in(final.parent) as folder:
        draft = folder / path.name
        target.write(draft, array, affine, metadata)
        if old is not None:
            draft.chmod(stat.S_IMODE(old.st_mode))
        for part in folder.iterdir():  # some formats have their voxels in a second file: it comes first
            if part != draft:
                os.replace(part, final.with_name(part.name))
        os.replace(draft, final)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Whatever a library raises over a file becomes one error that names the file.

    What the system says of a file (it is missing, may not be read, cannot be read from its disk) stays an OSError, a
    missing library an ImportError, too little memory a MemoryError; anything else is a ValueError.
    """
    try:
        yield
    except Warning:
        raise  # a user's filter made it an error
    except (ImportError, MemoryError) as error:
        kind = ImportError if isinstance(error, ImportError) else MemoryError
        raise kind(f"{path}: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        text = str(error) or type(error).__name__
        if isinstance(error, ValueError) and str(path) in text:
            raise
        raise ValueError(f"{path} cannot be read, it is damaged or of another format: {text}") from error


@contextlib.contextmanager
def _written_as(path: Path, folder: Path) -> Iterator[None]:
    """Errors of writing name the path that was asked for, never the draft in `folder`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error  # of the subclass that the number says
        kinds = (OSError, ValueError, TypeError, MemoryError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), RuntimeError)
        text = re.sub(re.escape(f"{folder}{os.sep}{drafts.PREFIX}") + r"[^/\\\s]*", lambda _: str(folder), str(error))
        raise kind(f"{path}: {text}") from error


def _reader(path: str | os.PathLike) -> tuple[Path, Format]:
    path = Path(path).expanduser()
    reader = _match(path)
    if reader is None:
        raise ValueError(
            f"{path}: files of this kind are not read. Read are {_listing(_registered())}. Images of nibabel and of "
            "SimpleITK are taken as they are, and any file by a function of yours: ScalarImage(path, reader=...)."
        )
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    check_file(path)
    return path, reader


def check_file(path: Path) -> None:
    """Raise a ValueError for what is there and is neither a file nor a folder: reading a pipe would wait for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path} is a pipe, a device or a socket; only files are read")


def _match(path: Path) -> Format | None:
    name = path.name.lower() + ("/" if path.is_dir() else "")
    suffix = max((suffix for suffix in _BY_SUFFIX if name.endswith(suffix)), key=len, default="")
    return _BY_SUFFIX.get(suffix) or _match_content(path)


def _match_content(path: Path) -> Format | None:
    known = [one for one in _registered() if one.magic] if path.is_file() else []
    for one in known:
        offset, magic = one.magic or (0, b"")
        with open(path, "rb") as file:
            file.seek(offset)
            if file.read(len(magic)) == magic:
                return one
    return None


def _registered() -> list[Format]:
    return list(dict.fromkeys(_BY_SUFFIX.values()))


def _listing(known: list[Format]) -> str:
    return "; ".join(f"{one.name} ({', '.join(one.suffixes)})" for one in known)
