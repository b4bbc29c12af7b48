"""FSL's text files of b-values and b-vectors, which lie beside a diffusion series under its name."""

from pathlib import Path

import numpy as np

from medjax.io import drafts

_ENDINGS = {"bval": (".bval", ".bvals"), "bvec": (".bvec", ".bvecs")}


def beside(path: Path, what: str) -> Path:
    """The file of `what`, "bval" or "bvec", of a series: `dwi.bval` beside `dwi.nii.gz`.

    Raises FileNotFoundError, with the names that were looked for.
    """
    looked_for = [path.with_name(stem(path) + ending) for ending in _ENDINGS[what]]
    found = next((file for file in looked_for if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"beside {path} there is neither {' nor '.join(file.name for file in looked_for)}")
    return found


def stem(path: Path) -> str:
    """The name of a volume without the endings of its format and compression."""
    name = path.name
    for ending in (".gz", ".bz2", ".zst", ".nii", ".img", ".hdr"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return name


def read_numbers(path: Path) -> np.ndarray:
    """The numbers of a file in rows, float64. Raises ValueError, naming the file, for what is no such table."""
    try:
        rows = [line.replace(",", " ").split() for line in path.read_text().splitlines() if line.strip()]
        table = np.array([[float(word) for word in row] for row in rows], np.float64)
    except ValueError as error:
        raise ValueError(f"{path} is no table of numbers, with as many in each row: {error}") from None
    if table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"{path} holds no numbers, or some that are not finite")
    return table


def read_bvals(path: Path) -> np.ndarray:
    """b-values (C,), s/mm^2, from one row or one column."""
    table = read_numbers(path)
    if 1 not in table.shape or table.min() < 0:
        raise ValueError(f"{path} must hold one row of b-values of at least 0, got {table.shape[0]} rows")
    return table.ravel()


def read_bvecs(path: Path) -> np.ndarray:
    """b-vectors as FSL has them, (3, C), from three rows, or three columns."""
    table = read_numbers(path)
    if 3 not in table.shape:
        raise ValueError(f"{path} must hold three rows of b-vectors, got {table.shape[0]} of {table.shape[1]} numbers")
    return table if table.shape[0] == 3 else table.T


def write_numbers(path: Path, table: np.ndarray) -> None:
    """Write rows of numbers, the whole file or none; 9 digits, as many as float32 has."""
    drafts.write_text(path, "".join(" ".join(f"{number:.9g}" for number in row) + "\n" for row in np.atleast_2d(table)))
