"""What is done to one subject, in whatever thread, process or machine: read, transform, write, and say how it went.

What goes there and back pickles as paths, numbers and text. Nothing is raised but by what ends all of the work.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medjax import io, keys
from medjax.data import patterns, sidecars
from medjax.data.entry import crc32
from medjax.data.sources import MODALITY
from medjax.image import Image
from medjax.subject import Subject

IMPORTED_BY = os.getpid()
SHORTEST = 4
"""Letters of a text of the metadata that is looked for in errors."""


class Forked(RuntimeError):
    """The work was given to a process that was forked from one with JAX in it, where JAX waits for ever."""


@dataclass(frozen=True)
class Job:
    """A subject and what becomes of it.

    subject: with its images unread.  pipeline: a function of a subject, and of a key if there is one.
    key: as `medjax.keys.as_text` has it.  folder, pattern, values: where outputs go.
    shown: what takes the place of paths in errors.
    """

    subject: Subject
    pipeline: Callable[..., Any]
    key: list[Any] | None
    folder: Path
    pattern: str
    values: Mapping[str, Any]
    shown: Mapping[str, str]

    @property
    def name(self) -> str:
        """The subject as its outputs are called, a star for the image."""
        return str(patterns.filled(self.pattern, {**self.values, MODALITY: "*"}))

    def output(self, image: str) -> Path:
        """Where an image goes, below the folder."""
        return Path(patterns.filled(self.pattern, {**self.values, MODALITY: image}))


class Outcome(NamedTuple):
    """How it went: bytes and CRC-32 of each output, seconds, and the error if there was one."""

    outputs: dict[str, tuple[int, int]]
    seconds: float
    error: str | None


def run(job: Job) -> Outcome:
    """Do it."""
    if os.getpid() != IMPORTED_BY:
        raise Forked(
            "executor forks, and JAX does not survive a fork: give "
            "ProcessPoolExecutor(n, mp_context=multiprocessing.get_context('spawn')), or none"
        )
    start = time.perf_counter()
    try:
        outputs, error = perform(job), None
    except Exception as problem:
        outputs, error = {}, said(problem, job)
    return Outcome(outputs, time.perf_counter() - start, error)


def perform(job: Job) -> dict[str, tuple[int, int]]:
    """Read, transform and write a subject."""
    subject = sidecars.with_gradients(job.subject.load())
    made = job.pipeline(subject) if job.key is None else job.pipeline(subject, keys.of_text(job.key))
    if not isinstance(made, Subject) or not made.images:
        raise TypeError(f"pipeline must give a Subject with images, got {type(made).__name__}")
    written: list[Path] = []
    for name, image in made.images.items():
        path = job.folder / job.output(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        nameless(image).save(path)
        written.append(path)
        if name in subject.images:
            written += sidecars.follow(name, subject[name], made, path)
    return {path.relative_to(job.folder).as_posix(): measured(path) for path in written}


def nameless(image: Image) -> Image:
    """An image without the words of its header."""
    return image.replace(metadata=io.without_texts(image.metadata))


def measured(path: Path) -> tuple[int, int]:
    """Bytes and CRC-32 of a file."""
    data = path.read_bytes()
    return len(data), crc32(data)


def said(error: Exception, job: Job) -> str:
    """What an error says, with paths as the user knows them and without the texts of a subject's metadata."""
    text = f"{type(error).__name__}: {error}"
    for path, name in job.shown.items():
        text = text.replace(path, name)
    for value in job.subject.metadata.values():
        if isinstance(value, str) and len(value) >= SHORTEST and value not in job.name:
            text = text.replace(value, "...")
    return text
