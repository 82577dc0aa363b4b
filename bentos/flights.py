"""Groups of calls that somebody waits for, looked at so often that a deadline is kept."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bentos.calls import LOOKS_S, Group, Job

logger = logging.getLogger("corkboard.pool")


class Flights:
    """What is in the air. All but the look itself is for who holds `door`.

    Threads that come by look; where none does for LOOKS_S, as when all of them hang, one that is kept for it
    does. It sleeps while nothing flies: to wake takes the interpreter from the call that runs.
    """

    def __init__(self, door: threading.Lock, look: Callable[[], None]) -> None:
        self.groups: set[Group] = set()
        self.looked = 0.0
        """When somebody looked last, seconds of the machine's."""
        self._door, self._look = door, look
        self._bell = threading.Condition(door)
        self._closed = False
        self._watched, self._rests = False, False
        """Whether there is the thread that is kept for it, and whether it waits for a flight."""

    def add(self, group: Group) -> None:
        """Somebody waits for the group from now on."""
        self.groups.add(group)
        if self._rests:
            self._rests, self.looked = False, time.perf_counter()  # there was nothing to see
            self._bell.notify()
        elif not self._watched:
            try:
                threading.Thread(target=self._look_on, name="looks", daemon=True).start()
                self._watched = True
            except RuntimeError as error:
                logger.error("no deadline is kept until a thread can be started: %s", error)

    def late(self, now: float) -> list[Job]:
        """Calls past their deadline that are waited for."""
        return [job for group in self.groups for job in group.jobs if job.is_late(now)]

    def close(self) -> None:
        """Look no more once the last has landed."""
        self._closed = True
        self._bell.notify()

    def _look_on(self) -> None:
        while True:
            with self._door:
                while not self.groups:
                    if self._closed:
                        self._watched = False
                        return
                    self._rests = True
                    self._bell.wait()
                left = self.looked + LOOKS_S - time.perf_counter()
            if left > 0:
                time.sleep(left)
                continue
            try:
                self._look()
            except Exception:
                # The next look may do: without any, no deadline is kept.
                logger.exception("what is late was not seen this time")
