"""Names as small numbers: what thousands of candidates say alike is not copied for each of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int16]

MOST = 2**15


class Interned:
    """A few names and their codes, for the life of the process. Thread-safe.

    Names are those that our own code gives, never a request's: none is ever forgotten. Raises OverflowError for
    more than MOST of them.
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._names: list[str] = []
        self._door = threading.Lock()

    def code(self, name: str) -> int:
        """The code of a name, the same each time."""
        found = self._codes.get(name)
        return self._added(name) if found is None else found

    def codes(self, names: Sequence[str] | NDArray[np.str_]) -> Codes:
        """(n,) of names."""
        distinct, places = np.unique(np.asarray(names, np.str_), return_inverse=True)
        return np.array([self.code(name) for name in distinct.tolist()], np.int16)[places]

    def name(self, code: int) -> str:
        """Of a code."""
        return self._names[code]

    def names(self, codes: Codes) -> list[str]:
        """Of n codes."""
        return [self._names[code] for code in codes.tolist()]

    def _added(self, name: str) -> int:
        with self._door:
            if len(self._names) == MOST:
                raise OverflowError(f"{name!r} would be name {MOST + 1}; names are few, and not a request's")
            if name not in self._codes:
                self._names.append(name)
                self._codes[name] = len(self._names) - 1  # last: who finds a code finds its name
            return self._codes[name]
