"""`medjax apply`: one image, and its labels, through a pipeline."""

import argparse
from pathlib import Path
from typing import Any

from medjax.cli.pipelines import add_pipeline, key_for, pipeline_of
from medjax.image import LabelMap, ScalarImage
from medjax.subject import Subject


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("apply", help="transform an image, and its labels, and write them")
    add_pipeline(command)
    command.add_argument("input", type=Path, help="an image")
    command.add_argument("output", type=Path, help="where it is written")
    command.add_argument("--label", type=Path, nargs=2, metavar=("IN", "OUT"), help="its label map, moved with it")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it. In the pipeline the image is called `image` and the label map `label`."""
    pipeline = pipeline_of(asked.pipeline)
    outputs, subject = {"image": asked.output}, Subject(image=ScalarImage(asked.input))
    if asked.label is not None:
        outputs["label"], subject = asked.label[1], subject.replace(label=LabelMap(asked.label[0]))
    made = pipeline(subject, key_for(pipeline, asked.seed))
    for name, path in outputs.items():
        made[name].save(path)
    return 0
