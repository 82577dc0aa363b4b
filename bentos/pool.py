"""Blocking work off the event loop, under deadlines, and never more of one kind than its share of threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Busy(RuntimeError):
    """Earlier calls of this name still hold their share of the threads."""


class Pool:
    """A thread pool with a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread comes back when the store answers. So that
    one store that hangs cannot take every thread, calls of one `name` hold at most half of them.
    """

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._share = max(1, threads // 2)
        self._held: Counter[str] = Counter()
        self._door = threading.Lock()

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        with self._door:
            if self._held[name] >= self._share:
                raise Busy(f"{self._share} calls of {name} are still running")
            self._held[name] += 1
        future = self._executor.submit(work)
        future.add_done_callback(lambda done: self._release(name, done))
        return await asyncio.wait_for(asyncio.wrap_future(future), deadline_ms / 1000)

    def close(self) -> None:
        """Take no more work; running calls end on their own."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _release(self, name: str, _: Future[object]) -> None:
        with self._door:
            self._held[name] -= 1


def why_missing(error: BaseException) -> str:
    """How an answer names a part that failed open."""
    if isinstance(error, TimeoutError):
        return "deadline"
    return "busy" if isinstance(error, Busy) else type(error).__name__
