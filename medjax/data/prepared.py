"""The subjects of a data set as the head of its pipeline leaves them, from a cache wherever that is possible."""

import warnings
from collections.abc import Callable

from medjax.data import entry, keyed
from medjax.data.cache import Cache
from medjax.data.head import divided
from medjax.subject import Subject
from medjax.transforms.transform import Transform


def prepared_by(cache: Cache, transform: Transform | None, door: str) -> "tuple[Prepared, Transform | None]":
    """Who prepares the subjects of a data set, and what is left to do to them.

    door: who reads and computes; see `keyed.key_of`. A warning says what ends the head early, if anything does.
    """
    head, rest, told, why = divided(transform)
    if why is not None:
        warnings.warn(f"what the cache keeps ends before a step that may change unseen: {why}", stacklevel=4)
    return Prepared(cache, head, told, door), rest


class Prepared:
    """What a data set does once, `head`, and where the results are kept."""

    def __init__(self, cache: Cache, head: Transform, told: list, door: str):
        self.cache, self.head, self._told, self._door, self._warned = cache, head, told, door, False

    @property
    def only_reads(self) -> bool:
        """Whether nothing is done but reading."""
        return not self._told

    def get(self, given: Subject, make: Callable[[], Subject]) -> Subject:
        """What becomes of a subject, which is not read yet; `make` does it if it is not in the cache.

        What cannot be kept is made each time, which is said once.
        """
        try:
            key = keyed.key_of(given, self._told, dtype=self.cache.dtype, door=self._door)
            found = self.cache.get(key)
        except (keyed.Unkeyed, OSError) as error:
            self._warn(error)
            return make()
        if found is None:
            made = make()
            try:
                self.cache.put(key, made, given)
                found = self.cache.get(key)  # so that the first epoch gets what the others get
            except (TypeError, ValueError, OSError) as error:
                self._warn(error)
                return made
            if found is None:
                return made
        return entry.restored(found, given, self.only_reads)

    def _warn(self, error: Exception) -> None:
        """Say, once, that something is not kept."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"not everything is kept in the cache {self.cache.folder}: {error}", stacklevel=4)
