"""One row: a call of each library, in turns; what they take, and the time of the first call apart."""

import importlib
import statistics
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from tests.benchmarks.timer import seconds
from tests.benchmarks.volumes import Volume

DRAWN = {"guide", "nnU-Net's list"}
"""What draws anew at every call. What is drawn decides what a call costs: of these many are called, and means compared."""
LIBRARIES = ["ours", "torchio_1", "monai_1", "batchgenerators_2", "scipy_1"]


def installed() -> dict[str, Any]:
    """The libraries that can be imported, by the name under which they are installed."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            try:
                module = importlib.import_module(f"tests.benchmarks.libraries.{name}")
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("tests"):
                    raise
                continue
            found[module.DISTRIBUTION] = module
    return found


def versions(libraries: dict[str, Any]) -> dict[str, str]:
    """Those of the libraries, and of what they compute with."""
    return {
        name: version(name) for name in [*libraries, "jax", "numpy", *(["torch"] if "torchio" in libraries else [])]
    }


def contestants(libraries: dict[str, Any], volume: Volume) -> dict[str, dict[str, Callable[[], Any]]]:
    """The calls of each row, by library; rows are those of medjax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = {library: module.calls(volume) for library, module in libraries.items()}
    return {row: {lib: calls[row] for lib, calls in made.items() if row in calls} for row in made["medjax"]}


def interleaved(name: str, runs: dict[str, Callable[[], Any]], repeats: int, patience: float) -> dict[str, Any]:
    """Milliseconds of each, as the median or mean of calls that take turns; what medjax's first call takes beyond.

    Who takes longer than `patience` seconds a call is called a second time and no more.
    """
    average, repeats = (statistics.mean, 8 * repeats) if name in DRAWN else (statistics.median, repeats)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = {library: seconds(run) for library, run in runs.items()}
        found: dict[str, list[float]] = {library: [] for library in runs}
        for number in range(repeats):
            for library, run in runs.items():
                if number == 0 or average(found[library]) < patience:
                    found[library].append(seconds(run))
    spent = {library: average(times) for library, times in found.items()}
    return {
        "ms": {library: round(1e3 * each, 3) for library, each in spent.items()},
        "compile s": round(max(0.0, first["medjax"] - spent["medjax"]), 2),
        "calls": {library: len(times) for library, times in found.items()},
    }
