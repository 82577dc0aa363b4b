"""Trouble that is met again at every look, and is worth one line when it comes, changes and ends."""

from __future__ import annotations

import logging


class Trouble:
    """`what` goes wrong, as a log's sentence: "the alias cannot be read". Not thread-safe."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger, self._what = logger, what
        self._said: str | None = None

    def met(self, error: Exception) -> None:
        """It was met at this look: with its traceback the first time, in a line where it is another, else
        not said."""
        said, before = repr(error), self._said
        if said != before:
            self._logger.error("%s: %s", self._what, said, exc_info=error if before is None else None)
        self._said = said

    def over(self) -> None:
        """It was not met at this look."""
        if self._said is not None:
            self._logger.warning("%s: no longer", self._what)
        self._said = None
