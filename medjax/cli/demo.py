"""`medjax demo`: see `medjax.demo`."""

import argparse
from pathlib import Path
from typing import Any

from medjax import demo
from medjax.cli.pipelines import add_seed


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("demo", help="augment a real MRI as a batch and train a small 3D U-Net on it")
    command.add_argument("--image", type=Path, help="your own volume (default: the MNI152 T1)")
    command.add_argument("--label", type=Path, help="its labels, 0 for background")
    command.add_argument("--out", type=Path, default=Path("demo"), help="folder of the pictures (default: demo)")
    command.add_argument("--steps", type=int, default=demo.STEPS, help=f"of training (default: {demo.STEPS})")
    add_seed(command)
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Run it."""
    demo.run(asked.image, asked.label, asked.out, asked.seed, asked.steps)
    return 0
