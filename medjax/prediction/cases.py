"""One case or many: read while the one before is predicted, and written while the one after is."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from medjax.errors import about
from medjax.errors import shown as text_of
from medjax.image import Image, LabelMap, ScalarImage
from medjax.io.fsl import stem
from medjax.io.registry import format_of
from medjax.patches.samplers import as_subject
from medjax.patches.windows import shown
from medjax.prediction.way import grid_of
from medjax.subject import Subject

Result: TypeAlias = LabelMap | tuple[LabelMap, ScalarImage]
"""The labels, and the probabilities if they are asked for."""


class Case(NamedTuple):
    """What is to be predicted, and the files that it becomes: of the labels, and maybe of the probabilities."""

    source: Subject | Path
    files: tuple[Path, ...]

    def read(self) -> Subject:
        """The subject, its voxels read."""
        return (Subject(image=ScalarImage(self.source)) if isinstance(self.source, Path) else self.source).load()

    def write(self, result: Result) -> None:
        """Write the files, each whole or not at all, that of the labels last."""
        images = result if isinstance(result, tuple) else (result,)
        for image, file in list(zip(images, self.files, strict=True))[::-1]:
            image.save(file)


def each_case(predicted: Callable[[Subject], Result], given: Any, out: Any, probable: bool, progress: bool) -> Any:
    """What is predicted for one case, or a list of that for several; with `out`, files and their paths.

    Raises ValueError for cases that would become the same file, or have no name.
    """
    several, sources = sources_of(given)
    if out is None:
        results = [predicted(Case(source, ()).read()) for source in sources]
        return results if several else results[0]
    cases = cases_of(sources, Path(out).expanduser(), several, probable)
    todo = [case for case in cases if not all(file.exists() for file in case.files)]
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        coming = [reader.submit(case.read) for case in todo[:1]]
        for n in shown(range(len(todo)), progress and several):
            with about(str(todo[n].files[0])):
                subject = coming.pop().result()
                coming += [reader.submit(case.read) for case in todo[n + 1 : n + 2]]
                result = predicted(subject)
            if written is not None:
                written.result()
            written = writer.submit(todo[n].write, result)
        if written is not None:
            written.result()
    paths = [case.files[0] for case in cases]
    return paths if several else paths[0]


def sources_of(given: Any) -> tuple[bool, list[Subject | Path]]:
    """Whether several cases are given, and each: a path, or a subject.

    A folder is all volumes in it, one case a file, or if there is none a DICOM series.
    """
    if isinstance(given, (Subject, Image, np.ndarray, jax.Array)):
        return False, [given if isinstance(given, Subject) else as_subject(given)]
    if isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        inside = sorted(p for p in path.iterdir() if p.is_file() and is_volume(p)) if path.is_dir() else []
        return (True, list(inside)) if inside else (False, [path])
    if isinstance(given, Sequence):
        return True, [source for item in given for source in sources_of(item)[1]]
    raise TypeError(
        f"subject_or_paths must be a Subject, an Image, an array, a path or a sequence of them, got {text_of(given)}"
    )


def is_volume(path: Path) -> bool:
    """Whether a file of a folder is a volume of its own."""
    return format_of(path) not in (None, "DICOM")


def cases_of(sources: Sequence[Subject | Path], out: Path, several: bool, probable: bool) -> list[Case]:
    """Each case with the files that it becomes in a folder, or, if it is one, at a path that has an ending."""
    named: dict[Path, Case] = {}
    for number, source in enumerate(sources):
        whole = not several and (out.suffix != "" and not out.is_dir())
        file = out if whole else out / f"{name_of(source, number)}.nii.gz"
        if file.exists() and any(path.exists() and file.samefile(path) for path in paths_of(source)):
            raise ValueError(f"out={str(out)!r} would write over {file}, which is predicted: give another folder")
        if file in named:
            raise ValueError(f"two cases would become {file}: give them names of their own, Subject(..., name='x')")
        beside = file.with_name(f"{stem(file)}_probabilities.nii.gz")
        named[file] = Case(source, (file, beside) if probable else (file,))
    for file in named:
        file.parent.mkdir(parents=True, exist_ok=True)
    return list(named.values())


def name_of(source: Subject | Path, number: int) -> str:
    """The name of a case: that of its file, or what the subject holds as `name`."""
    if isinstance(source, Path):
        return stem(source)
    name, paths = getattr(source, "name", None), paths_of(source)
    if not isinstance(name, str) and not paths:
        raise ValueError(f"case {number} comes from no file, so it needs a name to be written: Subject(..., name='x')")
    return name if isinstance(name, str) else stem(paths[0])


def paths_of(source: Subject | Path) -> list[Path]:
    """The files of a case: of a subject those of the image on whose grid it is predicted."""
    path = source if isinstance(source, Path) else grid_of(source)[1].path
    return [] if path is None else path if isinstance(path, list) else [path]
