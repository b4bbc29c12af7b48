"""What a cache keeps of a subject: an array of NumPy for each image, and a record of all the rest."""

from typing import Any

import numpy as np

from medjax.data.store import Damaged, Entry, crc32
from medjax.image import Image, LabelMap, ScalarImage
from medjax.io.headers import from_json, to_json
from medjax.subject import Subject

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


def entry_of(made: Subject, given: Subject, dtype: np.dtype | None) -> Entry:
    """The record and the arrays of a subject; dtype: in which fractions are kept, None as they are."""
    record, arrays = record_of(made, given), []
    for image in record["images"]:
        data = np.ascontiguousarray(np.asarray(made.images[image["name"]].data))
        kept = narrowed(data, dtype) if image["kind"] == ScalarImage.__name__ else data
        image |= {"shape": kept.shape, "dtype": data.dtype.name, "kept": kept.dtype.name, "error": 0.0}
        if kept.dtype != data.dtype:
            finite = np.isfinite(data)
            image["error"] = float(np.abs(kept[finite].astype(data.dtype) - data[finite]).max(initial=0))
        image["crc32"] = checksum(kept)
        arrays.append(kept)
    return Entry(record, arrays)


def narrowed(data: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    """Fractions in a smaller type, if one is asked for and its range holds them; else as they are."""
    if dtype is None or data.dtype.kind != "f" or data.dtype.itemsize <= dtype.itemsize:
        return data
    with np.errstate(over="ignore"):
        kept = data.astype(dtype)
    return kept if np.array_equal(np.isfinite(kept), np.isfinite(data)) else data


def verify(entry: Entry) -> None:
    """Raise Damaged unless the arrays are those that were written."""
    for image, array in zip(entry.record["images"], entry.arrays, strict=True):
        if checksum(array) != image["crc32"]:
            raise Damaged(f"the array of {image['name']!r} is not what was written")


def checksum(array: np.ndarray) -> int:
    """The CRC-32 of an array that is contiguous."""
    return crc32(array.reshape(-1).view(np.uint8))


def restored(entry: Entry, given: Subject, read_only: bool) -> Subject:
    """The subject of an entry, with all that it does not keep from the subject before it was read.

    read_only: nothing was done but reading, so that images still know their files.
    """
    images: dict[str, Image] = {}
    for kept, array in zip(entry.record["images"], entry.arrays, strict=True):
        name, was = kept["name"], given.images.get(kept["name"])
        own = {key: given[source].metadata[key] for key, source in kept["own"].items()}
        dtype = np.dtype(kept["dtype"])
        data = array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype, copy=False)  # "V" is bfloat16
        metadata = from_json(kept["metadata"]) | own
        affine = np.array(kept["affine"])
        if read_only and was is not None:
            images[name] = was.filled(data, affine, metadata, kept["assumed"])
        else:
            images[name] = KINDS[kept["kind"]].of(data, affine, metadata=metadata, assumed=kept["assumed"])
    points = entry.record["annotations"]
    moved = {name: given[name].replace(np.array(xyz, np.float32)) for name, xyz in points.items()}
    return Subject({**dict(given.items()), **images, **moved})
