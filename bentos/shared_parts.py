"""Loaded parts that several releases in memory have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from validation.manifest import Part

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
        """What `load` makes of the files of a part's version. Raises what the registry and `load` raise."""
        key = (part.model, part.version, load.__qualname__)
        return self.get(key, lambda: load(self._files(part.model, part.version)))

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """What a release in memory holds under `key`, else what `load` makes."""
        held: T | None = self._held.get(key)
        if held is None:
            held = self._held[key] = load()
        return held
