"""Blocking work off the event loop, under deadlines, and never more of one kind than its share of threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bentos.errors import RequestError, StoreUnavailable

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")


class Busy(RuntimeError):
    """Earlier calls of this name, long past their deadline, still hold their share of the threads."""


class Pool:
    """A thread pool with a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread comes back when the store answers. So that
    one store that hangs cannot take every thread, abandoned calls of one `name` hold at most half of them.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._share = max(1, threads // 2)
        self._abandoned: Counter[str] = Counter()
        self._door = threading.Lock()

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        with self._door:
            if self._abandoned[name] >= self._share:
                raise Busy(f"{self._share} calls of {name} past their deadline are still running")
        future = self._executor.submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), deadline_ms / 1000)
        except TimeoutError:
            if future.running():
                with self._door:
                    self._abandoned[name] += 1
                future.add_done_callback(lambda _: self._came_back(name))
            raise

    def close(self) -> None:
        """Take no more work; running calls end on their own."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _came_back(self, name: str) -> None:
        with self._door:
            self._abandoned[name] -= 1


def why_missing(error: BaseException) -> str:
    """How an answer names a part that failed open."""
    if isinstance(error, TimeoutError):
        return "deadline"
    if isinstance(error, RequestError):
        return error.name
    return "busy" if isinstance(error, Busy) else type(error).__name__


async def needed(pool: Pool, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
    """`pool.call` for what a request cannot do without.

    Raises StoreUnavailable in place of whatever the store raises; errors of the request pass through.
    """
    try:
        return await pool.call(name, deadline_ms, work)
    except RequestError:
        raise
    except Exception as error:
        # The answer names the store's trouble; the traceback is the log's.
        logger.error("%s could not be read: %r", name, error, exc_info=True)
        raise StoreUnavailable(f"{name} could not be read: {why_missing(error)}; try again") from error
