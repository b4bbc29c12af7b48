"""`medjax cache`: what a cache of prepared subjects holds."""

import argparse
from pathlib import Path
from typing import Any

from medjax.data.cache import Cache, is_url


def add(verbs: Any) -> None:
    """What can be typed."""
    command = verbs.add_parser("cache", help="say what a cache of prepared subjects holds, compare checksums, empty it")
    command.add_argument("what", choices=("info", "check", "clear"))
    command.add_argument("folder", help="a path or a URL")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """Do what is asked with a cache; 1 if it holds what is damaged, which is removed."""
    what, folder = asked.what, asked.folder
    if not is_url(folder) and not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is no folder")
    cache = Cache(folder, limit=None)
    if what == "clear":
        cache.clear()
    problems = cache.check() if what == "check" else []
    for problem in problems:
        print(f"removed, as it is damaged: {problem}")
    found = cache.info()
    error = f", kept as float16 with an error of at most {found.error:g}" if found.error else ""
    print(f"{folder}: {found.entries} subjects, {found.bytes / 1e9:.3f} GB{error}")
    return 1 if problems else 0
