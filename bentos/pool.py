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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from bentos.breaker import Breaker, BreakerOpen, Breakers, is_fault
from bentos.errors import RequestError, StoreUnavailable
from bentos.metrics import metrics

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")

RAN = 0.5
"""Share of its deadline that a call must have run for its lateness to be the store's, not the line's."""

WAITS_S = 0.01
"""How often a call that runs is looked at while others stand in line."""

WAITING = 0.5
"""A call whose thread has had less than this share of a core since it began waits for something."""


class Busy(RuntimeError):
    """Earlier calls, long past their deadline, still hold their share of the threads."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """What is to be done in a thread, under which name, and how long it may take."""

    name: str
    deadline_ms: float
    work: Callable[[], T]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a call: its result, or why there is none."""

    result: T | None
    error: BaseException | None
    ms: float
    """From when the call was made."""

    def get(self) -> T:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class _Group:
    """Calls that one caller waits for: the loop is woken once, when the last has ended or is late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[None] = loop.create_future()
        self.left = 0
        self.line: deque[_Job] = deque()
        self.computes = False
        """One of its calls runs, and does not wait."""

    def next(self) -> _Job | None:
        """Its first call in line that is still waited for, out of the line."""
        while self.line:
            job = self.line.popleft()
            if job.waited:
                return job
        return None

    def one_less(self) -> None:
        self.left -= 1
        if self.left == 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.done.get_loop().call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


@dataclass(eq=False)
class _Job:
    """A call: in line, then begun, then ended. What says so changes under the pool's door alone."""

    name: str
    deadline_ms: float
    work: Callable[[], Any]
    group: _Group
    breaker: Breaker
    probe: bool | None = None
    """None until the breaker let it through."""
    result: Any = None
    error: BaseException | None = None
    waited: bool = False
    """Somebody waits for it: it is in line or running, and not late."""
    ended: bool = False
    begun: float | None = None
    """Seconds of the pool's clock."""
    began_at: float = 0.0
    """Seconds of the machine's, as `ended_at`."""
    ended_at: float = 0.0
    thread: int = 0
    cpu_s: float = 0.0
    """What its thread had used when it began."""

    def waits(self, now: float) -> bool:
        """Whether it has run for a while and mostly waited: for a store, or for its turn on a busy machine."""
        if self.begun is None or now - self.began_at < WAITS_S:
            return False
        used = time.clock_gettime(time.pthread_getcpuclockid(self.thread)) - self.cpu_s
        return used < WAITING * (now - self.began_at)

    def enter(self) -> bool:
        """Ask the breaker; False, with the error, where it is open."""
        try:
            self.probe = self.breaker.enter()
        except BreakerOpen as error:
            self.error = error
        return self.error is None

    def leave(self, ok: bool | None) -> None:
        if self.probe is not None:
            self.breaker.leave(self.probe, ok)

    def outcome(self, began: float) -> Outcome[Any]:
        return Outcome(self.result, self.error, 1000 * ((self.ended_at or time.perf_counter()) - began))


class Pool:
    """A thread pool with a breaker and a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread ends when the store answers, and another
    takes its place at once. So stores that hang cost no thread of those that do not. What they may cost in all
    is bounded: abandoned calls of one name to half of `threads`, those of all names to four times `threads`,
    past which names that hang are refused. `clock` gives seconds.

    Calls of one group run one after the other on one thread, and as many groups at once as there are cores; beside
    a call that waits for something the next one runs. Two threads of one request would only take turns at the
    interpreter lock, and each find its core's memory cold: a feed costs a sixth more CPU so, and takes longer.
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
        self._idle, self._unserved = 0, 0
        self._width = max(2, len(os.sched_getaffinity(0)))
        self._line: deque[_Group] = deque()
        """Groups with calls in line."""
        self._running: set[_Job] = set()
        """Calls that do not wait, no two of one group."""
        self._looking: asyncio.AbstractEventLoop | None = None

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises BreakerOpen or Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        (outcome,) = await self.calls([Call(name, deadline_ms, work)])
        return outcome.get()

    async def calls(self, asked: Sequence[Call[T]]) -> list[Outcome[T]]:
        """Every call's outcome, in order, once each has ended or is late; their errors are those of `call`."""
        began, loop = time.perf_counter(), asyncio.get_running_loop()
        group = _Group(loop)
        jobs = [_Job(c.name, c.deadline_ms, c.work, group, self.breakers.of(c.name)) for c in asked]
        by_deadline: dict[float, list[_Job]] = {}
        late: list[asyncio.TimerHandle] = []
        try:
            for job in self._submit([job for job in jobs if job.enter()]):
                by_deadline.setdefault(job.deadline_ms, []).append(job)
            late += [loop.call_later(ms / 1000, self._expire, some) for ms, some in by_deadline.items()]
            if by_deadline:
                await group.done
        except asyncio.CancelledError:
            self._give_up(jobs)
            raise
        finally:
            for timer in late:
                timer.cancel()
            for job in jobs:
                job.leave(self._ok(job))
        return [job.outcome(began) for job in jobs]

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

    def _submit(self, jobs: Sequence[_Job]) -> list[_Job]:
        """Jobs into the line; those that are, the others refused."""
        taken = []
        with self._door:
            for job in jobs:
                job.error = self._refusal(job.name)
                if job.error is None:
                    taken.append(job)
                    job.waited = True
                    job.group.left += 1
                    job.group.line.append(job)
            if taken:
                self._line.append(taken[0].group)
            self._send()
            if self._line:
                self._look_again()
        return taken

    def _refusal(self, name: str) -> Exception | None:
        hangs = self._abandoned[name]
        if self._closed:
            return RuntimeError("the pool is closed")
        if hangs >= self._share or (hangs and self._abandoned.total() >= self._most):
            return Busy(f"{hangs} calls of {name} past their deadline are still running")
        return None

    def _send(self) -> None:
        """Jobs in line to threads, as many as may run beside those that do."""
        while len(self._running) < self._width and (job := self._first()) is not None:
            self._queue.put(job)
            if self._idle:
                self._idle -= 1
            elif self._threads < self._target:
                self._start()
            else:
                self._unserved += 1

    def _first(self) -> _Job | None:
        """The first call in line that somebody still waits for, of a group that does not compute."""
        for group in tuple(self._line):
            if group.computes:
                continue
            job = group.next()
            if not group.line:
                self._line.remove(group)
            if job is not None:
                self._running.add(job)
                group.computes = True
                return job
        return None

    def _stops(self, job: _Job) -> None:
        """A call has ended, or waits: its group may run another."""
        if job in self._running:
            self._running.remove(job)
            job.group.computes = False

    def _look_again(self) -> None:
        """Soon, on the event loop, see which running calls only wait."""
        loop = asyncio.get_running_loop()
        if self._looking is not loop:
            self._looking = loop
            loop.call_later(WAITS_S, self._look)

    def _look(self) -> None:
        with self._door:
            self._looking = None
            now = time.perf_counter()
            for job in [job for job in self._running if job.waits(now)]:
                self._stops(job)
            self._send()
            if self._line:
                self._look_again()

    def _start(self) -> None:
        threading.Thread(target=self._run, name="store", daemon=True).start()
        self._threads += 1

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            stays = True
            while job is not None:
                stays, job = self._do(job)
            if not stays:
                return  # another thread took this one's place

    def _do(self, job: _Job) -> tuple[bool, _Job | None]:
        """Whether the thread stays, and the job it goes on with: it is awake."""
        result, error = None, None
        with self._door:
            if job.waited:
                job.begun, job.began_at = self._clock(), time.perf_counter()
                job.thread, job.cpu_s = threading.get_ident(), time.thread_time()
        if job.begun is not None:
            try:
                result = job.work()
            except BaseException as raised:
                error = raised
        with self._door:
            self._stops(job)
            if job.waited:
                job.result, job.error, job.ended, job.ended_at = result, error, True, time.perf_counter()
                job.group.one_less()
            elif job.begun is not None:
                self._abandoned[job.name] -= 1
                metrics().hanging.labels(job.name).dec()
                return False, None
            following = self._first() if len(self._running) < self._width else None
            if following is None:
                self._waits()
            return True, following

    def _waits(self) -> None:
        """A thread goes to the queue. As few as can do all the work: what each keeps for itself, a store's
        connection and the memory at hand, is then warm."""
        if self._unserved:
            self._unserved -= 1
        else:
            self._idle += 1

    def _expire(self, jobs: Sequence[_Job]) -> None:
        """Their deadline has passed: those that have not ended are late."""
        for job in self._give_up(jobs):
            job.error, job.ended_at = TimeoutError(), time.perf_counter()

    def _give_up(self, jobs: Sequence[_Job]) -> list[_Job]:
        """Wait no more for those that have not ended; which these were. A thread that hangs is replaced."""
        with self._door:
            given_up = [job for job in jobs if job.waited and not job.ended]
            for job in given_up:
                job.waited = False
                job.group.one_less()
                if job.begun is None:
                    continue
                self._stops(job)
                self._abandoned[job.name] += 1
                metrics().hanging.labels(job.name).inc()
                if not self._closed:
                    self._threads -= 1
                    self._start()
                    self._waits()
            self._send()
        return given_up

    def _ok(self, job: _Job) -> bool | None:
        """What a call says of its dependency; None: nothing either way."""
        if isinstance(job.error, TimeoutError):
            ran = job.begun is not None and self._clock() - job.begun >= RAN * job.deadline_ms / 1000
            return False if ran else None
        if job.error is not None:
            return not is_fault(job.error)
        return True if job.ended else None


def why_missing(error: BaseException) -> str:
    """How an answer names a part that failed open."""
    if isinstance(error, TimeoutError):
        return "deadline"
    if isinstance(error, RequestError):
        return error.name
    if isinstance(error, BreakerOpen):
        return "breaker open"
    return "busy" if isinstance(error, Busy) else type(error).__name__


async def needed(
    pool: Pool, name: str, deadline_ms: float, work: Callable[[], T], *, at_once: bool = False
) -> T:
    """`pool.call` for what a request cannot do without; `at_once` does it here, where it asks no store.

    Raises StoreUnavailable in place of whatever the store raises; errors of the request pass through.
    """
    try:
        return work() if at_once else await pool.call(name, deadline_ms, work)
    except RequestError:
        raise
    except Exception as error:
        # The answer names the store's trouble; the traceback is the log's, once it is not just left alone.
        logger.error(
            "%s could not be read: %r", name, error, exc_info=not isinstance(error, BreakerOpen | Busy)
        )
        raise StoreUnavailable(f"{name} could not be read: {why_missing(error)}; try again") from error
