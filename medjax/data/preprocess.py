"""From a data set to files: every subject once, whatever happens meanwhile.

`job.py` does one subject, `manifest.py` remembers what was done, `sidecars.py` takes along what lies beside a volume.
"""

import contextlib
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor, as_completed, wait
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medjax import keys
from medjax.arguments import flag, maybe, of_type, text
from medjax.config import to_config
from medjax.data import job as jobs
from medjax.data.dataset import SubjectsDataset
from medjax.data.identity import common_folder, digest, files_of
from medjax.data.job import Job, Outcome
from medjax.data.keyed import Unkeyed, described, key_of
from medjax.data.manifest import Manifest, Record
from medjax.data.progress import progress as shown_progress
from medjax.data.sidecars import sidecars_of
from medjax.errors import needs_key
from medjax.io import drafts
from medjax.io.signature import signature_of
from medjax.subject import Subject
from medjax.transforms.program import is_random
from medjax.transforms.transform import Transform
from medjax.typing import Key

BY_ID, BY_NUMBER = "{id}/{modality}.nii.gz", "{number}/{modality}.nii.gz"


@dataclass(frozen=True)
class Preprocessed:
    """What `preprocess` did, or with dry_run would do. Subjects are called as their outputs, a star for the image.

    done: in this run.  kept: done before, and still true.  failed: the error of each that failed.
    due: with dry_run what is to be done; else nothing.  seconds: of work, in all threads or processes together, of what
    was done, or an estimate for what is due; None where nothing tells.  bytes: of files, likewise.
    manifest: the file with a line for each attempt.
    """

    done: tuple[str, ...]
    kept: tuple[str, ...]
    failed: dict[str, str]
    due: tuple[str, ...]
    seconds: float | None
    bytes: int | None
    manifest: Path


@dataclass(frozen=True)
class Planned:
    """A job, what its record will say of it, or why it cannot be done."""

    job: Job
    record: Record
    problem: str | None


def preprocess(
    subjects: Iterable[Subject],
    pipeline: Callable[..., Any],
    out: str | os.PathLike,
    *,
    names: str | None = None,
    executor: Executor | None = None,
    key: Key | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Preprocessed:
    """Read, transform and write every subject of a data set; called again, it does what is missing or has changed.

    subjects: Subjects whose images are files, or a SubjectsDataset without a transform.
    pipeline: a transform, or any function of a Subject that a module defines, as `mj.nnunet_preprocess(...)`.
    out: the folder of the files, made if it is not there.
    names: of the files below it, which say their format: metadata in braces, `{modality}` for the name of an image,
    `{number}` for the place of the subject, as "sub-{id}/sub-{id}_{modality}.nii.gz"; so `SubjectsDataset.from_folder`
    finds them again. By default "{id}/{modality}.nii.gz", and "{number}/{modality}.nii.gz" unless every subject has an
    id.
    executor: any of `concurrent.futures`, as a ProcessPoolExecutor that spawns or, beyond one machine,
    `dask.distributed.Client(...).get_executor()`; by default threads, one a core.
    key: for a pipeline that draws; each subject's own follows from it and the name of the subject's files.
    dry_run: only say what is due, and estimate seconds and bytes by earlier records or else by the first subject due.
    progress: a bar with the time that is left, on a terminal, with the extra `demo` or `cli`.

    A file is there whole or not at all, and the same input gives the same bytes. `out/manifest.jsonl` gets a line for
    each attempt: inputs, signature, configuration, version, key, seconds, outputs with checksums, the error. A subject
    is done again if its files, the pipeline, the key, medjax or JAX are others, if outputs are missing or it failed.
    A subject that fails, by a damaged file or a full disk, does not stop the others: it is recorded, and a warning
    tells how many. Ctrl-C and kill leave what the next call goes on from.

    JSON of BIDS, b-values and b-vectors beside a volume follow it, turned with it. Of JSON technical fields alone are
    kept and of headers no words; manifest and errors name files relative to the folder that holds all of them, and no
    metadata but those in `names`. `Points` of a subject are not written.

    Raises ValueError for images that are no files, names that are not each of one subject, and outputs that would
    replace inputs; TypeError without a key that is needed; RuntimeError where the executor itself fails.

    >>> dataset = mj.SubjectsDataset.from_folder("bids/sub-{id}/anat/sub-{id}_{modality}.nii.gz")
    >>> pipeline = mj.Compose([mj.ToCanonical(), mj.Resample(1.0), mj.CropOrPad(160), mj.ZNormalization()])
    >>> report = mj.preprocess(dataset, pipeline, "derived", names="sub-{id}_{modality}.nii.gz")
    >>> report.failed
    """
    maybe(of_type(Executor))("executor", executor)
    flag("dry_run", dry_run), flag("progress", progress)
    given = checked(subjects, pipeline, key)
    folder = Path(out).expanduser()
    manifest = Manifest(folder)
    planned = plan(given, pipeline, folder, maybe(text)("names", names), None if key is None else keys.as_key(key))
    before = manifest.latest()
    kept = {one.job.name for one in planned if is_done(one, before, folder)}
    due = [one for one in planned if one.job.name not in kept]
    if dry_run:
        return estimated(due, kept, before, manifest)
    write_configuration(folder, pipeline, planned)
    return carried_out(due, kept, manifest, executor, progress)


def carried_out(
    due: Sequence[Planned], kept: Iterable[str], manifest: Manifest, executor: Executor | None, progress: bool
) -> Preprocessed:
    """Do what is due, and record it."""
    records: dict[str, Record] = {}

    def keep(one: Planned, outcome: Outcome) -> None:
        records[one.job.name] = record = replace(one.record, **outcome._asdict())
        manifest.append(record)

    try:
        work(due, executor, keep, progress)
    except BrokenExecutor as error:
        done = sum(record.error is None for record in records.values())
        raise RuntimeError(
            f"a process of the executor died, as one does that is given no memory: {done} of {len(due)} subjects "
            "are done; call preprocess again to go on, with fewer processes"
        ) from error
    try:
        manifest.flush()
    except OSError as error:
        warnings.warn(f"the manifest could not be written, so that a next run does these again: {error}", stacklevel=3)
    return report(records, kept, manifest)


def is_done(one: Planned, before: dict[str, Record], folder: Path) -> bool:
    """Whether what there is of a subject is what would be made again."""
    return one.job.name in before and before[one.job.name].holds(one.record.signature, folder)


def checked(subjects: Iterable[Subject], pipeline: Callable[..., Any], key: Key | None) -> Sequence[Subject]:
    """The subjects, if they are such; raises TypeError and ValueError."""
    if isinstance(subjects, SubjectsDataset):
        if subjects.transform is not None:
            raise ValueError("subjects is a data set with a transform, and there is pipeline: give dataset.subjects")
        subjects = subjects.subjects
    given = SubjectsDataset(subjects).subjects
    if not callable(pipeline):
        raise TypeError(f"pipeline must be a transform or a function of a Subject, got {pipeline!r}")
    if key is None and isinstance(pipeline, Transform) and is_random(pipeline):
        needs_key(type(pipeline).__name__, "preprocess(subjects, pipeline, out, key=jax.random.key(0))")
    for index, subject in enumerate(given):
        for name, image in subject.images.items():
            if image.path is None:
                raise ValueError(f"{name} of subject {index} is an array, and what is preprocessed are files: save it")
    return given


def plan(
    subjects: Sequence[Subject], pipeline: Callable[..., Any], folder: Path, names: str | None, key: Key | None
) -> list[Planned]:
    """What is to be done to each subject."""
    if names is None:
        names = BY_ID if subjects and all("id" in subject.metadata for subject in subjects) else BY_NUMBER
    try:
        told = described(pipeline)
    except Unkeyed as error:
        raise ValueError(f"pipeline must be one that is found again, so that a next run can tell: {error}") from None
    inputs = [os.path.abspath(Path(p).expanduser()) for s in subjects for i in s.images.values() for p in files_of(i)]
    base = common_folder(inputs)
    shown = {f"{place}{os.sep}": "" for place in (base, os.path.abspath(folder)) if place}
    planned, taken = [], {}
    for index, subject in enumerate(subjects):
        values = {name: item for name, item in subject.metadata.items() if isinstance(item, (str, int, float))}
        unread = subject.replace(**{name: copy(image) for name, image in subject.images.items()})
        relative = {os.fspath(p): shorter(p, base) for image in subject.images.values() for p in files_of(image)}
        job = Job(unread, pipeline, None, folder, names, {"number": f"{index:05d}"} | values, relative | shown)
        if len({job.output(name) for name in subject.images}) < len(subject.images):
            raise ValueError(f"names={names!r} must hold {{modality}}: subject {index} has several images")
        if taken.setdefault(job.name, index) != index:
            raise ValueError(f"names={names!r}: subjects {taken[job.name]} and {index} are both {job.name}")
        if key is not None:
            job = replace(job, key=keys.as_text(keys.for_name(key, job.name)))
        planned.append(signed(job, told))
    targets = {os.path.realpath(folder / p.job.output(name)) for p in planned for name in p.job.subject.images}
    if overwritten := targets.intersection(map(os.path.realpath, inputs)):
        raise ValueError(f"names={names!r} in {folder} would replace an input, {shorter(min(overwritten), base)}")
    return planned


def shorter(path: str | os.PathLike, base: str) -> str:
    """A path below the folder that holds all inputs."""
    full = os.path.abspath(Path(path).expanduser())
    return os.path.relpath(full, base) if base else os.path.basename(full)


def signed(job: Job, told: Any) -> Planned:
    """A job with the signature of all that it is made of; `told` of the pipeline."""
    images = job.subject.images
    inputs = sorted({name for name in job.shown.values() if name})
    version = sys.modules["medjax"].__version__
    signature, problem = "", None
    try:
        beside = [[what, signature_of(path)] for i in images.values() for what, path in sorted(sidecars_of(i).items())]
        signature = key_of(job.subject, [told, beside, job.key], dtype=None, door="medjax")
    except (Unkeyed, OSError, ValueError) as error:
        problem = jobs.said(ValueError(str(error)), job)
    record = Record(job.name, inputs, signature, digest(told), version, job.key, 0.0, {}, problem)
    return Planned(job, record, problem)


def work(
    due: Sequence[Planned], executor: Executor | None, keep: Callable[[Planned, Outcome], None], progress: bool
) -> None:
    """Do all of it, and keep what came of each as soon as it is known; what was begun is kept on Ctrl-C, too."""
    for one in due:
        if one.problem is not None:
            keep(one, Outcome({}, 0.0, one.problem))
    due = [one for one in due if one.problem is None]
    with running(executor) as pool, shown_progress("preprocessing", len(due), progress) as advance:
        waiting: dict[Future[Outcome], Planned] = {}
        try:
            for one in due:
                waiting[pool.submit(jobs.run, one.job)] = one
            for future in as_completed(list(waiting)):
                outcome = came_of(future, waiting[future])
                keep(waiting.pop(future), outcome)
                advance()
        finally:
            begun = [future for future in waiting if not future.cancel()]
            for future in wait(begun).done:
                with contextlib.suppress(BrokenExecutor, jobs.Forked):
                    keep(waiting[future], came_of(future, waiting[future]))


def came_of(future: "Future[Outcome]", one: Planned) -> Outcome:
    """The outcome of a job; what an executor says of one that it could not do is an outcome, too."""
    try:
        return future.result()
    except (BrokenExecutor, jobs.Forked):
        raise
    except Exception as error:
        return Outcome({}, 0.0, jobs.said(error, one.job))


@contextlib.contextmanager
def running(executor: Executor | None) -> Iterator[Executor]:
    """The executor that was given, which stays open, or threads."""
    if executor is not None:
        yield executor
        return
    with ThreadPoolExecutor(cores(), "medjax-preprocess") as pool:
        yield pool


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_configuration(folder: Path, pipeline: Callable[..., Any], planned: Sequence[Planned]) -> None:
    """The text of a pipeline, called by the digest that records name it by, in the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    if planned and isinstance(pipeline, Transform):
        path = folder / f"pipeline-{planned[0].record.configuration}.json"
        if not path.exists():
            drafts.write_text(path, json.dumps(to_config(pipeline), indent=2) + "\n")


def estimated(
    due: Sequence[Planned], kept: Iterable[str], before: dict[str, Record], manifest: Manifest
) -> Preprocessed:
    """What a dry run says: by earlier records of the same pipeline, or by the first subject, done twice elsewhere."""
    failed = {one.job.name: one.problem for one in due if one.problem is not None}
    due = [one for one in due if one.problem is None]
    alike = {one.record.configuration for one in due}
    known = [(r.seconds, r.bytes) for r in before.values() if r.error is None and r.configuration in alike]
    if due and not known:
        with tempfile.TemporaryDirectory() as folder:
            jobs.run(elsewhere := replace(due[0].job, folder=Path(folder)))  # compiles
            outcome = jobs.run(elsewhere)
        known = [] if outcome.error else [(outcome.seconds, sum(size for size, _ in outcome.outputs.values()))]
    seconds, size = (len(due) * sum(column) / len(known) for column in zip(*known)) if known else (None, None)
    names = tuple(one.job.name for one in due)
    return Preprocessed((), tuple(sorted(kept)), failed, names, seconds, size and int(size), manifest.path)


def report(records: dict[str, Record], kept: Iterable[str], manifest: Manifest) -> Preprocessed:
    """What was done; a warning says how many failed."""
    failed = {name: record.error for name, record in records.items() if record.error is not None}
    done = [record for record in records.values() if record.error is None]
    if failed:
        warnings.warn(f"{len(failed)} of {len(records)} subjects failed: see {manifest.path}", stacklevel=4)
    names = tuple(sorted(record.subject for record in done))
    seconds, size = sum(record.seconds for record in records.values()), sum(record.bytes for record in done)
    return Preprocessed(names, tuple(sorted(kept)), failed, (), seconds, size, manifest.path)
