"""Subjects as they are typed: a pattern of paths, or a table."""

import argparse
from pathlib import Path

from medjax.data import sources
from medjax.data.dataset import SubjectsDataset
from medjax.transforms.transform import Transform

TABLES = (".csv", ".tsv")


def listed(text: str) -> list[str]:
    """Names with commas between them."""
    return [name for name in text.split(",") if name]


def add_subjects(command: argparse.ArgumentParser) -> None:
    """Let a command take subjects."""
    command.add_argument(
        "subjects",
        help='a path with names in braces, as "bids/sub-{id}/anat/sub-{id}_{modality}.nii.gz", of which {modality} '
        "names the image and the others are metadata; or a table, .csv or .tsv",
    )
    command.add_argument("--images", type=listed, default=[], help="columns of a table that hold paths: t1,flair")
    command.add_argument(
        "--labels",
        type=listed,
        help=f"which images are label maps (default: {','.join(sources.LABELS)}; of a table: none)",
    )


def dataset_of(asked: argparse.Namespace, transform: Transform | None = None) -> SubjectsDataset:
    """The subjects that were asked for."""
    if is_table(asked.subjects):
        return SubjectsDataset.from_csv(asked.subjects, transform, images=asked.images, labels=asked.labels or ())
    if asked.images:
        raise ValueError("--images goes with a table; in a path {modality} names the image")
    labels = sources.LABELS if asked.labels is None else asked.labels
    return SubjectsDataset.from_folder(asked.subjects, transform, labels=labels)


def is_table(subjects: str) -> bool:
    """Whether this is the path of a table."""
    return Path(subjects).suffix.lower() in TABLES and "{" not in subjects
