"""What a cache keeps of a subject: in a folder, an array of NumPy for each image and a record of all the rest."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from medjax.image import Image, LabelMap, ScalarImage
from medjax.io.headers import from_json, to_json
from medjax.subject import Subject

try:
    from isal.isal_zlib import crc32
except ImportError:
    from zlib import crc32

RECORD = "record.json"
KINDS = {kind.__name__: kind for kind in (ScalarImage, LabelMap)}


def record_of(made: Subject, given: Subject) -> dict[str, Any]:
    """The record of what became of a subject, as JSON can hold it; its arrays are still to be added.

    given: the subject before it was read, whose own metadata are not kept: they are there when the entry is used.
    Raises TypeError for what has no such form.
    """
    images = []
    for name, image in made.images.items():
        if any(part is not None for part in (image.extent, image.offset, image.full)):
            raise TypeError(f"the image {name!r} is padded, or part of another")
        # Of equal ones those under its own name, so that it follows them where they change.
        sources = sorted(given.images, key=lambda other: other == name)
        own = {key: source for source in sources for key in same_items(image, given.images[source])}
        found = {key: item for key, item in image.metadata.items() if key not in own}
        images.append(
            {
                "name": name,
                "kind": type(image).__name__,
                "affine": np.asarray(image.affine, np.float64).tolist(),
                "assumed": bool(image.assumed),
                "metadata": to_json(found),
                "own": own,
            }
        )
    points = {name: np.asarray(item.xyz, np.float64).tolist() for name, item in made.annotations.items()}
    return {"images": images, "annotations": points}


def same_items(image: Image, was: Image) -> list[str]:
    """The names of the metadata that an image has from another."""
    return [key for key, item in was.metadata.items() if key in image.metadata and image.metadata[key] is item]


def write(folder: Path, record: dict[str, Any], made: Subject, dtype: np.dtype | None) -> None:
    """Fill an empty folder: the arrays first, the record last."""
    for number, entry in enumerate(record["images"]):
        image = made.images[entry["name"]]
        data = np.ascontiguousarray(np.asarray(image.data))
        kept = narrowed(data, dtype) if isinstance(image, ScalarImage) else data
        entry |= {"file": f"{number}.npy", "dtype": data.dtype.name, "error": 0.0}
        if kept.dtype != data.dtype:
            finite = np.isfinite(data)
            entry["error"] = float(np.abs(kept[finite].astype(data.dtype) - data[finite]).max(initial=0))
        np.save(folder / entry["file"], kept, allow_pickle=False)
        entry["crc32"] = checksum(kept)
    (folder / RECORD).write_text(json.dumps(record))


def narrowed(data: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """Fractions in a smaller type, if one is asked for and its range holds them; else as they are."""
    if dtype is None or data.dtype.kind != "f" or data.dtype.itemsize <= dtype.itemsize:
        return data
    with np.errstate(over="ignore"):
        kept = data.astype(dtype)
    return kept if np.array_equal(np.isfinite(kept), np.isfinite(data)) else data


def read(folder: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The record of an entry and its arrays, mapped: what is written to them reaches no file.

    They begin on a 64-byte boundary, where JAX on a CPU takes them without a copy.
    Raises OSError for files that are not there; ValueError for what is no entry.
    """
    try:
        record = json.loads((folder / RECORD).read_text())
        arrays = [np.load(folder / e["file"], mmap_mode="c", allow_pickle=False) for e in record["images"]]
    except (EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is no entry: {error}") from error
    return record, [array.view(np.ndarray) for array in arrays]


def verify(record: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Raise a ValueError unless the arrays are those that were written."""
    for entry, array in zip(record["images"], arrays, strict=True):
        if checksum(array) != entry["crc32"]:
            raise ValueError(f"{entry['file']} is not what was written")


def checksum(array: np.ndarray) -> int:
    """The CRC-32 of an array that is contiguous."""
    return crc32(array.reshape(-1).view(np.uint8))


def restored(record: dict[str, Any], arrays: list[np.ndarray], given: Subject, read_only: bool) -> Subject:
    """The subject of an entry, with all that it does not keep from the subject before it was read.

    read_only: nothing was done but reading, so that images still know their files.
    """
    images: dict[str, Image] = {}
    for entry, array in zip(record["images"], arrays, strict=True):
        name, was = entry["name"], given.images.get(entry["name"])
        own = {key: given[source].metadata[key] for key, source in entry["own"].items()}
        dtype = np.dtype(entry["dtype"])
        data = array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype, copy=False)  # "V" is bfloat16
        metadata = from_json(entry["metadata"]) | own
        affine = np.array(entry["affine"])
        if read_only and was is not None:
            images[name] = was.filled(data, affine, metadata, entry["assumed"])
        else:
            images[name] = KINDS[entry["kind"]].of(data, affine, metadata=metadata, assumed=entry["assumed"])
    moved = {name: given[name].replace(np.array(xyz, np.float32)) for name, xyz in record["annotations"].items()}
    return Subject({**dict(given.items()), **images, **moved})
