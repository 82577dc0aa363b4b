"""The breaker's three states by a clock of the test, and the pool that no dead call may starve."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from bentos import calls as module
from bentos.breaker import Breaker, BreakerOpen, BreakerRules, Breakers, PartAbsent, State
from bentos.calls import Call
from bentos.errors import BadId, StoreUnavailable
from bentos.pool import Pool
from tests.bentos.conftest import run

RULES = BreakerRules(window_s=10, least=3, share=0.5, rest_s=1, longest_rest_s=4)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("store", RULES, clock)


def ended(breaker: Breaker, *outcomes: bool | None) -> None:
    for ok in outcomes:
        breaker.leave(breaker.enter(), ok)


def test_it_opens_after_the_stated_failures_and_refuses_without_asking(breaker: Breaker) -> None:
    ended(breaker, False, False)
    assert breaker.state is State.CLOSED
    ended(breaker, False)
    assert breaker.state is State.OPEN
    with pytest.raises(BreakerOpen, match="store failed too often"):
        breaker.enter()


def test_failures_of_few_or_of_long_ago_leave_it_closed(breaker: Breaker, clock: Clock) -> None:
    ended(breaker, *[True] * 20, False, False, False, False)
    assert breaker.state is State.CLOSED, "four of twenty-four"
    clock.now += 11
    ended(breaker, False, False)
    assert breaker.state is State.CLOSED, "the four are out of the window"
    ended(breaker, *[None] * 5)
    assert breaker.state is State.CLOSED, "no answer either way is no failure"


def test_one_probe_at_a_time_and_it_closes_by_itself(breaker: Breaker, clock: Clock) -> None:
    ended(breaker, False, False, False)
    clock.now += 1
    probe = breaker.enter()
    assert probe and breaker.state is State.HALF_OPEN
    with pytest.raises(BreakerOpen):
        breaker.enter()
    breaker.leave(probe, True)
    assert breaker.state is State.CLOSED and not breaker.enter()


def test_a_failed_probe_doubles_the_rest_up_to_its_bound(breaker: Breaker, clock: Clock) -> None:
    ended(breaker, False, False, False)
    for rest in (1, 2, 4, 4):
        clock.now += rest - 0.1
        with pytest.raises(BreakerOpen):
            breaker.enter()
        clock.now += 0.1
        ended(breaker, False)
    clock.now += 4
    ended(breaker, True)
    ended(breaker, False, False, False)
    clock.now += 1
    assert breaker.enter(), "after a recovery the first rest is short again"


def test_a_probe_that_ended_without_an_answer_makes_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    ended(breaker, False, False, False)
    clock.now += 1
    ended(breaker, None)
    assert breaker.enter()


def test_late_news_from_before_it_opened_change_nothing(breaker: Breaker) -> None:
    early = breaker.enter()
    ended(breaker, False, False, False)
    breaker.leave(early, True)
    assert breaker.state is State.OPEN


def test_errors_of_the_request_are_no_faults_of_the_store(breaker: Breaker) -> None:
    for error in (BadId("user id 0"), PartAbsent("no ranker")) * 5:
        with pytest.raises(type(error)), breaker.guarded():
            raise error
    assert breaker.state is State.CLOSED
    for _ in range(10):
        with pytest.raises(StoreUnavailable), breaker.guarded():
            raise StoreUnavailable("down")
    assert breaker.state is State.OPEN


def test_an_open_breaker_costs_the_pool_no_call(clock: Clock) -> None:
    pool, calls = Pool(2, Breakers(RULES, clock), clock), []

    def down() -> None:
        calls.append(1)
        raise ConnectionError("down")

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(ConnectionError):
                await pool.call("store", 1_000, down)
        for _ in range(10):
            with pytest.raises(BreakerOpen):
                await pool.call("store", 1_000, down)
        assert len(calls) == 3
        assert await pool.call("another", 1_000, lambda: 5) == 5
        clock.now += 1
        assert await pool.call("store", 1_000, lambda: 6) == 6, "the probe"
        assert await pool.call("store", 1_000, lambda: 7) == 7

    run(main())
    pool.close()


def test_stores_that_hang_all_at_once_leave_the_threads_to_the_others() -> None:
    """More hanging calls than threads: each abandoned one is replaced, and what they cost is bounded."""
    pool, let_go = Pool(4), threading.Event()
    before = threading.active_count()

    async def main() -> None:
        hung = [pool.call(f"store {n}", 400, lambda: let_go.wait(20)) for n in range(4)]
        assert all(isinstance(e, TimeoutError) for e in await asyncio.gather(*hung, return_exceptions=True))
        assert pool.hanging() == {f"store {n}": 1 for n in range(4)}
        for n in range(60):
            name = f"store {n % 4}"
            with pytest.raises((TimeoutError, RuntimeError)):
                await pool.call(name, 30, lambda: let_go.wait(20))
        assert threading.active_count() - before <= 4 + sum(pool.hanging().values()) <= 4 + 2 * 4
        assert await pool.call("alive", 5_000, lambda: 42) == 42
        let_go.set()
        while pool.hanging():
            await asyncio.sleep(0.005)

    run(main())
    pool.close()


def test_a_group_waits_for_the_last_and_for_nobody_past_its_deadline() -> None:
    pool, let_go = Pool(4), threading.Event()

    def wrong() -> int:
        raise ValueError("wrong")

    async def main() -> None:
        asked = [Call("hangs", 60, lambda: int(let_go.wait(20))), Call("wrong", 5_000, wrong)]
        late, failed, quick = await pool.calls([*asked, Call("quick", 5_000, lambda: 1)])
        assert isinstance(late.error, TimeoutError) and isinstance(failed.error, ValueError)
        assert quick.get() == 1 and quick.error is None and late.ms >= 50
        assert pool.hanging() == {"hangs": 1} and await pool.calls([]) == []
        let_go.set()

    run(main())
    pool.close()


def test_calls_that_wait_take_nobodys_turn() -> None:
    """Eight that wait for each other all end, on however few cores."""
    pool, together = Pool(8), threading.Barrier(8)

    async def main() -> None:
        met = await pool.calls([Call(f"store {n}", 20_000, lambda: together.wait(20)) for n in range(8)])
        assert sorted(outcome.get() for outcome in met) == list(range(8))

    run(main())
    pool.close()


def test_a_group_that_computes_has_one_thread_and_two_groups_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 0.0)  # a starved thread counts as one that computes
    pool, both = Pool(8), threading.Barrier(2)
    at_once = 0

    def compute() -> int:
        nonlocal at_once
        at_once += 1
        most = at_once
        time.sleep(0.02)
        at_once -= 1
        return most

    async def main() -> None:
        alone = await pool.calls([Call("sum", 20_000, compute) for _ in range(6)])
        assert [outcome.get() for outcome in alone] == [1] * 6
        pool._width = 2
        met = await asyncio.gather(*(pool.calls([Call("sum", 20_000, lambda: both.wait(20))]) for _ in "ab"))
        assert sorted(outcome.get() for (outcome,) in met) == [0, 1]

    run(main())
    pool.close()


def test_one_call_after_another_is_done_by_one_thread() -> None:
    pool = Pool(16)

    async def main() -> set[int]:
        return {await pool.call("store", 5_000, threading.get_ident) for _ in range(40)}

    assert len(run(main())) <= 2
    pool.close()


def test_a_call_that_never_left_the_line_is_not_held_against_its_store() -> None:
    pool, let_go = Pool(1), threading.Event()

    async def main() -> None:
        first = asyncio.ensure_future(pool.call("slow", 5_000, lambda: let_go.wait(20)))
        await asyncio.sleep(0)
        for _ in range(8):
            with pytest.raises(TimeoutError):
                await pool.call("behind it", 5, lambda: 1)
        let_go.set()
        await first
        assert pool.breakers.of("behind it").state is State.CLOSED
        assert await pool.call("behind it", 5_000, lambda: 1) == 1

    run(main())
    pool.close()


def test_callers_that_go_away_from_a_hanging_call_free_its_place() -> None:
    pool, let_go = Pool(1), threading.Event()

    async def main() -> None:
        started = threading.Event()
        gone = asyncio.ensure_future(pool.call("store", 60_000, lambda: (started.set(), let_go.wait(20))))
        while not started.is_set():
            await asyncio.sleep(0.002)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        assert pool.hanging() == {"store": 1}
        assert await pool.call("other", 5_000, lambda: 1) == 1
        let_go.set()

    run(main())
    pool.close()
