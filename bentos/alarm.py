"""A timer that one thread waits for and others put off without waking it (Linux, timerfd_create(2))."""

from __future__ import annotations

import ctypes
import os

_LIBC = ctypes.PyDLL(None, use_errno=True)
"""None of its calls here blocks: the interpreter's lock is kept through them."""
_MONOTONIC = 1
_NS = 1_000_000_000


class _Timer(ctypes.Structure):
    """`struct itimerspec`: how often it rings, and when next."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "after_s", "after_ns"))


class Alarm:
    """Rings once each time it was set, after the seconds it was set to last."""

    def __init__(self) -> None:
        """Raises OSError where the process may open no more files."""
        self._file = _LIBC.timerfd_create(_MONOTONIC, os.O_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "no timer can be made")

    def set(self, seconds: float) -> None:
        """Ring `seconds` from now, above 0, in place of what it was set to before."""
        whole, rest = divmod(max(1, int(seconds * _NS)), _NS)
        _LIBC.timerfd_settime(self._file, 0, ctypes.byref(_Timer(0, 0, whole, rest)), None)

    def wait(self) -> None:
        """Until it rings; for one thread."""
        os.read(self._file, 8)

    def close(self) -> None:
        """For the thread that waits, once it does not any more."""
        os.close(self._file)
