"""`medjax info`: what files hold, as text or as JSON."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from medjax import io
from medjax.image import Image, ScalarImage

PERCENTILES = (1, 50, 99)
MOST_VALUES = 256
"""As many different whole numbers are listed, each with how many voxels have it."""


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("info", help="say what files hold")
    command.add_argument("path", type=Path, nargs="+")
    command.add_argument("--header", action="store_true", help="all fields of the header, too")
    command.add_argument("--statistics", action="store_true", help="read the voxels, too, and say what they are")
    command.add_argument("--json", action="store_true", help="say it as JSON")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Say it."""
    found = []
    for path in asked.path:
        image = ScalarImage(path)
        told: dict[str, Any] = {"path": str(path), "format": io.format_of(path), **geometry_of(image)}
        if asked.header:
            told["header"] = header_of(image.load())
        if asked.statistics:
            told["statistics"] = statistics_of(image.stored().numpy())
        found.append(told)
        if not asked.json:
            print(as_text(told))
    if asked.json:
        print(json.dumps(plain(found), indent=2))
    return 0


def geometry_of(image: Image) -> dict[str, Any]:
    """Shape, type and place, of the header alone."""
    return {
        "shape": list(image.shape),
        "dtype": str(image.dtype),
        "spacing": [float(size) for size in image.spacing],
        "orientation": "".join(image.orientation),
        "affine": np.asarray(image.affine, np.float64).tolist(),
        "bounds": np.asarray(image.bounds, np.float64).tolist(),
    }


def header_of(image: Image) -> dict[str, Any]:
    """What a file says beside its voxels: the fields of its header, and other metadata."""
    metadata = dict(image.metadata)
    header: Any = metadata.pop("header", {})
    return {str(name): value for name, value in {**dict(header.items()), **metadata}.items()}


def statistics_of(voxels: np.ndarray) -> dict[str, Any]:
    """Extremes, moments and percentiles of the voxels that are finite, how many are not, and the values of labels."""
    finite = np.isfinite(voxels)
    values = voxels[finite].astype(np.float64)
    told: dict[str, Any] = {
        "nan": int(np.isnan(voxels).sum()),
        "infinite": int(voxels.size - finite.sum() - np.isnan(voxels).sum()),
        "zero": int((voxels == 0).sum()),
    }
    if not values.size:
        return told
    told |= {"min": values.min(), "max": values.max(), "mean": values.mean(), "std": values.std()}
    told["percentiles"] = dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True))
    if voxels.dtype.kind in "iub":
        different, counts = np.unique(voxels, return_counts=True)
        if len(different) <= MOST_VALUES:
            told["values"] = {str(int(value)): int(count) for value, count in zip(different, counts, strict=True)}
    return told


def as_text(told: dict[str, Any]) -> str:
    """A line of what the header says, and lines of all else that was asked for."""
    shape, spacing = " x ".join(map(str, told["shape"])), " x ".join(f"{s:g}" for s in told["spacing"])
    lines = [f"{told['path']}: {shape} {told['dtype']}, {spacing} mm, {told['orientation']}"]
    for part in ("statistics", "header"):
        lines += [f"  {name}: {json.dumps(plain(value))}" for name, value in told.get(part, {}).items()]
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """What JSON holds; what is not finite, and it does not hold, is null."""
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("latin-1")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int)) or value is None else str(value)
