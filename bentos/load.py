"""Sheds load so that a stated share of answers comes within its target: less work first, refusals last.

One factor f in [0, 1] says how much is done. After every answer, for percentile p and step d,

    f += d                     the answer came within the target
    f -= d * p / (100 - p)     it came late

While f is inside its bounds the two balance only if late answers are 1 - p/100 of all: the fixed point is "the
p-th percentile is the target", whatever the machine and the load. Above `work_until` f takes work away (fewer
candidates, fewer sources); below it, f is also how long the line may be, and what comes then is refused. A line
and not a share of requests, since its length tells at once what late answers tell only afterwards.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict, Field

from bentos.errors import Overloaded, RequestError
from bentos.metrics import metrics


class LoadRules(BaseModel):
    """What is held, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_ms: float = Field(500.0, gt=0)
    percentile: float = Field(99.0, gt=0, lt=100)
    step: float = Field(0.0001, gt=0, lt=1)
    """Large ones answer faster and hold the percentile less well, since news of a full line come late."""
    work_until: float = Field(0.5, gt=0, lt=1)
    """The factor at which work is at its least and refusals begin."""
    in_flight: int = Field(64, ge=1)
    """Requests being answered at once, at most; one is always let in, or nothing would be learned."""
    idle_per_s: float = Field(0.02, ge=0)
    """What the factor gains in a second without requests."""


class LoadShedder:
    """The factor of one process. Thread-safe; `clock` gives seconds."""

    def __init__(self, rules: LoadRules | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.rules = rules or LoadRules()
        self._clock = clock
        self._factor = 1.0
        self._in_flight = 0
        self._quiet_since = clock()
        self._door = threading.Lock()

    @classmethod
    def never(cls) -> LoadShedder:
        """One that lets everything through."""
        return cls(LoadRules(target_ms=float("inf"), in_flight=1_000_000))

    @property
    def quality(self) -> float:
        """How much work a request gets: 1 all, 0 the least."""
        return max(0.0, (self._factor - self.rules.work_until) / (1 - self.rules.work_until))

    @property
    def line(self) -> int:
        """Requests that may be answered at once."""
        return max(1, int(self.rules.in_flight * min(1.0, self._factor / self.rules.work_until)))

    def enter(self) -> float:
        """Let a request in; its quality. Raises Overloaded."""
        with self._door:
            if not self._in_flight:
                self._move(self.rules.idle_per_s * max(0.0, self._clock() - self._quiet_since - 1))
            if self._in_flight >= self.line:
                raise Overloaded(f"{self._in_flight} requests are being answered, as many as can be in time")
            self._in_flight += 1
            return self.quality

    def leave(self, ms: float | None) -> None:
        """A request let in was answered after `ms`; None where that says nothing of the load."""
        with self._door:
            self._in_flight -= 1
            self._quiet_since = self._clock()
            if ms is not None:
                p = self.rules.percentile
                late = ms > self.rules.target_ms
                self._move(-self.rules.step * p / (100 - p) if late else self.rules.step)

    @contextmanager
    def request(self) -> Iterator[float]:
        """`enter` and `leave` around one request, giving its quality. Raises Overloaded."""
        quality, began, whole = self.enter(), self._clock(), True
        try:
            yield quality
        except RequestError:
            whole = False  # a refusal costs next to nothing, and says nothing of the rest
            raise
        finally:
            self.leave((self._clock() - began) * 1000 if whole else None)

    def _move(self, by: float) -> None:
        self._factor = min(1.0, max(0.0, self._factor + by))
        metrics().quality.set(self.quality)


def scaled(budget: int, least: int, quality: float) -> int:
    """A budget at a quality: all of it at 1, `least` at 0."""
    return round(least + (budget - least) * quality) if least < budget else budget
