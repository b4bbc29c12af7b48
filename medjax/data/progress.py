"""A progress bar with the time that is left, by rich; nothing where that is not installed, or nobody would see it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(what: str, total: int, wanted: bool) -> Iterator[Callable[[], None]]:
    """What is called after each of `total` steps."""
    bar = bar_on_terminal() if wanted else None
    if bar is None:
        yield lambda: None
        return
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def bar_on_terminal():
    """rich's bar on the terminal that errors go to, or None."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console) if console.is_terminal else None
