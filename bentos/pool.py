"""Blocking work off the event loop: under deadlines, behind breakers, on threads that no dead call keeps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bentos.breaker import BreakerOpen, Breakers, is_fault
from bentos.errors import RequestError, StoreUnavailable
from bentos.metrics import metrics

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")

RAN = 0.5
"""Share of its deadline that a call must have run for its lateness to be the store's, not the line's."""

WAITS_S = 0.005
"""A call that has run so long counts as one that waits, and another runs beside it."""


class Busy(RuntimeError):
    """Earlier calls, long past their deadline, still hold their share of the threads."""


@dataclass(eq=False)
class _Job:
    """A call: in line, then begun, then ended. What says so changes under the pool's door alone."""

    name: str
    work: Callable[[], Any]
    answer: asyncio.Future[Any]
    begun: float | None = None
    """Seconds of the pool's clock."""
    began_at: float = 0.0
    """Seconds of the machine's."""
    ended: bool = False
    dropped: bool = False
    abandoned: bool = False

    def run(self) -> None:
        try:
            result = self.work()
        except BaseException as error:
            self._tell(self._fail, error)
        else:
            self._tell(self._settle, result)

    def expire(self) -> None:
        self._fail(TimeoutError())

    def _tell(self, way: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.answer.get_loop().call_soon_threadsafe(way, what)

    def _settle(self, result: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Pool:
    """A thread pool with a breaker and a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread ends when the store answers, and another
    takes its place at once. So stores that hang cost no thread of those that do not. What they may cost in all
    is bounded: abandoned calls of one name to half of `threads`, those of all names to four times `threads`,
    past which names that hang are refused. `clock` gives seconds.

    As many calls run at once as there are cores, and those that wait for something beside them: more would only
    take turns at the interpreter lock, and waking a thread costs more than many a call.
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
        self._width = max(2, len(os.sched_getaffinity(0)))
        self._line: deque[_Job] = deque()
        self._running: set[_Job] = set()
        self._looking: asyncio.AbstractEventLoop | None = None

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises BreakerOpen or Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        breaker = self.breakers.of(name)
        probe, ok = breaker.enter(), None
        try:
            loop = asyncio.get_running_loop()
            job = _Job(name, work, loop.create_future())
            self._submit(job)
            late = loop.call_later(deadline_ms / 1000, job.expire)
            try:
                result: T = await job.answer
            except (TimeoutError, asyncio.CancelledError) as error:
                self._abandon(job)
                if not isinstance(error, asyncio.CancelledError):
                    ok = False if self._ran(job, deadline_ms) else None
                raise
            finally:
                late.cancel()
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

    def _submit(self, job: _Job) -> None:
        with self._door:
            if self._closed:
                raise RuntimeError("the pool is closed")
            hangs = self._abandoned[job.name]
            if hangs >= self._share or (hangs and self._abandoned.total() >= self._most):
                raise Busy(f"{hangs} calls of {job.name} past their deadline are still running")
            self._line.append(job)
            self._send()
            if self._line:
                self._look_again()

    def _send(self) -> None:
        """Jobs in line to threads, as many as may run beside those that do."""
        while len(self._running) < self._width and (job := self._first()) is not None:
            self._queue.put(job)
            if self._threads < self._target:
                self._start()

    def _first(self) -> _Job | None:
        """The first job in line that somebody still waits for."""
        while self._line:
            job = self._line.popleft()
            if not job.dropped:
                self._running.add(job)
                return job
        return None

    def _look_again(self) -> None:
        """Soon, on the event loop, see which running calls only wait."""
        loop = asyncio.get_running_loop()
        if self._looking is not loop:
            self._looking = loop
            loop.call_later(WAITS_S, self._look)

    def _look(self) -> None:
        with self._door:
            self._looking = None
            long_ago = time.monotonic() - WAITS_S
            self._running -= {
                job for job in self._running if job.begun is not None and job.began_at <= long_ago
            }
            self._send()
            if self._line:
                self._look_again()

    def _start(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name="store", daemon=True).start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            while job is not None:
                if self._begin(job):
                    job.run()
                stays, job = self._end(job)
                if not stays:
                    return  # another thread took this one's place

    def _begin(self, job: _Job) -> bool:
        with self._door:
            if not job.dropped:
                job.begun, job.began_at = self._clock(), time.monotonic()
            return not job.dropped

    def _end(self, job: _Job) -> tuple[bool, _Job | None]:
        """Whether the thread stays, and the job it goes on with: it is awake."""
        with self._door:
            job.ended = True
            self._running.discard(job)
            if job.abandoned:
                self._abandoned[job.name] -= 1
                metrics().hanging.labels(job.name).dec()
                return False, None
            return True, self._first() if len(self._running) < self._width else None

    def _abandon(self, job: _Job) -> None:
        with self._door:
            if job.begun is None:
                job.dropped = True
            if job.begun is None or job.ended:
                return
            job.abandoned = True
            self._running.discard(job)
            self._abandoned[job.name] += 1
            metrics().hanging.labels(job.name).inc()
            if not self._closed:
                self._threads -= 1
                self._start()
            self._send()

    def _ran(self, job: _Job, deadline_ms: float) -> bool:
        """Whether a late call is late by its own running."""
        return job.begun is not None and self._clock() - job.begun >= RAN * deadline_ms / 1000


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
