"""A circuit breaker a dependency: what keeps failing is not asked again until a probe says that it is back.

    closed     every call goes through; outcomes of the last `window_s` are kept
    open       after `least` of them, and `share` of all, failed: calls are refused at once, without waiting
    half-open  `rest_s` later one call goes through as a probe; the others are refused until it has ended

A probe that succeeds closes the breaker; one that fails opens it for twice as long, `longest_rest_s` at most.
(M. Nygard, Release It!, "Circuit Breaker".)
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from pydantic import BaseModel, ConfigDict, Field

from bentos.errors import RequestError
from bentos.metrics import metrics

logger = logging.getLogger("corkboard.breaker")


class BreakerOpen(RuntimeError):
    """The dependency failed too often just now, and is not asked."""


class PartAbsent(RuntimeError):
    """The release, or this process, does not have the part: no fault of what would run it."""


class BreakerRules(BaseModel):
    """When a breaker opens, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_s: float = Field(10.0, gt=0)
    least: int = Field(5, ge=1)
    """Failures within the window, at least."""
    share: float = Field(0.5, gt=0, le=1)
    """Failures among all calls of the window, at least: what fails for one user in a hundred stays closed."""
    rest_s: float = Field(1.0, gt=0)
    longest_rest_s: float = Field(5.0, gt=0)
    """A probe costs one request its deadline; a longer rest would cost every request what is back already."""


class State(IntEnum):
    """The value of the metric `corkboard_breaker`."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


OUTCOMES = 1_000
"""Outcomes a breaker remembers, at most."""


class Breaker:
    """The breaker of one dependency. Thread-safe; `clock` gives seconds."""

    def __init__(self, name: str, rules: BreakerRules, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._rules, self._clock = rules, clock
        self._state = State.CLOSED
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=OUTCOMES)
        self._rest_s = rules.rest_s
        self._until = 0.0
        self._probing = False
        self._door = threading.Lock()

    @property
    def state(self) -> State:
        return self._state

    def enter(self) -> bool:
        """Let a call through; True if it is the probe. Raises BreakerOpen."""
        with self._door:
            if self._state is State.CLOSED:
                return False
            if self._probing or self._clock() < self._until:
                raise BreakerOpen(f"{self.name} failed too often and is left alone for {self._rest_s:.0f} s")
            self._probing = True
            self._turn(State.HALF_OPEN)
            return True

    def leave(self, probe: bool, ok: bool | None) -> None:
        """Say how a call that was let through ended; None where it ended without an answer either way."""
        with self._door:
            if probe:
                self._probing = False
                if ok:
                    self._close()
                elif ok is False:
                    self._open(min(self._rest_s * 2, self._rules.longest_rest_s))
                return
            if ok is None or self._state is not State.CLOSED:
                return  # late news of the time before it opened
            self._outcomes.append((self._clock(), ok))
            if not ok and self._too_many():
                self._open(self._rules.rest_s)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """`enter` and `leave` around an awaited call, by what it raises. Raises BreakerOpen."""
        probe, ok = self.enter(), None
        try:
            yield
            ok = True
        except asyncio.CancelledError:
            raise
        except Exception as error:
            ok = not is_fault(error)
            raise
        finally:
            self.leave(probe, ok)

    def _too_many(self) -> bool:
        since = self._clock() - self._rules.window_s
        while self._outcomes and self._outcomes[0][0] < since:
            self._outcomes.popleft()
        failed = sum(not ok for _, ok in self._outcomes)
        return failed >= self._rules.least and failed >= self._rules.share * len(self._outcomes)

    def _open(self, rest_s: float) -> None:
        self._rest_s, self._until = rest_s, self._clock() + rest_s
        self._outcomes.clear()
        self._turn(State.OPEN)

    def _close(self) -> None:
        self._rest_s = self._rules.rest_s
        self._turn(State.CLOSED)

    def _turn(self, state: State) -> None:
        if state is not self._state:
            logger.warning("breaker of %s: %s", self.name, state.name.lower().replace("_", "-"))
        self._state = state
        metrics().breaker.labels(self.name).set(state)


class Breakers:
    """The breakers of one process by dependency, made when first asked for."""

    def __init__(self, rules: BreakerRules | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules, self._clock = rules or BreakerRules(), clock
        self._breakers: dict[str, Breaker] = {}

    def of(self, name: str) -> Breaker:
        """The breaker of `name`: a dependency named in code, never by a request."""
        found = self._breakers.get(name)
        return found or self._breakers.setdefault(name, Breaker(name, self._rules, self._clock))


def is_fault(error: BaseException) -> bool:
    """Whether an error speaks of the dependency: a request that asks for what is not there does not."""
    if isinstance(error, RequestError):
        return error.http_status >= 500
    return not isinstance(error, PartAbsent)
