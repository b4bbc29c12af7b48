"""The command line: `medjax demo`, `medjax info` and `medjax cache`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from medjax import demo
from medjax.data.cache import Cache, is_url
from medjax.image import ScalarImage


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    top = argparse.ArgumentParser(prog="medjax", description="3D and 4D medical images in JAX")
    verbs = top.add_subparsers(dest="verb", required=True)
    shown = verbs.add_parser("demo", help="augment a real MRI as a batch and train a small 3D U-Net on it")
    shown.add_argument("--image", type=Path, help="your own volume (default: the MNI152 T1)")
    shown.add_argument("--label", type=Path, help="its labels, 0 for background")
    shown.add_argument("--out", type=Path, default=Path("demo"), help="folder of the pictures (default: demo)")
    shown.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    shown.add_argument("--steps", type=int, default=demo.STEPS, help=f"of training (default: {demo.STEPS})")
    info = verbs.add_parser("info", help="say what a file holds")
    info.add_argument("path", type=Path, nargs="+")
    cache = verbs.add_parser("cache", help="say what a cache of prepared subjects holds, compare checksums, empty it")
    cache.add_argument("what", choices=("info", "check", "clear"))
    cache.add_argument("folder", help="a path or a URL")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 after an error, which is printed."""
    asked = parser().parse_args(argv)
    try:
        if asked.verb == "info":
            for path in asked.path:
                print(describe(path))
        elif asked.verb == "cache":
            return look_after(asked.what, asked.folder)
        else:
            demo.run(asked.image, asked.label, asked.out, asked.seed, asked.steps)
    except (ImportError, OSError, ValueError) as error:
        print(f"medjax: {error}", file=sys.stderr)
        return 1
    return 0


def look_after(what: str, folder: str) -> int:
    """Do what is asked with a cache; 1 if it holds what is damaged, which is removed."""
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


def describe(path: Path) -> str:
    """What the header of a file says."""
    image = ScalarImage(path)
    spacing = " x ".join(f"{s:g}" for s in image.spacing)
    shape = " x ".join(map(str, image.shape))
    return f"{path}: {shape} {image.dtype}, {spacing} mm, {''.join(image.orientation)}"
