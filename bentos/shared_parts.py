"""Loaded parts that several releases in memory have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from bentos.rejected import ReleaseRejected
from validation.manifest import Part
from validation.part_files import mend_for, unlike_released

T = TypeVar("T")


class SharedParts:
    """Loads a version once for all releases that hold it, and forgets it with the last of them.

    A new release often has most of its versions from the one before: what is shared costs a swap nothing, and
    keeps what it learned while serving (vectors of queries, compiled shapes). `files` gives the folder of a
    model's version. Not thread-safe: one thread loads releases.
    """

    def __init__(self, files: Callable[[str, int], Path]) -> None:
        self._files = files
        self._held: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def of(self, part: Part, load: Callable[[Path], T]) -> T:
        """What a release in memory holds of `read`, else that."""
        return self.get((part.model, part.version, load.__qualname__), lambda: self.read(part, load))

    def folder(self, part: Part) -> Path:
        """The files of a part's version, which are those that the release was made of.

        Raises ReleaseRejected naming those that are not, what the registry raises, and OSError for what cannot
        be read. Where the manifest keeps no digests nothing is compared.
        """
        folder = self._files(part.model, part.version)
        wrong = unlike_released(part, folder)
        if wrong:
            raise ReleaseRejected(
                f"{part.name} is not what was released: {', '.join(wrong)}; {mend_for(part.model, folder)}"
            )
        return folder

    def read(self, part: Part, load: Callable[[Path], T]) -> T:
        """What `load` makes of `folder`.

        Raises ReleaseRejected for files that it cannot make out too, and what the machine raises: too little
        memory, too many open files.
        """
        folder = self.folder(part)
        try:
            return load(folder)
        except Exception as error:
            if _of_the_machine(error):
                raise
            # Each format has errors of its own, and damaged files do not mend themselves.
            raise ReleaseRejected(
                f"{part.name} cannot be read: {error!r}; {mend_for(part.model, folder)}"
            ) from error

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """What a release in memory holds under `key`, else what `load` makes."""
        held: T | None = self._held.get(key)
        if held is None:
            held = self._held[key] = load()
        return held


def _of_the_machine(error: Exception) -> bool:
    """Whether the next attempt may do: the files are there, and may be whole."""
    asked = isinstance(error, OSError) and error.errno is not None  # formats raise OSErrors without a number
    return isinstance(error, MemoryError) or (asked and not isinstance(error, FileNotFoundError))
