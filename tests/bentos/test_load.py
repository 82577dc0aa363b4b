"""The shedder's fixed point, in a simulated queue, and what a feed does with less quality."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from bentos.errors import BadId, Overloaded
from bentos.load import LoadRules, LoadShedder, scaled
from bentos.messages import FeedRequest
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, Stack

SERVICE_MS = 40.0
"""Mean time of a request with all its work; 0.35 of it with the least."""


class Queue:
    """One server, first come first served, requests at random: time is what the test says it is."""

    def __init__(self, rules: LoadRules, seed: int = 0) -> None:
        self.now_ms = 0.0
        self.shedder = LoadShedder(rules, lambda: self.now_ms / 1000)
        self.rng = np.random.default_rng(seed)
        self.free_ms = 0.0
        self.running: deque[tuple[float, float]] = deque()

    def run(self, requests: int, load: float) -> tuple[np.ndarray, int]:
        """Times in ms of those answered, and how many were refused, at `load` x what the server can do."""
        times, refused = [], 0
        for gap in self.rng.exponential(SERVICE_MS / load, requests):
            arrival = self.now_ms + gap
            while self.running and self.running[0][0] <= arrival:
                self.now_ms, took = self.running.popleft()
                self.shedder.leave(took)
            self.now_ms = arrival
            try:
                quality = self.shedder.enter()
            except Overloaded:
                refused += 1
                continue
            work = SERVICE_MS * (0.35 + 0.65 * quality) * self.rng.gamma(8, 1 / 8)
            self.free_ms = max(self.free_ms, arrival) + work
            times.append(self.free_ms - arrival)
            self.running.append((self.free_ms, times[-1]))
        return np.array(times), refused


@pytest.mark.parametrize(("percentile", "step"), [(90.0, 0.0003), (99.0, 0.0001)])
@pytest.mark.parametrize("load", [1.5, 5.0])
def test_the_percentile_is_the_target_under_more_load_than_the_server_can_take(
    percentile: float, step: float, load: float
) -> None:
    queue = Queue(LoadRules(target_ms=400, percentile=percentile, step=step))
    queue.run(20_000, load)
    times, refused = queue.run(60_000, load)
    assert float((times > 400).mean()) == pytest.approx(1 - percentile / 100, rel=0.15)
    # Work goes first; requests are refused where that is not enough, and hardly more than must be.
    least = max(0.0, 1 - 1 / (0.35 * load))
    assert least - 0.01 <= refused / 60_000 <= least + 0.03


def test_without_shedding_the_same_queue_has_no_percentile() -> None:
    queue = Queue(LoadRules(target_ms=400))
    queue.shedder = LoadShedder.never()
    times, refused = queue.run(20_000, 1.5)
    assert (times > 400).mean() > 0.9 and refused == 0


def test_all_work_comes_back_by_itself() -> None:
    queue = Queue(LoadRules(target_ms=400, step=0.001))
    queue.run(20_000, 5.0)
    assert queue.shedder.quality < 0.2
    times, _ = queue.run(4_000, 0.3)
    assert queue.shedder.quality == 1 and (times > 400).mean() <= 0.01
    assert queue.run(2_000, 0.3)[1] == 0


def test_a_quiet_minute_forgets_what_was() -> None:
    now = [0.0]
    shedder = LoadShedder(LoadRules(target_ms=100), lambda: now[0])
    for _ in range(200):
        shedder.enter()
        shedder.leave(1_000)
    assert shedder.quality == 0 and shedder.line == 1, "one is always let in"
    now[0] += 60
    assert shedder.enter() == 1


def test_more_at_once_than_stated_is_refused_by_name() -> None:
    shedder = LoadShedder(LoadRules(in_flight=2))
    shedder.enter()
    shedder.enter()
    with pytest.raises(Overloaded, match="2 requests are being answered"):
        shedder.enter()
    shedder.leave(1)
    assert shedder.enter() == 1 and Overloaded.retry_after_s == 1


def test_refusals_are_no_answers() -> None:
    shedder = LoadShedder(LoadRules(target_ms=1e-9))
    with pytest.raises(BadId), shedder.request():
        raise BadId("user id 0")
    assert shedder.quality == 1
    with shedder.request() as quality:
        assert quality == 1
    assert shedder.quality < 1


def test_budgets_by_quality() -> None:
    assert [scaled(500, 100, q) for q in (1.0, 0.5, 0.0)] == [500, 300, 100]
    assert scaled(50, 100, 0.0) == 50


def test_a_feed_at_the_least_quality_is_smaller_cheaper_and_says_so(stack: Stack) -> None:
    slow = LoadShedder(LoadRules(target_ms=1e-9, step=0.0049))
    service = replace(stack.service, load=slow)
    first = run(service.homefeed(FeedRequest(user_id=COOK, limit=10)))
    assert first.quality == 1
    answer = run(service.homefeed(FeedRequest(user_id=COOK, limit=10)))
    assert answer.quality < 0.05 and len(answer.pins) == 10
    counts = [{s.name: s.count for s in a.stages} for a in (first, answer)]
    assert counts[1]["shortlist"] < counts[0]["shortlist"]
