"""Prometheus metrics: one histogram of stage times, and counts of what was served and what was missing.

Created when first used, since BentoML points prometheus_client at its folder before it makes a service.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter as Counted
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

    from bentos.feed import Feed

TIMED = 4
"""One answer in so many of a surface counts the times of its stages and sources: thirty histograms, each of
which costs as much as a small stage. How long whole answers take is counted of all."""

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True)
class Metrics:
    stage_seconds: Histogram
    source_seconds: Histogram
    answer_seconds: Histogram
    shown: Counter
    missing: Counter
    events: Counter
    refused: Counter
    release: Gauge
    swaps: Counter
    breaker: Gauge
    hanging: Gauge
    quality: Gauge
    waiting: Gauge


@functools.cache
def metrics() -> Metrics:
    """The process's metrics."""
    from prometheus_client import Counter, Gauge, Histogram

    return Metrics(
        stage_seconds=Histogram(
            "corkboard_stage_seconds",
            f"Time of one funnel stage, of one answer in {TIMED}",
            ["surface", "stage"],
            buckets=_SECONDS,
        ),
        source_seconds=Histogram(
            "corkboard_source_seconds",
            f"Time of one candidate source, of one answer in {TIMED}",
            ["source"],
            buckets=_SECONDS,
        ),
        answer_seconds=Histogram(
            "corkboard_answer_seconds", "Time of one whole answer", ["surface"], buckets=_SECONDS
        ),
        shown=Counter("corkboard_shown_pins", "Pins shown", ["surface", "source"]),
        missing=Counter("corkboard_missing", "Parts that failed open", ["surface", "part"]),
        events=Counter("corkboard_events", "Events taken in", ["outcome"]),
        refused=Counter("corkboard_refused", "Requests refused", ["api", "error"]),
        release=Gauge(
            "corkboard_release", "Version of the release being served", multiprocess_mode="mostrecent"
        ),
        swaps=Counter("corkboard_release_swaps", "Releases loaded", ["outcome"]),
        breaker=Gauge(
            "corkboard_breaker",
            "Breaker of a part: 0 closed, 1 half-open, 2 open",
            ["part"],
            multiprocess_mode="mostrecent",
        ),
        hanging=Gauge(
            "corkboard_hanging_calls", "Calls past their deadline", ["part"], multiprocess_mode="livesum"
        ),
        quality=Gauge(
            "corkboard_quality",
            "Quality factor of the load shedder, 1 = all work",
            multiprocess_mode="mostrecent",
        ),
        waiting=Gauge("corkboard_waiting_events", "Events in line", ["line"], multiprocess_mode="mostrecent"),
    )


def observe(feed: Feed, seconds: float) -> None:
    """Count one answer."""
    surface = feed.surface.value
    _child("answer_seconds", surface).observe(seconds)
    if next(_timed(surface)):
        for stage in feed.stages:
            _child("stage_seconds", surface, stage.name).observe(stage.ms / 1000)
        for source in feed.sources:
            _child("source_seconds", source.name).observe(source.ms / 1000)
    for part in feed.missing:
        metrics().missing.labels(surface, part.partition(":")[0]).inc()
    for name, count in Counted(feed.candidates.sources).items():
        _child("shown", surface, name).inc(count)


@functools.cache
def _timed(surface: str) -> Iterator[bool]:
    """Whether each answer in turn is one whose parts are timed, the first one first."""
    return itertools.cycle([True, *[False] * (TIMED - 1)])


@functools.cache
def _child(metric: str, *labels: str) -> Any:
    """A metric's child, whose look-up costs more than what it does; of labels that the funnel names only."""
    return getattr(metrics(), metric).labels(*labels)


def forget_process(pid: int) -> None:
    """Leave what a process that has ended was doing out of the gauges."""
    from prometheus_client.multiprocess import mark_process_dead

    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(pid)
