"""Promotions and rollbacks under a steady load: what was answered, how fast, and how memory went."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

Ask = Callable[[int], str | None]
"""Send request number i; what was wrong with its answer, None where nothing. An exception is an error."""


@dataclass
class Load:
    """Requests on several threads, until told to stop."""

    ask: Ask
    latencies_ms: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __len__(self) -> int:
        return len(self.latencies_ms)

    def wait_for(self, answers: int, patience_s: float = 300.0) -> None:
        """Return once so many more answers came. Raises TimeoutError."""
        wanted, end = len(self) + answers, time.monotonic() + patience_s
        while len(self) < wanted:
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted - len(self)} answers are missing after {patience_s:.0f} s")
            time.sleep(0.005)

    def run(self, first: int, stride: int) -> None:
        """Requests first, first + stride, ... one after another."""
        number = first
        while not self._stop.is_set():
            start = time.perf_counter()
            try:
                complaint = self.ask(number)
            except Exception as error:
                # Whatever a request raises is what is counted here.
                self.errors.append(repr(error))
                complaint = None
            self.latencies_ms.append((time.perf_counter() - start) * 1000)
            if complaint is not None:
                self.wrong.append(complaint)
            number += stride

    def stop(self) -> None:
        self._stop.set()


@contextmanager
def steady(ask: Ask, threads: int) -> Iterator[Load]:
    """A load of `threads` clients that ask without pause."""
    load = Load(ask)
    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(load.run, first, threads) for first in range(threads)]
        try:
            yield load
        finally:
            load.stop()
            for client in running:
                client.result()


@dataclass(frozen=True)
class SwapReport:
    """What came of a load during swaps."""

    answers: int
    errors: tuple[str, ...]
    mixed: tuple[str, ...]
    steady_p99_ms: float
    swap_p99_ms: float
    rss_mb: tuple[float, ...]
    """Memory of the service before the first move and after each."""

    @property
    def swap_p99_ratio(self) -> float:
        return self.swap_p99_ms / self.steady_p99_ms

    @property
    def rss_growth_mb(self) -> float:
        """Over the second half of the moves: by then everything that is kept for good is there."""
        return self.rss_mb[-1] - self.rss_mb[len(self.rss_mb) // 2]

    def __str__(self) -> str:
        return (
            f"{self.answers} answers, {len(self.errors)} errors, {len(self.mixed)} mixed; p99"
            f" {self.steady_p99_ms:.0f} ms steady, {self.swap_p99_ms:.0f} ms during swaps"
            f" ({self.swap_p99_ratio:.2f}x); memory {self.rss_growth_mb:+.1f} MB"
        )


def swap_under_load(
    ask: Ask,
    moves: Sequence[Callable[[], None]],
    rss_mb: Callable[[], float],
    *,
    threads: int = 4,
    steady_answers: int = 200,
    between: int = 20,
) -> SwapReport:
    """Make each of `moves`, which return once the service follows, while `threads` clients ask without pause.

    First `steady_answers` without any move, for the p99 that those during the moves are held against; `between`
    answers between two moves.
    """
    with steady(ask, threads) as load:
        load.wait_for(steady_answers)
        before = len(load)
        memory = [rss_mb()]
        for move in moves:
            move()
            load.wait_for(between)
            memory.append(rss_mb())
    p99 = [float(np.percentile(part, 99)) for part in (load.latencies_ms[:before], load.latencies_ms[before:])]
    return SwapReport(len(load), tuple(load.errors), tuple(load.wrong), *p99, tuple(memory))
