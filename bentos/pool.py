"""Blocking work off the event loop: under deadlines, behind breakers, on threads that no dead call keeps."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from bentos.breaker import Breakers, is_fault
from bentos.calls import WAITS_S, Call, Group, Job, Outcome
from bentos.drive import Drive, tell_loop, tell_nobody
from bentos.flights import Flights
from bentos.metrics import metrics

T = TypeVar("T")

logger = logging.getLogger("corkboard.pool")

RAN = 0.5
"""Share of its deadline that a call must have run for its lateness to be the store's, not the line's."""


class Busy(RuntimeError):
    """Earlier calls, long past their deadline, still hold their share of the threads."""


class Pool:
    """A thread pool with a breaker and a bulkhead a name.

    A call past its deadline is abandoned, not stopped: its thread ends when the store answers, and another
    takes its place at once. So stores that hang cost no thread of those that do not. What they may cost in all
    is bounded: abandoned calls of one name to half of `threads`, those of all names to four times `threads`,
    past which names that hang are refused. `clock` gives seconds.

    Calls of one group run one after the other on one thread, and `width` groups at once, as many as there are
    cores if left out; beside a call that waits for something the next one runs. Two threads of one request
    would only take turns at the interpreter lock, and each find its core's memory cold: that costs a feed a
    sixth more CPU, and time.
    """

    def __init__(
        self,
        threads: int,
        breakers: Breakers | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        width: int | None = None,
    ) -> None:
        self.breakers = breakers or Breakers()
        self._clock = clock
        self._share, self._most = max(1, threads // 2), 4 * threads
        self._abandoned: Counter[str] = Counter()
        self._door = threading.Lock()
        self._closed = False
        self._threads, self._target = 0, threads
        self._idle: list[queue.SimpleQueue[Job | None]] = []
        """Where threads wait that have nothing to do, the last to stop last."""
        self._width = width or max(2, len(os.sched_getaffinity(0)))
        self._line: deque[Group] = deque()
        """Groups with calls in line, those of coroutines that have begun first."""
        self._arrivals: deque[Group] = deque()
        """Coroutines that have not begun."""
        self._running: set[Job] = set()
        """Calls that do not wait, no two of one group."""
        self._flights = Flights(self._door, lambda: self._look())
        self._here = threading.local()
        self._starved = False
        """No thread could be started the last time; it is said once."""

    async def call(self, name: str, deadline_ms: float, work: Callable[[], T]) -> T:
        """`work()` in a thread.

        Raises BreakerOpen or Busy at once, TimeoutError after `deadline_ms`, or what `work` raises.
        """
        (outcome,) = await self.calls([Call(name, deadline_ms, work)])
        try:
            return outcome.get()
        finally:
            del outcome  # the error's traceback leads here, and from here to the error

    async def calls(self, asked: Sequence[Call[T]]) -> list[Outcome[T]]:
        """Every call's outcome, in order, once each has ended or is late; their errors are those of `call`.
        A deadline is kept to within .1 s."""
        began = time.perf_counter()
        drive, group = self._driven, Group()
        group.jobs = [Job(c.name, c.deadline_ms, c.work, group, self.breakers.of(c.name)) for c in asked]
        entered = [job for job in group.jobs if job.enter()]
        try:
            if entered:
                await (group if drive else self._waited_for(group))
        except asyncio.CancelledError:
            self._give_up(entered)
            raise
        finally:
            for job in group.jobs:
                job.leave(self._ok(job))
            jobs, group.jobs = group.jobs, []  # no ring: what they hold goes with them, without the collector
        return [job.outcome(began) for job in jobs]

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, run on a thread of the pool as far as its calls: they run there too, and the
        thread goes on with it. The event loop sleeps meanwhile: to be woken for each call costs more than many
        a call. Whatever else `work` awaits, it must not: there is no event loop under it.

        Begun is finished before the next begins; a call past its deadline is left to its thread, and another
        goes on with `work`. What is driven already waits here for its turn, as one that comes anew does.
        """
        if self._driven:
            await Group(turn=True)
            return await work
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        drive = Drive(work, partial(tell_loop, done))
        with self._door:
            self._opens(drive)
            self._next_step(drive, self._arrivals.append)
            self._send()
        try:
            return await done
        except asyncio.CancelledError:
            drive.given_up = True
            raise
        finally:
            del done, drive  # an error's traceback leads here, and from here to the error

    def begin(
        self, work: Coroutine[Any, Any, T], tell: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Drive `work` without an event loop: here up to what it first waits for, then as `drive` does. Its
        result or error is told to `tell`, on whatever thread it ends.

        Raises RuntimeError where the pool is closed.
        """
        drive = Drive(work, tell)
        with self._door:
            self._opens(drive)
        self._step(drive)
        with self._door:
            self._send()

    def hanging(self) -> dict[str, int]:
        """Calls past their deadline that still run, by name."""
        with self._door:
            return {name: count for name, count in self._abandoned.items() if count}

    def close(self) -> None:
        """Take no more calls; those that run, and coroutines that have begun, end on their own."""
        with self._door:
            self._closed = True
            self._threads -= len(self._idle)
            while self._idle:
                self._idle.pop().put(None)
            self._flights.close()

    @property
    def _driven(self) -> Drive[Any] | None:
        """The coroutine that this thread runs."""
        return getattr(self._here, "drive", None)

    async def _waited_for(self, group: Group) -> None:
        """Make the group's calls, and wait on the event loop."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group.wake = partial(tell_loop, done, None, None)
        with self._door:
            taken = self._take(group, self._line.append)
            self._send()
        if taken:
            await done

    def _opens(self, drive: Drive[Any]) -> None:
        if self._closed:
            drive.work.close()
            raise RuntimeError("the pool is closed")
        self._flights.add(drive.steps)

    def _next_step(self, drive: Drive[Any], join: Callable[[Group], None]) -> None:
        step = Job("drive", 0.0, partial(self._step, drive), drive.steps, waited=True)
        drive.steps.line.append(step)
        drive.steps.left += 1
        join(drive.steps)

    def _step(self, drive: Drive[Any]) -> None:
        """Go on with a coroutine until it waits for calls; they are then first in line, and so is the next step
        once they have ended."""
        self._here.drive = drive
        try:
            while True:
                group = drive.go_on()
                group.wake = partial(self._next_step, drive, self._line.appendleft)
                with self._door:
                    if group.turn:
                        return self._next_step(drive, self._arrivals.append)
                    if self._take(group, self._line.appendleft):
                        return
        except StopIteration as end:
            self._lands(drive, end.value, None)
        except BaseException as error:
            self._lands(drive, None, error)
        finally:
            self._here.drive = None

    def _lands(self, drive: Drive[Any], result: Any, error: BaseException | None) -> None:
        with self._door:
            self._flights.groups.discard(drive.steps)
        tell, drive.tell = drive.tell, tell_nobody  # an error's traceback leads to the drive
        tell(result, error)

    def _take(self, group: Group, join: Callable[[Group], None]) -> bool:
        """The calls that a breaker let through into the line; whether there are any."""
        now = time.perf_counter()
        for job in group.jobs:
            job.error = job.error or self._refusal(job.name)
            if job.error is None:
                job.waited, job.late_at = True, now + job.deadline_ms / 1000
                group.left += 1
                group.line.append(job)
        if group.line:
            join(group)
            self._flights.add(group)
        return bool(group.line)

    def _refusal(self, name: str) -> Exception | None:
        hangs = self._abandoned.get(name, 0)
        if self._closed:
            return RuntimeError("the pool is closed")
        if hangs >= self._share or (hangs and self._abandoned.total() >= self._most):
            return Busy(f"{hangs} calls of {name} past their deadline are still running")
        return None

    def _send(self) -> None:
        """Jobs in line to threads, as many as may run beside those that do. The thread that stopped last goes
        first: what it keeps for itself, a store's connection and the memory at hand, is warm."""
        while len(self._running) < self._width and (self._idle or self._threads < self._target):
            job = self._first()
            if job is None:
                return
            if self._idle:
                self._idle.pop().put(job)
            elif not self._started(job):
                return

    def _first(self) -> Job | None:
        """The first call in line that somebody still waits for, of a group that does not compute."""
        for line in (self._line, self._arrivals):
            for group in tuple(line):
                if group.computes:
                    continue
                job = group.next()
                if not group.line:
                    line.remove(group)
                if job is not None:
                    self._running.add(job)
                    group.computes = True
                    return job
        return None

    def _stops(self, job: Job) -> None:
        """A call has ended, or waits: its group may run another."""
        if job in self._running:
            self._running.remove(job)
            job.group.computes = False

    def _look(self) -> None:
        """Beside calls that wait others may run; nobody waits for those that are late."""
        now = time.perf_counter()
        with self._door:
            self._flights.looked = now
            for job in [job for job in self._running if job.waits(now)]:
                self._stops(job)
            self._send()
            late = self._flights.late(now)
        if late:
            self._give_up(late, TimeoutError)

    def _started(self, job: Job) -> bool:
        """Give a job to a new thread; where the machine has none left it stays first in line."""
        asked: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        asked.put(job)  # a thread keeps its arguments, and with them a release, while it lives
        try:
            threading.Thread(target=self._run, args=(asked,), name="store", daemon=True).start()
        except RuntimeError as error:
            if not self._starved:
                logger.error("calls wait, for no thread can be started: %s", error)
            self._starved = True
            self._stops(job)
            job.group.line.appendleft(job)
            if job.group not in self._line:
                self._line.appendleft(job.group)
            return False
        self._threads, self._starved = self._threads + 1, False
        return True

    def _run(self, asked: queue.SimpleQueue[Job | None]) -> None:
        """A thread's life: one job after the other, and a wait for what is `asked` where there is none."""
        job = asked.get()
        while job is not None:
            self._begins(job)
            outcome = job.made()
            with self._door:
                if not self._ended(job, *outcome):
                    return  # another thread takes this one's place
                del outcome  # whoever asked has it
                job = self._first() if len(self._running) < self._width else None
                if job is None and self._closed:
                    self._threads -= 1
                    return
                if job is None:
                    self._idle.append(asked)
            if job is None:
                job = asked.get()

    def _begins(self, job: Job) -> None:
        """If somebody waits for it."""
        with self._door:
            if job.waited:
                job.begun, job.began_at = self._clock(), time.perf_counter()
                job.thread, job.cpu_s = threading.get_ident(), time.thread_time()
        if job.began_at > self._flights.looked + WAITS_S:
            self._look()

    def _ended(self, job: Job, result: Any, error: BaseException | None) -> bool:
        """Whether somebody waited for it to its end."""
        self._stops(job)
        if job.waited:
            job.result, job.error, job.ended, job.ended_at = result, error, True, time.perf_counter()
            self._ends(job)
        elif job.begun is not None:
            self._abandoned[job.name] -= 1
            metrics().hanging.labels(job.name).dec()
            return False
        return True

    def _give_up(self, jobs: Sequence[Job], why: type[BaseException] | None = None) -> None:
        """Wait no more for those that have not ended: `why` came of them. A thread that hangs is replaced."""
        with self._door:
            for job in jobs:
                if not job.waited or job.ended:
                    continue
                job.waited, job.error, job.ended_at = False, why() if why else None, time.perf_counter()
                if job.begun is not None:
                    self._stops(job)
                    self._abandoned[job.name] += 1
                    metrics().hanging.labels(job.name).inc()
                    self._threads -= 1
                self._ends(job)
            self._send()

    def _ends(self, job: Job) -> None:
        """Nobody waits for it any more; for the last of a group somebody goes on."""
        group = job.group
        group.left -= 1
        if group.left == 0:
            if group.jobs:
                self._flights.groups.discard(group)
            group.wake()

    def _ok(self, job: Job) -> bool | None:
        """What a call says of its dependency; None: nothing either way."""
        if isinstance(job.error, TimeoutError):
            ran = job.begun is not None and self._clock() - job.begun >= RAN * job.deadline_ms / 1000
            return False if ran else None
        if job.error is not None:
            return not is_fault(job.error)
        return True if job.ended else None
