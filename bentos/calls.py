"""Calls that a pool makes for somebody: what is asked, what came of it, and where each stands."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from bentos.breaker import Breaker, BreakerOpen

T = TypeVar("T")

WAITS_S = 0.05
"""How often calls in the air are looked at by threads that come by: beside a call that waits another may run,
and nobody waits for those that are late."""

LOOKS_S = 1.5 * WAITS_S
"""How long after the last look a thread of its own looks, for none came by: a deadline is kept within this and
what it takes to wake for it, 0.1 s. Each time it wakes takes the interpreter from a call that runs."""

WAITING = 0.1
"""A call whose thread has had less than this share of a core since it began waits for a store. Threads that
take turns at the interpreter lock, one a core, get more: others beside them would only make all late."""


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
    """How long it ran; where it never did, how long it was waited for."""

    def get(self) -> T:
        """The result; raises the error."""
        try:
            if self.error is not None:
                raise self.error
            return self.result  # type: ignore[return-value]
        finally:
            del self  # the error's traceback leads here, and from here to the error


@dataclass(eq=False, slots=True)
class Group:
    """Calls that one caller waits for: it is woken once, when the last has ended or is late."""

    wake: Callable[[], object] = lambda: None
    jobs: list[Job] = field(default_factory=list)
    line: deque[Job] = field(default_factory=deque)
    left: int = 0
    computes: bool = False
    """One of its calls runs, and does not wait."""
    turn: bool = False
    """No calls: whoever waits for it waits for a turn among coroutines that have not begun."""

    def next(self) -> Job | None:
        """Its first call in line that is still waited for, out of the line."""
        while self.line:
            job = self.line.popleft()
            if job.waited:
                return job
        return None

    def __await__(self) -> Generator[Group, None, None]:
        """On a thread of the pool: whoever drives the coroutine makes the calls, and then goes on with it."""
        yield self


@dataclass(eq=False, slots=True)
class Job:
    """A call: in line, then begun, then ended. What says so changes under the pool's door alone."""

    name: str
    deadline_ms: float
    work: Callable[[], Any]
    group: Group
    breaker: Breaker | None = None
    probe: bool | None = None
    """None until the breaker let it through."""
    result: Any = None
    error: BaseException | None = None
    waited: bool = False
    """Somebody waits for it: it is in line or running, and not late."""
    ended: bool = False
    begun: float | None = None
    """Seconds of the pool's clock."""
    late_at: float = float("inf")
    """Seconds of the machine's, as the two that follow."""
    began_at: float = 0.0
    ended_at: float = 0.0
    thread: int = 0
    cpu_s: float = 0.0
    """What its thread had used when it began."""

    def enter(self) -> bool:
        """Ask the breaker; False, with the error, where it is open."""
        assert self.breaker is not None
        try:
            self.probe = self.breaker.enter()
        except BreakerOpen as error:
            self.error = error
        return self.error is None

    def leave(self, ok: bool | None) -> None:
        if self.probe is not None and self.breaker is not None:
            self.breaker.leave(self.probe, ok)

    def made(self) -> tuple[Any, BaseException | None]:
        """Its work, here, if it has begun: the result, or what it raised."""
        if self.begun is None:
            return None, None
        try:
            return self.work(), None
        except BaseException as error:
            return None, error

    def waits(self, now: float) -> bool:
        """Whether it has run for a while and mostly waited."""
        if self.begun is None or now - self.began_at < WAITS_S:
            return False
        used = time.clock_gettime(time.pthread_getcpuclockid(self.thread)) - self.cpu_s
        return used < WAITING * (now - self.began_at)

    def is_late(self, now: float) -> bool:
        return self.waited and not self.ended and now >= self.late_at

    def outcome(self, began: float) -> Outcome[Any]:
        """What came of it, asked for at `began`; a call does not keep its error, whose traceback leads back
        to it."""
        ended = self.ended_at or time.perf_counter()
        error, self.error = self.error, None
        return Outcome(self.result, error, 1000 * (ended - (self.began_at or began)))
