"""Who was forgotten, as a service asks for it: read again when the file changes."""

from __future__ import annotations

import threading
from pathlib import Path

from validation.file_stamp import file_stamp
from validation.forgotten import FILE, Forgotten


class Tombstones:
    """Gives each request those of the lake at `lake`. A stat where nothing has changed. Thread-safe."""

    def __init__(self, lake: Path) -> None:
        self._lake, self._file = lake, str(lake / FILE)
        self._stamp: tuple[int, ...] = ()
        self._forgotten = Forgotten()
        self._door = threading.Lock()

    def __call__(self) -> Forgotten:
        """The tombstones of now; nobody's where there is no file. Raises ValueError for a damaged one."""
        try:
            stamp = file_stamp(self._file)
        except FileNotFoundError:
            stamp = ()
        with self._door:
            if stamp != self._stamp:
                self._forgotten, self._stamp = Forgotten.of(self._lake), stamp
            return self._forgotten
