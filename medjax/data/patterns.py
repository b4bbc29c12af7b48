"""Paths with names in braces, `sub-{id}_{modality}.nii.gz`: found in a folder, and filled in again."""

import os
import re
import string
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from medjax.errors import near, shown


class Found(NamedTuple):
    """A path that fits a pattern, and what stands in it for each name."""

    path: Path
    fields: dict[str, str]


def parts_of(pattern: str) -> list[tuple[str, str | None]]:
    """The texts of a pattern, each with the name in braces behind it, None at the end.

    Raises ValueError for braces that hold no plain name: nothing is looked up, called or formatted.
    """
    try:
        found = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"pattern={pattern!r}: {error}") from None
    for _, name, spec, conversion in found:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise ValueError(f"pattern={pattern!r}: in braces stands a name, as in {{id}}, got {shown(name)}")
    return [(text, name) for text, name, _, _ in found]


def names_in(pattern: str) -> list[str]:
    """The names in braces, in order."""
    return list(dict.fromkeys(name for _, name in parts_of(pattern) if name is not None))


def divided(pattern: str) -> tuple[Path, str]:
    """The folder that a pattern begins with, in which nothing is left open, and the pattern inside of it."""
    parts = PurePosixPath(Path(pattern).expanduser().as_posix()).parts
    fixed = 0
    while fixed < len(parts) - 1 and not re.search(r"[{}*?]", parts[fixed]):
        fixed += 1
    return Path(*parts[:fixed]), "/".join(parts[fixed:])


def find(pattern: str | os.PathLike) -> list[Found]:
    """All paths that fit, in the order of their names.

    A name takes as much as it can, from left to right, and no `/`: in `{id}_{modality}` the last one is what stands
    behind the last `_`. Twice the same name is twice the same text. `*`, `?` and `**` are as in a shell; what is hidden
    is passed over.
    Raises FileNotFoundError if nothing fits.
    """
    folder, inside = divided(os.fspath(pattern))
    regex, globbed = expressions(inside)
    hidden = "/." in f"/{inside}"
    found = []
    for path in folder.glob(globbed):
        relative = path.relative_to(folder)
        match = regex.fullmatch(relative.as_posix())
        if match and (hidden or not any(part.startswith(".") for part in relative.parts)):
            found.append(Found(path, match.groupdict()))
    if not found:
        raise FileNotFoundError(f"nothing in {folder} fits {inside!r}")
    return sorted(found)


def expressions(pattern: str) -> tuple[re.Pattern[str], str]:
    """The regular expression of a pattern, and one for `Path.glob` that finds all that fits it, and more."""
    regex, globbed, seen = [], [], set()
    for component in pattern.split("/"):
        if component == "**":
            regex.append("(?:.+/)?")
            globbed.append(component)
            continue
        one, wild = "", ""
        for text, name in parts_of(component):
            one += re.escape(text).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
            wild += text.replace("[", "[[]")
            if name is not None:
                one += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
                wild += "*"
                seen.add(name)
        regex.append(one + "/")
        globbed.append(re.sub(r"\*+", "*", wild))
    return re.compile("".join(regex).removesuffix("/")), "/".join(globbed)


def filled(pattern: str, values: Mapping[str, object]) -> PurePosixPath:
    """The path that a pattern becomes: relative, and inside of the folder that it will be joined to.

    Raises ValueError for a name without a value, and for a value, or a pattern, that would lead elsewhere.
    """
    path = ""
    for text, name in parts_of(pattern):
        path += text
        if name is None:
            continue
        if name not in values:
            known = ", ".join(values)
            raise ValueError(f"names={pattern!r}: there is no {name!r}; there is {known}.{near(name, values)}")
        value = str(values[name])
        if not value or value.startswith(".") or re.search(r"[/\\\0]", value):
            raise ValueError(f"names={pattern!r}: {name}={value!r} cannot stand in the name of a file")
        path += value
    made = PurePosixPath(path)
    if made.is_absolute() or ".." in made.parts or not made.name:
        raise ValueError(f"names={pattern!r} must be relative paths of files, without '..'")
    return made
