"""A pipeline as text: the tree as it was built, and in the margin which of its members are read together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from medjax.transforms.program import flatten, is_group, runs_of

if TYPE_CHECKING:  # a transform prints itself by this
    from medjax.transforms.transform import Transform


class Line(NamedTuple):
    """A line of a tree: its text, and the number of the step that it begins, if it is a step."""

    text: str
    step: int | None


def tree(t: "Transform") -> str:
    """A pipeline as a tree, `┌`, `│` and `└` around the members that become one gather.

    >>> print(mj.Compose([mj.Flip(1), mj.Pad(2), mj.Gamma(2.0)]))
    Compose[
      ┌ Flip(axes=(1,)),
      └ Pad(padding=(2, 2, 2, 2, 2, 2)),  one gather
        Gamma(gamma=2.0),
    ]
    """
    lines = list(lines_of(t, "", iter(range(len(flatten(t))))))
    where = {line.step: number for number, line in enumerate(lines) if line.step is not None}
    margin, ends = [" "] * len(lines), set()
    for run in runs_of(flatten(t)):
        first, last = where[run[0]], where[run[-1]]
        if first < last:
            margin[first : last + 1] = ["┌", *"│" * (last - first - 1), "└"]
            ends.add(last)
    inner = [
        f"  {mark} {line.text[2:]}" + "  one gather" * (number in ends)
        for number, (mark, line) in enumerate(zip(margin, lines, strict=True))
    ]
    return "\n".join([lines[0].text, *inner[1:-1], lines[-1].text.rstrip(",")])


def lines_of(t: "Transform", name: str, numbers: Iterator[int], indent: str = "") -> Iterator[Line]:
    """The lines of a transform, which is called `name` where it stands."""
    label = f"{indent}{name}: " if name else indent
    if not is_group(t):
        yield Line(f"{label}{t!r},", next(numbers))
        return
    told = t.changed()
    names = told.pop("names", None) or [""] * len(t.members)
    own = ", ".join(f"{n}={value!r}" for n, value in told.items() if not holds(value, t.members))
    yield Line(label + type(t).__name__ + (f"({own})" if own else "") + "[", None)
    for called, member in zip(names, t.members, strict=True):
        yield from lines_of(member, called, numbers, indent + "  ")
    yield Line(f"{indent}],", None)


def holds(value: Any, members: tuple[Any, ...]) -> bool:
    """Whether an argument is a member, or all of them, which have lines of their own."""
    return any(value is member for member in (members, *members))
