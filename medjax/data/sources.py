"""Subjects of paths: from the names of files in a folder, or from a table."""

import csv
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from medjax.arguments import names as names_of
from medjax.data import patterns
from medjax.errors import near, shown
from medjax.image import LabelMap, ScalarImage
from medjax.subject import Subject

MODALITY, ALONE = "modality", "image"
LABELS = ("label", "labels", "seg", "dseg", "mask")
"""Names of images that are taken for label maps where nothing else is said."""


def in_folder(pattern: str | os.PathLike, labels: Sequence[str]) -> list[Subject]:
    """The subjects of the files that fit a pattern; see `SubjectsDataset.from_folder`."""
    labels = names_of("labels", labels)
    subjects: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, fields in patterns.find(pattern):
        name = fields.pop(MODALITY, ALONE)
        items = subjects.setdefault(tuple(fields.values()), dict(fields))
        if name in fields:
            raise ValueError(f"pattern={pattern!r}: {name!r} is the name of an image too, as of {path}")
        if name in items:
            raise ValueError(f"{items[name].path} and {path} are both {name!r} of one subject: pattern={pattern!r}")
        items[name] = (LabelMap if name in labels else ScalarImage)(path)
    return [Subject(images_first(items)) for items in subjects.values()]


def images_first(items: Mapping[str, Any]) -> dict[str, Any]:
    """Items with the images before the metadata, scalar ones before labels: the first is the reference."""

    def place(item: Any) -> int:
        return 0 if isinstance(item, ScalarImage) else 1 if isinstance(item, LabelMap) else 2

    return dict(sorted(items.items(), key=lambda pair: place(pair[1])))


def in_table(
    source: Any, images: Sequence[str], labels: Sequence[str], folder: str | os.PathLike | None
) -> list[Subject]:
    """The subjects of the rows of a table; see `SubjectsDataset.from_csv`."""
    images, labels = names_of("images", images), names_of("labels", labels)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        columns, rows, base = *read_table(path), path.parent
    elif hasattr(source, "columns") and hasattr(source, "notna"):
        columns, rows, base = *of_frame(source), Path()
    else:
        raise TypeError(f"source must be the path of a table or a DataFrame of pandas, got {shown(source)}")
    for name in (*images, *labels):
        if name not in columns:
            raise ValueError(f"the table has no column {name!r}; it has {', '.join(columns)}.{near(name, columns)}")
    base = base if folder is None else Path(folder).expanduser()
    kinds: dict[str, Callable[[Path], Any]] = {**dict.fromkeys(images, ScalarImage), **dict.fromkeys(labels, LabelMap)}
    return [
        Subject(images_first({n: kinds[n](base / str(v)) if n in kinds else v for n, v in row.items()})) for row in rows
    ]


def read_table(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a text file and its rows, without what is empty.

    A column is of numbers if each of its entries is one, and written as numbers are: 007 is a name.
    Raises ValueError, naming the line, for rows of another length than the first.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        lines = list(csv.reader(file, delimiter=max(",;\t", key=first.count)))
    columns = lines[0] if lines else []
    if not all(columns) or len(set(columns)) < len(columns) or not columns:
        raise ValueError(f"{path} must begin with the names of its columns, each once, got {columns}")
    lines = [line for line in enumerate(lines[1:], 2) if line[1]]
    for number, line in lines:
        if len(line) != len(columns):
            raise ValueError(f"{path}, row {number}, has {len(line)} entries for {len(columns)} columns")
    typed = {name: as_numbers([line[place] for _, line in lines]) for place, name in enumerate(columns)}
    rows = [{name: typed[name][row] for name in columns} for row in range(len(lines))]
    return columns, [{name: value for name, value in row.items() if value != ""} for row in rows]


def as_numbers(texts: Sequence[str]) -> list[Any]:
    """The entries of a column as numbers, if all that are not empty are; else as they are."""
    kinds: Collection[Callable[[str], Any]] = (int, float)
    for kind in kinds:
        try:
            numbers = [kind(text) if text else "" for text in texts]
        except ValueError:
            continue
        bare = [text.strip().lstrip("+-") for text in texts]
        if not any("_" in text or (text[:1] == "0" and text[1:2].isdigit()) for text in bare):
            return numbers
    return list(texts)


def of_frame(frame: Any) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a DataFrame and its rows, without what is missing."""
    columns = [str(name) for name in frame.columns]
    rows, there = frame.to_dict("records"), frame.notna().to_dict("records")
    return columns, [
        {str(name): value for name, value in row.items() if known[name]} for row, known in zip(rows, there, strict=True)
    ]
