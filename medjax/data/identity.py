"""What the state of an iterator is compared by: digests of a key, of options and of a data set."""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

from medjax import keys
from medjax.data.dataset import SubjectsDataset
from medjax.subject import Subject
from medjax.typing import Key


def identity_of(key: Key | None, options: Any, dataset: SubjectsDataset) -> dict[str, str]:
    """Digests, by what they are of; the same in every process, and no file is read."""
    return {"key": digest(keys.as_text(key)), "options": digest(options), "dataset": digest(outlines(dataset))}


def digest(value: Any) -> str:
    """Eight letters that differ for what differs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def outlines(dataset: SubjectsDataset) -> list[Any]:
    """What tells the subjects of a data set apart, in order: names, files, shapes of arrays, short metadata.

    Files by their place in the folder that holds all of them, so that a data set may be moved.
    """
    paths = [
        os.path.abspath(path) for subject in dataset.subjects for i in subject.images.values() for path in files_of(i)
    ]
    folder = common_folder(paths)

    def one(subject: Subject) -> Any:
        images = {}
        for name, image in subject.images.items():
            files = [os.path.relpath(os.path.abspath(p), folder) if folder else str(p) for p in files_of(image)]
            held = image.held()[0]
            shape = None if files or held is None else [*map(int, held.shape), str(held.dtype)]
            images[name] = [type(image).__name__, files, shape]
        known = {n: v for n, v in subject.metadata.items() if isinstance(v, str | int | float)}
        return [list(images.items()), known]

    return [len(dataset), *map(one, dataset.subjects)]


def common_folder(paths: Sequence[str]) -> str:
    """The folder that holds all of these absolute paths; empty where there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    except ValueError:  # on several drives
        return ""


def files_of(image: Any) -> list[Any]:
    """The files of an image."""
    path = image.path
    return [] if path is None else path if isinstance(path, list) else [path]
