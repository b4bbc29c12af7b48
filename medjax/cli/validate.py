"""`medjax validate`: what is wrong with the subjects of a data set, before or after a pipeline."""

import argparse
import json
from typing import Any

from medjax.cli.pipelines import HELP, add_seed, key_for, pipeline_of
from medjax.cli.subjects import add_subjects, dataset_of
from medjax.data.validation import Finding, validate


def whole_numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser(
        "validate", help="look for NaN, infinity, other shapes, grids and labels in each subject"
    )
    add_subjects(command)
    command.add_argument("--pipeline", help=f"look at what becomes of them: {HELP}")
    add_seed(command)
    command.add_argument("--values", type=whole_numbers, help="that label maps may hold, as 0,1,2 (default: any)")
    command.add_argument("--json", action="store_true", help="say it as JSON")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it; 1 if something was found."""
    pipeline = None if asked.pipeline is None else pipeline_of(asked.pipeline)
    dataset = dataset_of(asked, pipeline)
    found = validate(dataset, key=key_for(pipeline, asked.seed), values=asked.values)
    if asked.json:
        print(json.dumps({"subjects": len(dataset), "findings": [one._asdict() for one in found]}, indent=2))
    else:
        print(table(found) if found else f"{len(dataset)} subjects, nothing found")
    return 1 if found else 0


def table(found: list[Finding]) -> str:
    """A line for each finding, in columns."""
    rows = [("subject", "image", "what"), *((one.subject, one.image or "", one.what) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in rows)
