"""`medjax plot`: the middle slices of images as a picture."""

import argparse
from pathlib import Path
from typing import Any

from medjax.image import LabelMap, ScalarImage
from medjax.io.fsl import stem
from medjax.plot import plot_subject
from medjax.subject import Subject


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("plot", help="draw the middle slices of images, a row each")
    command.add_argument("image", type=Path, nargs="+")
    command.add_argument("--label", type=Path, nargs="*", default=[], help="label maps, drawn in colour over the first")
    command.add_argument("--out", type=Path, default=Path("plot.png"), help="the picture (default: plot.png)")
    command.add_argument("--size", type=float, default=2.5, help="inches of a slice (default: 2.5)")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it."""
    given = [(path, ScalarImage) for path in asked.image] + [(path, LabelMap) for path in asked.label]
    images = {f"{number}: {stem(path)}": kind(path) for number, (path, kind) in enumerate(given, 1)}
    plot_subject(Subject(images), size=asked.size).savefig(asked.out)
    return 0
