"""python -m tests.benchmarks: medjax against every installed peer, in one table.

On a CPU: each transform and pipeline on one volume, libraries taking turns, as medians and ratios; then whole batches.
--device cuda: batches on the card, what matters most first, done in under eight minutes; needs nothing but JAX, NumPy
and this tree. After every row all results are written. --readme makes README's table of what was written.
"""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="a volume of 64^3 and 3 calls each, for a look")
    parser.add_argument("--device", choices=("cpu", "cuda", "tpu"), default="cpu")
    parser.add_argument("--rows", default="", help="only rows whose name matches this regular expression")
    parser.add_argument("--size", type=int, help="side of a synthetic cube, instead of the MNI152 T1")
    parser.add_argument("--repeats", type=int, help="calls of each: 7, or 3 if quick")
    parser.add_argument("--batch", type=int, default=8, help="volumes of a batch on a card")
    parser.add_argument("--limit", type=float, default=400, help="seconds after which a card is given no further row")
    parser.add_argument(
        "--memory", action="store_true", help="the peak memory of each as well, in processes of their own"
    )
    parser.add_argument("--out", type=Path, help="the JSON file; results/DEVICE.json here if not given")
    parser.add_argument("--readme", action="store_true", help="measure nothing: README's table from the JSON file")
    return parser.parse_args()


def on_one_volume(options: argparse.Namespace, result: dict[str, Any], save: Any) -> None:
    """Each row of medjax against the peers that have it."""
    from rich.console import Console

    from tests.benchmarks import memory, rows, volumes

    size = options.size or (64 if options.quick else None)
    volume = volumes.synthetic((size,) * 3) if size else volumes.mni()
    libraries = rows.installed()
    result |= {"versions": rows.versions(libraries), "shape": volume.data.shape[1:], "rows": {}}
    table = live_table(["ms", "compile s", *(f"x {name}" for name in libraries if name != "medjax")])
    for name, runs in rows.contestants(libraries, volume).items():
        if re.search(options.rows, name):
            found = rows.interleaved(name, runs, options.repeats or (3 if options.quick else 7), patience=2.0)
            if options.memory:
                found["MB"] = {library: memory.peak(library, name, size or 200) for library in runs}
            result["rows"][name] = found
            save()
            times = found["ms"]
            cells = [f"{times[p] / times['medjax']:.2f}" if p in times else "" for p in libraries if p != "medjax"]
            table.add_row(name, f"{times['medjax']:.2f}", f"{found['compile s']:.1f}", *cells)
            print(name, *cells, flush=True)
    Console().print(table)


def on_batches(options: argparse.Namespace, result: dict[str, Any], save: Any) -> None:
    """Pipelines and transforms on whole batches."""
    import jax

    from tests.benchmarks import batches

    side = options.size or (32 if options.quick else None)
    shape = (side,) * 3 if side else (160, 192, 160)
    result |= {"versions": {"jax": jax.__version__}, "shape": shape, "batch": options.batch, "rows": {}}
    found = batches.rows(shape, options.batch, options.repeats or (3 if options.quick else 20))
    for name, row in batches.within(found, options.limit):
        result["rows"][name] = row
        save()
        print(name, json.dumps(row), flush=True)


def live_table(heads: list[str]) -> Any:
    from rich.table import Table

    table = Table(title="medjax, and how many times its time the others take")
    for number, head in enumerate(["", *heads]):
        table.add_column(head, justify="right" if number else "left")
    return table


def main() -> None:
    options = arguments()
    os.environ["JAX_PLATFORMS"] = options.device
    from tests.benchmarks import report

    path = options.out or report.RESULTS / f"{options.device}.json"
    if options.readme:
        report.README.write_text(report.into_readme(report.README.read_text(), json.loads(path.read_text())))
        return
    import jax

    result: dict[str, Any] = {"machine": report.machine(jax.devices()[0])}
    kind = on_one_volume if options.device == "cpu" else on_batches
    kind(options, result, lambda: report.write(path, result))


if __name__ == "__main__":
    main()
