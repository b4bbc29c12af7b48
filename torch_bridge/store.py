"""A dictionary whose items come from elsewhere: what subjects, batches and images are to code written for TorchIO.

To `isinstance` it is a dict, and `**x`, `dict(x)`, `update`, `|` and `del` do what they do there. Its own storage stays
empty, and `__iter__` is overridden, which is what makes Python ask for keys and items: whatever went past the methods
would meet a KeyError, and never what is not transformed yet. It is compared by identity, and pickles and copies its
state without looking at an item.
"""

from collections.abc import Iterator, MutableMapping
from typing import Any, Self


class Store(MutableMapping, dict):  # pyright: ignore
    """Abstract. A dict to `isinstance` alone, over `__getitem__`, `__setitem__`, `__delitem__` and `keys`."""

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # pyright: ignore

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self.keys()))

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def popitem(self) -> tuple[str, Any]:
        """Take the last item away, and give it."""
        name = next(reversed(self))
        return name, self.pop(name)

    def copy(self) -> dict[str, Any]:
        """The items in a plain dictionary."""
        return dict(self.items())

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        made = self.__copy__()
        made.update(other)
        return made

    def __ror__(self, other: Any) -> Any:
        return {**other, **self} if isinstance(other, dict) else NotImplemented

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self

    def __copy__(self) -> Self:
        raise NotImplementedError(f"{type(self).__name__} must define __copy__")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return blank, (type(self),), self.__getstate__()


def blank(cls: type) -> Any:
    """An object of a class of stores, of which nothing is set."""
    return dict.__new__(cls)
