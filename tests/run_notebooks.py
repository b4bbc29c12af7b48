"""Execute every notebook of a folder and fail if one raises; the files themselves are left as they are.

    python tests/run_notebooks.py [folder] [--limit SECONDS]

The kernel is the interpreter that runs this script, whatever kernels are installed elsewhere.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

KERNEL = "this-interpreter"


def install_kernel(folder: Path) -> None:
    """Write a kernel that is this very interpreter into `folder`, and have Jupyter look there first."""
    spec = folder / "kernels" / KERNEL
    spec.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    spec.joinpath("kernel.json").write_text(
        json.dumps({"argv": command, "display_name": KERNEL, "language": "python"}), encoding="utf-8"
    )
    os.environ["JUPYTER_PATH"] = str(folder)
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ.pop("MPLBACKEND", None)  # the kernel chooses its own, which puts figures into the notebook


def execute(path: Path, limit: float) -> str | None:
    """Run one notebook within `limit` seconds, in its own folder; return what went wrong, or None."""
    notebook = nbformat.read(path, as_version=4)
    deadline = time.monotonic() + limit
    client = NotebookClient(
        notebook,
        kernel_name=KERNEL,
        startup_timeout=60,
        timeout_func=lambda cell: max(1, int(deadline - time.monotonic())),  # nbclient's own limit is for one cell
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellTimeoutError:
        return f"not finished after {limit:.0f} s"
    except (CellExecutionError, DeadKernelError) as error:
        return str(error)
    return None


def main() -> int:
    """Run all notebooks, print one line for each, and return how many failed."""
    parser = argparse.ArgumentParser(description="Execute notebooks without changing them.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent.parent / "notebooks")
    parser.add_argument("--limit", type=float, default=90, help="seconds for each notebook (default: 90)")
    arguments = parser.parse_args()
    notebooks = sorted(arguments.folder.resolve().glob("*.ipynb"))
    if not notebooks:
        print(f"no notebooks in {arguments.folder}")
        return 1
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        install_kernel(Path(folder))
        for path in notebooks:
            start = time.monotonic()
            problem = execute(path, arguments.limit)
            failures += problem is not None
            print(f"{path.name}: {'FAILED' if problem else 'ok'}, {time.monotonic() - start:.1f} s", flush=True)
            if problem:
                print(problem, flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
