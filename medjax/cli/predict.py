"""`medjax predict`: volumes through a network in a file, to label maps on their own grids."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from medjax.cli.pipelines import HELP, pipeline_of
from medjax.errors import needs_extra
from medjax.prediction.predict import SPACES, predict
from medjax.subject import Subject
from medjax.typing import Shape3


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("predict", help="label maps of volumes, by a network, on the volumes' own grids")
    command.add_argument(
        "network", type=Path,
        help="a file of what jax.export.export(...).serialize() gives, weights inside: from (B, C, *patch_size) of "
        "float32 to logits; that is the size of patches, and B is that of --batch-size, or open",
    )  # fmt: skip
    command.add_argument("pipeline", help=HELP)
    command.add_argument("inputs", type=Path, nargs="+", help="volumes, or folders of them")
    command.add_argument("out", type=Path, help="a folder; what is there already is not predicted again")
    command.add_argument("--overlap", type=float, default=0.5, help="the part of a patch that neighbours share")
    command.add_argument("--batch-size", type=int, default=1, help="patches at a time")
    command.add_argument("--labels", type=int, nargs="+", help="the label of each class (default: 0, 1, 2 ...)")
    command.add_argument("--space", choices=SPACES, default=SPACES[0], help="what is averaged and interpolated")
    command.add_argument("--flips", type=int, nargs="+", default=(), help="axes of a patch along which it is mirrored")
    command.add_argument("--probabilities", action="store_true", help="write those of all classes too")
    command.add_argument("--memory", help='as "8GB": where scores take more, they wait in the memory of the host')
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it."""
    network, size = network_of(asked.network)
    written = predict(
        network, asked.inputs, pipeline_of(asked.pipeline), patch_size=size, overlap=asked.overlap,
        batch_size=asked.batch_size, labels=asked.labels, space=asked.space, flips=asked.flips, out=asked.out,
        probabilities=asked.probabilities, memory=asked.memory,
    )  # fmt: skip
    for path in written:
        print(path)
    return 0


def network_of(path: Path) -> tuple[Any, Shape3]:
    """The network of a file, as `predict` takes it, and the size of its patches.

    Raises ImportError without the `export` extra, ValueError for a file that holds no such function.
    """
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports, reportMissingModuleSource]
    except ImportError:
        needs_extra("flatbuffers", "export", "a network in a file")
    content = path.expanduser().read_bytes()
    try:
        exported = jax.export.deserialize(bytearray(content))
        (given,) = exported.in_avals
    except Exception as error:  # of whatever kind: the bytes may be anything
        raise ValueError(f"{path} holds no function of one array, as jax.export serializes it: {error}") from None
    size = given.shape[2:]
    if len(size) != 3 or not all(isinstance(n, int) for n in size):
        raise ValueError(f"the network of {path} must take (B, C, *patch_size) of a fixed patch_size, takes {given}")
    return partial(of_images, exported.call), size


def of_images(call: Any, batch: Subject) -> Array:
    """What a function of one array (B, C, I, J, K) makes of the channels of all scalar images."""
    channels = [jnp.asarray(image.data) for image in batch.images.values() if not image.is_label]
    return call(jnp.concatenate(channels, 1).astype(jnp.float32))
