"""Results in JSON, and the tables that are made of them."""

import json
import os
import platform
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent.parent.parent / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
SHOWN = [
    "guide", "nnU-Net's list", "affine", "elastic", "resample", "flip", "z-norm", "percentiles", "gamma", "noise", "blur",
    "bias field", "motion", "ghosting", "spike", "anisotropy", "swap", "low resolution", "median",
]  # fmt: skip
"""The rows of README's table, in its order."""


def machine(device: Any) -> dict[str, Any]:
    """What the numbers were measured on."""
    models = [line.split(":")[1].strip() for line in lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 1),
        "device": device.device_kind,
        "python": platform.python_version(),
    }


def lines(path: str) -> list[str]:
    """The lines of a file, none if it is not there."""
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def write(path: Path, result: dict[str, Any]) -> None:
    """Replace the file with these results: after every row, for the next may be the last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)


def ratios(row: dict[str, Any]) -> dict[str, float]:
    """How many times medjax's time each peer takes."""
    return {name: spent / row["ms"]["medjax"] for name, spent in row["ms"].items() if name != "medjax"}


def table(result: dict[str, Any]) -> str:
    """README's table: milliseconds of medjax, and how many times that each library takes."""
    peers = [name for name in result["versions"] if any(name in row["ms"] for row in result["rows"].values())]
    peers.remove("medjax")
    heads = ["", "medjax ms", *(f"{name} {result['versions'][name]}" for name in peers)]
    text = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in (n for n in SHOWN if n in result["rows"]):
        row = result["rows"][name]
        found = ratios(row)
        cells = [name, plain(row["ms"]["medjax"]), *(f"{plain(found[p])}x" if p in found else "" for p in peers)]
        text.append(f"| {' | '.join(cells)} |")
    where, size = result["machine"], " x ".join(map(str, result["shape"]))
    busy = where["load before"] > where["cores"] / 2
    text.append("")
    text.append(
        ("Measured beside other work: read the ratios, not the milliseconds. " if busy else "")
        + f"Milliseconds of medjax on {size} voxels, and how many times that the others take: medians (of the guide and "
        "nnU-Net's list, which draw, means) of calls that take "
        f"turns, {where['cores']} cores ({where['processor']}). Made by `python -m tests.benchmarks`."
    )
    return "\n".join(text)


def plain(number: float) -> str:
    """Two digits, and no powers of ten."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def into_readme(text: str, result: dict[str, Any]) -> str:
    """The README with its marked block made anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(result)}\n{END}{rest.split(END)[1]}"
