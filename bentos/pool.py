"""Blocking work off the event loop: under deadlines, behind breakers, on threads that no dead call keeps."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bentos.breaker import BreakerOpen, Breakers, is_fault
from bentos.errors import RequestError, StoreUnavailable
from bentos.metrics import metrics

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")

RAN = 0.5
"""Share of its deadline that a call must have run for its lateness to be the store's, not the line's."""


class Busy(RuntimeError):
    """Earlier calls, long past their deadline, still hold their share of the threads."""


@dataclass(eq=False)
class _Job:
    work: Callable[[], Any]
    future: Future[Any] = field(default_factory=Future)
    started: float | None = None
    abandoned: bool = False


class Pool:
    """A thread pool with a breaker and a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread ends when the store answers, and another
    takes its place at once. So stores that hang cost no thread of those that do not. What they may cost in all
    is bounded: abandoned calls of one name to half of `threads`, those of all names to four times `threads`,
    past which names that hang are refused. `clock` gives seconds.
    """

    def __init__(
        self, threads: int, breakers: Breakers | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.breakers = breakers or Breakers()
        self._clock = clock
        self._share, self._most = max(1, threads // 2), 4 * threads
        self._abandoned: Counter[str] = Counter()
        self._door = threading.Lock()
        self._closed = False
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads, self._target = 0, threads

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises BreakerOpen or Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        breaker = self.breakers.of(name)
        probe, ok = breaker.enter(), None
        try:
            job = self._submit(name, work)
            try:
                result: T = await asyncio.wait_for(asyncio.wrap_future(job.future), deadline_ms / 1000)
            except (TimeoutError, asyncio.CancelledError) as error:
                self._abandon(name, job)
                if not isinstance(error, asyncio.CancelledError):
                    ok = False if self._ran(job, deadline_ms) else None
                raise
            ok = True
            return result
        except Exception as error:
            if ok is None and not isinstance(error, TimeoutError):
                ok = not is_fault(error)
            raise
        finally:
            breaker.leave(probe, ok)

    def hanging(self) -> dict[str, int]:
        """Calls past their deadline that still run, by name."""
        with self._door:
            return {name: count for name, count in self._abandoned.items() if count}

    def close(self) -> None:
        """Take no more work; running calls end on their own."""
        with self._door:
            self._closed = True
            for _ in range(self._threads):
                self._queue.put(None)

    def _submit(self, name: str, work: Callable[[], Any]) -> _Job:
        job = _Job(work)
        with self._door:
            if self._closed:
                raise RuntimeError("the pool is closed")
            hangs = self._abandoned[name]
            if hangs >= self._share or (hangs and self._abandoned.total() >= self._most):
                raise Busy(f"{hangs} calls of {name} past their deadline are still running")
            self._queue.put(job)
            if self._threads < self._target:
                self._start()
        return job

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name="store", daemon=True).start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.future.set_running_or_notify_cancel():
                job.started = self._clock()
                try:
                    result = job.work()
                except BaseException as error:
                    job.future.set_exception(error)
                else:
                    job.future.set_result(result)
                with self._door:
                    if job.abandoned:
                        return  # another thread took this one's place
            del job  # an idle thread must not keep the last call's feed alive

    def _abandon(self, name: str, job: _Job) -> None:
        with self._door:
            if job.future.cancel() or job.future.done():
                return
            job.abandoned = True
            self._abandoned[name] += 1
            metrics().hanging.labels(name).inc()
            if not self._closed:
                self._threads -= 1
                self._start()
        job.future.add_done_callback(lambda _: self._came_back(name))

    def _came_back(self, name: str) -> None:
        with self._door:
            self._abandoned[name] -= 1
        metrics().hanging.labels(name).dec()

    def _ran(self, job: _Job, deadline_ms: float) -> bool:
        """Whether a late call is late by its own running."""
        return job.started is not None and self._clock() - job.started >= RAN * deadline_ms / 1000


def why_missing(error: BaseException) -> str:
    """How an answer names a part that failed open."""
    if isinstance(error, TimeoutError):
        return "deadline"
    if isinstance(error, RequestError):
        return error.name
    if isinstance(error, BreakerOpen):
        return "breaker open"
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
        # The answer names the store's trouble; the traceback is the log's, once it is not just left alone.
        logger.error(
            "%s could not be read: %r", name, error, exc_info=not isinstance(error, BreakerOpen | Busy)
        )
        raise StoreUnavailable(f"{name} could not be read: {why_missing(error)}; try again") from error
