"""The command line, `medjax`: a module for each command, which says what can be typed and does it.

What it returns: 0; 1 after an error, which is one line, and where something was found or failed; 2 for what cannot be
typed; 130 after Ctrl-C.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress

from medjax.cli import apply, cache, convert, demo, info, plot, predict, preprocess, validate

COMMANDS = (demo, preprocess, apply, predict, validate, info, convert, plot, cache)


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="medjax", description="3D and 4D medical images in JAX")
    verbs = top.add_subparsers(dest="verb", required=True)
    for command in COMMANDS:
        command.add(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command."""
    top = parser()
    with suppress(ImportError):
        import argcomplete  # pyright: ignore[reportMissingImports]

        argcomplete.autocomplete(top)
    asked = top.parse_args(argv)
    try:
        return asked.run(asked)
    except KeyboardInterrupt:
        print("medjax: stopped", file=sys.stderr)
        return 130
    except (ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"medjax: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
