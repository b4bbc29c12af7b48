"""`medjax preprocess`: a data set to files; a second run does what is missing or has changed."""

import argparse
import json
import multiprocessing
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medjax.cli.pipelines import add_pipeline, key_for, pipeline_of
from medjax.cli.subjects import add_subjects, dataset_of, is_table
from medjax.data import patterns
from medjax.data.preprocess import Preprocessed, preprocess
from medjax.errors import needs_extra
from medjax.io.registry import is_written


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("preprocess", help="read, transform and write every subject of a data set, once")
    add_subjects(command)
    add_pipeline(command)
    command.add_argument("out", type=Path, help="folder of the files, of the manifest and of the pipeline")
    command.add_argument("--names", help='of the files in it, as "sub-{id}/{modality}.nii.gz" (default: as they are)')
    command.add_argument("--dry-run", action="store_true", help="say what is due, for how long and how large")
    command.add_argument("--json", action="store_true", help="say it as JSON")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--processes", type=int, help="that work instead of threads of one process")
    where.add_argument("--scheduler", help="address of a scheduler of dask.distributed, whose workers do it")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do it; 1 if a subject failed."""
    pipeline, dataset = pipeline_of(asked.pipeline), dataset_of(asked)
    names = asked.names or (None if is_table(asked.subjects) else own_names(asked.subjects))
    with executor_of(asked) as executor, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\d+ of \d+ subjects failed")  # each is told below
        found = preprocess(
            dataset, pipeline, asked.out, names=names, executor=executor, key=key_for(pipeline, asked.seed),
            dry_run=asked.dry_run,
        )  # fmt: skip
    print(json.dumps(asdict(found), default=str, indent=2) if asked.json else told(found, asked.dry_run))
    for name, error in found.failed.items():
        print(f"failed: {name}: {error}", file=sys.stderr)
    return 1 if found.failed else 0


def own_names(pattern: str) -> str | None:
    """Outputs are called as inputs are, with the ending of a format that is written."""
    inside = patterns.divided(pattern)[1]
    if "*" in inside or "?" in inside:
        return None
    return inside if is_written(inside) else f"{inside}.nii.gz"


@contextmanager
def executor_of(asked: argparse.Namespace) -> Iterator[Executor | None]:
    """Who does it."""
    if asked.scheduler is not None:
        try:
            from distributed import Client  # pyright: ignore[reportMissingImports]
        except ImportError:
            needs_extra("dask.distributed", "dask", "a scheduler")
        with Client(asked.scheduler) as client:
            yield client.get_executor()
    elif asked.processes is not None:
        # Ctrl-C is for the parent, which lets them finish what they have begun.
        with ProcessPoolExecutor(
            asked.processes, multiprocessing.get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)
        ) as pool:
            yield pool
    else:
        yield None


def told(found: Preprocessed, dry_run: bool) -> str:
    """What was done, or is due, in a line."""
    if not dry_run:
        counts = f"{len(found.done)} done, {len(found.kept)} done before, {len(found.failed)} failed"
        return f"{counts}; {found.bytes or 0:,} bytes written; see {found.manifest}"
    line = f"{len(found.due)} due, {len(found.kept)} done before"
    if found.seconds is not None and found.bytes is not None:
        free = shutil.disk_usage(next(folder for folder in found.manifest.absolute().parents if folder.exists())).free
        line += f"; about {found.seconds:.0f} s of one worker and {found.bytes:,} bytes, of which {free:,} are free"
    return line
