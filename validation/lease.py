"""Which releases running services hold, as they say themselves, so that retention leaves those alone.

A process has one file below `<home>/run/leases`, locked for as long as it lives: the kernel lets the lock go
when the process ends, however it ends. A file that nobody locks is a dead process's and counts for nothing. Its
last whole line is what the process holds, so a line torn by a crash or a full disk takes nothing away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path

_SUFFIX = ".lease"


def leases_of(home: Path) -> Path:
    """The folder of a home's leases."""
    return home / "run" / "leases"


class Lease:
    """One process's say. It ends with `close`, or with the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._held: tuple[int, ...] = ()
        self._open = True
        self._lock = threading.Lock()

    @classmethod
    def take(cls, folder: Path, service: str) -> Lease:
        """A lease that holds nothing yet. Raises OSError where the folder cannot be written."""
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            path = folder / f"{service}-{os.getpid()}-{uuid.uuid4().hex[:8]}{_SUFFIX}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():  # not swept away between being made and being locked
                return cls(path, descriptor)
            os.close(descriptor)

    def hold(self, releases: Iterable[int]) -> None:
        """From now on these release versions are held, and no others; nothing once the lease is closed. Raises
        OSError where that cannot be written, and what was held before still is."""
        held = tuple(sorted(set(releases)))
        with self._lock:
            if self._open and held != self._held:
                line = f"\n{json.dumps(held)}\n".encode()  # it ends a line that was torn before
                if os.write(self._descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                self._held = held

    def close(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            if self._open:
                self._open = False
                self.path.unlink(missing_ok=True)
                os.close(self._descriptor)


def leased(folder: Path) -> dict[int, str]:
    """Release versions that running services hold, each with a service's name. Files of the dead go."""
    held: dict[int, str] = {}
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            with path.open("rb") as file:
                lines = [line for line in file.read().split(b"\n")[:-1] if line]
                if _dead(file.fileno()):
                    path.unlink(missing_ok=True)
                    continue
        except FileNotFoundError:  # its process closed it meanwhile
            continue
        if lines:
            held |= dict.fromkeys(json.loads(lines[-1]), path.stem.rpartition("-")[0])
    return held


def _dead(descriptor: int) -> bool:
    """Whether nobody locks the file; if so this process does, until it closes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
