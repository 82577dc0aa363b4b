"""The release that is not fit to serve, and for how long it is left alone."""

from __future__ import annotations

import time

AGAIN_S = 300.0
"""A rejected release is loaded again after that: what it lacked may have been a store that was down."""


class ReleaseRejected(RuntimeError):
    """A release cannot be loaded, or failed its check; the one before it goes on serving."""


class Rejected:
    """Remembers one version, for AGAIN_S."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._since = 0.0

    @property
    def version(self) -> int | None:
        """The release to leave alone; None where there is none, or where it is time to try it again."""
        return self._version if time.monotonic() < self._since + AGAIN_S else None

    def put(self, version: int | None) -> None:
        """`version` was tried and is not fit; None: nothing is to be left alone."""
        self._version, self._since = version, time.monotonic()
