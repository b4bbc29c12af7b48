"""`medjax convert`: a file in another format."""

import argparse
from pathlib import Path
from typing import Any

from medjax.image import ScalarImage


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("convert", help="write an image in the format that a name ends in")
    command.add_argument("input", type=Path, help="a file, or the folder of a DICOM series")
    command.add_argument("output", type=Path, help="where it is written, as b.nii.gz, b.mgz or b.nrrd")
    command.add_argument("--series", help="UID of one of several DICOM series")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it; voxels are written in the type in which they are stored."""
    ScalarImage(asked.input, series=asked.series).stored().save(asked.output)
    return 0
