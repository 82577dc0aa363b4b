"""A timer that one thread waits for and others put off without waking it."""

from __future__ import annotations

import math
import threading
import time


class Alarm:
    """Rings once each time it was set, after the seconds it was set to last."""

    def __init__(self) -> None:
        self._bell = threading.Condition(threading.Lock())
        self._at = math.inf
        """When it rings, by `time.perf_counter`."""
        self._wakes = -math.inf
        """When the thread that waits wakes by itself, to ring or to find that it was put off."""

    def set(self, seconds: float) -> None:
        """Ring `seconds` from now in place of what it was set to before."""
        with self._bell:
            self._at = time.perf_counter() + seconds
            if self._at < self._wakes:
                self._bell.notify()

    def wait(self) -> None:
        """Until it rings; for one thread."""
        with self._bell:
            while (left := self._at - time.perf_counter()) > 0:
                self._wakes = self._at
                self._bell.wait(None if math.isinf(left) else left)
            self._at, self._wakes = math.inf, -math.inf
