"""A side log that a share of requests is written to, for training or for checks; never in the way of an answer.

Records are made on a thread of their own, behind the answer. A log that is slow, full or closed costs its
records.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor

from bentos.digests import digest_of
from bentos.event_log import LogClosed, RecordLog
from bentos.feed import Feed

logger = logging.getLogger("corkboard.sampled")

WAITING = 64
"""Requests whose records may wait to be made; those that come then are left out of the sample."""


class SampledLog(ABC):
    """Writes the sample to a log of its own."""

    def __init__(self, log: RecordLog, share: float, draw: int) -> None:
        """`share` of requests, drawn by the request's seed; another `draw` draws others."""
        self._log, self._share, self._draw = log, share, draw
        self._behind = ThreadPoolExecutor(1, f"{log.stream}-log")
        self._waiting = threading.BoundedSemaphore(WAITING)

    @abstractmethod
    def _fits(self, feed: Feed) -> bool:
        """Whether the log is of such answers at all."""

    @abstractmethod
    def _lines(self, feed: Feed) -> tuple[tuple[int, ...], tuple[bytes, ...]]:
        """What is written of an answer: event ids, and a line each."""

    def record(self, feed: Feed) -> None:
        """Log the finished answer to somebody, if it is of the sample. The feed must not change any more."""
        if not (feed.user_id and self._fits(feed) and drawn(feed, self._share, self._draw)):
            return
        if not self._waiting.acquire(blocking=False):
            self._lost(feed, f"{WAITING} wait")
            return
        try:
            self._behind.submit(self._write, feed).add_done_callback(self._report)
        except RuntimeError:
            # The service is closing; the answer is worth more than its place in the sample.
            self._waiting.release()
            self._lost(feed, "the log is closed")

    def _write(self, feed: Feed) -> None:
        try:
            event_ids, lines = self._lines(feed)
            if lines:
                self._log.append_lines(event_ids, lines).add_done_callback(self._report)
        finally:
            self._waiting.release()

    def _lost(self, feed: Feed, why: str) -> None:
        logger.warning("%s of request %d are not logged: %s", self._log.stream, feed.request_id, why)

    def _report(self, done: Future) -> None:
        error = done.exception()
        if isinstance(error, LogClosed):
            logger.error("the %s of a request are lost: %s", self._log.stream, error)
        elif error is not None:
            logger.error("the %s of a request are lost: %r", self._log.stream, error)

    def close(self) -> None:
        """Write what waits, then release the log. Safe to call twice."""
        self._behind.shutdown()
        self._log.close()


def drawn(feed: Feed, share: float, draw: int) -> bool:
    """Whether a request is of a sample that holds this share of them; the same answer for the same request."""
    return digest_of(b"%d:%d" % (draw, feed.seed)) < share * 2**64
