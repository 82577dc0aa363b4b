"""Opens a service's parts in the background, so that the process answers its health check from the start."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from bentos.errors import NoRelease

T = TypeVar("T")

logger = logging.getLogger("corkboard.service")


class Opening(Generic[T]):
    """`build()` in a thread, again after `retry_s` until it succeeds; `get` gives what it built.

    A home whose lake is not there yet, or whose event log the last process is still letting go of, is opened
    as soon as it can be.
    """

    def __init__(self, build: Callable[[], T], close: Callable[[T], None], *, retry_s: float = 2.0) -> None:
        self._build, self._close, self._retry_s = build, close, retry_s
        self._opened: T | None = None
        self._why = "it is still starting"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="opening", daemon=True)

    def start(self) -> Opening[T]:
        self._thread.start()
        return self

    @property
    def opened(self) -> bool:
        return self._opened is not None

    def get(self) -> T:
        """What was built. Raises NoRelease, saying why, while there is nothing."""
        if self._opened is None:
            raise NoRelease(f"the service is not ready: {self._why}")
        return self._opened

    def close(self) -> None:
        """Stop trying, and close what was built."""
        self._stop.set()
        self._thread.join()
        if self._opened is not None:
            self._close(self._opened)
            self._opened = None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._opened = self._build()
                return
            except Exception as error:
                # Each cause names its mend, and many mend themselves (a lake being ingested, a lock let go).
                why = f"{type(error).__name__}: {error}"
                if why != self._why:
                    logger.error("the service cannot start yet: %s", why, exc_info=True)
                self._why = why
                self._stop.wait(self._retry_s)
