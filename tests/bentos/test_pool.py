"""Coroutines on the pool's threads: one makes a whole feed, and a dead call costs the feed nothing else."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator

import pytest

from bentos import calls as module
from bentos.calls import Call
from bentos.flights import Flights
from bentos.pool import Pool
from tests.bentos.conftest import run


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(4)
    yield made
    made.close()


def wrong() -> int:
    raise ValueError("wrong")


def test_a_coroutine_and_its_calls_run_on_one_thread(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 0.0)  # a starved thread counts as one that computes
    pool._width = 1

    async def feed() -> list[int]:
        seen = [threading.get_ident()]
        for _ in range(5):
            seen.append(await pool.call("store", 20_000, threading.get_ident))
            some = await pool.calls([Call("store", 20_000, threading.get_ident) for _ in range(3)])
            seen += [outcome.get() for outcome in some]
            seen.append(threading.get_ident())
        return seen

    seen = run(pool.drive(feed()))
    assert len(seen) == 26 and set(seen) != {threading.get_ident()}
    assert seen[0] == seen[-1] and len(set(seen)) == 1


def test_what_it_returns_and_raises_is_the_callers(pool: Pool) -> None:
    async def failing() -> None:
        (outcome,) = await pool.calls([Call("store", 20_000, wrong)])
        assert isinstance(outcome.error, ValueError)
        await pool.call("store", 20_000, wrong)

    async def nothing() -> list[object]:
        return await pool.calls([])

    assert run(pool.drive(nothing())) == []
    with pytest.raises(ValueError, match="wrong"):
        run(pool.drive(failing()))


def test_a_call_that_hangs_is_left_to_its_thread_and_another_goes_on(pool: Pool) -> None:
    let_go, hung_on = threading.Event(), []

    def hangs() -> bool:
        hung_on.append(threading.get_ident())
        return let_go.wait(20)

    async def feed() -> tuple[int, int, int]:
        asked = [Call("hangs", 50, hangs), Call("quick", 20_000, threading.get_ident)]
        hung, quick = await pool.calls(asked)
        assert isinstance(hung.error, TimeoutError) and quick.error is None
        return quick.get(), threading.get_ident(), await pool.call("quick", 20_000, lambda: 7)

    async def main() -> None:
        beside, after, seven = await pool.drive(feed())
        assert seven == 7 and pool.hanging() == {"hangs": 1}
        assert {beside, after}.isdisjoint(hung_on) and len(hung_on) == 1
        let_go.set()
        while pool.hanging():
            await asyncio.sleep(0.005)
        assert await pool.drive(feed_again()) == 1

    async def feed_again() -> int:
        return await pool.call("hangs", 20_000, lambda: 1)

    run(main())


def test_one_that_is_begun_here_waits_for_its_turn_elsewhere(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_look", lambda: None)  # nobody else may hand the work out
    pool._width = 1
    told: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()
    order: list[str] = []
    begun, let_go = threading.Event(), threading.Event()

    async def heard(name: str) -> int:
        order.append(f"{name} heard")
        return await pool.drive(answered(name))

    async def answered(name: str) -> int:
        begun.set()
        let_go.wait(20)
        order.append(await pool.call("store", 20_000, lambda: name))
        return threading.get_ident()

    for name in ("first", "second"):
        pool.begin(heard(name), lambda *end: told.put(end))
        assert begun.wait(20)
    let_go.set()
    ends = [told.get(timeout=20) for _ in range(2)]
    assert order == ["first heard", "second heard", "first", "second"]
    assert threading.get_ident() not in {thread for thread, _ in ends} and {error for _, error in ends} == {
        None
    }


def test_one_that_is_begun_tells_its_error(pool: Pool) -> None:
    told: queue.SimpleQueue[tuple[object, BaseException | None]] = queue.SimpleQueue()

    async def failing() -> int:
        return await pool.call("store", 20_000, wrong)

    pool.begin(failing(), lambda *end: told.put(end))
    assert isinstance(told.get(timeout=20)[1], ValueError)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.begin(failing(), lambda *end: None)


def test_many_at_once_each_get_their_own(pool: Pool) -> None:
    async def feed(number: int) -> int:
        total = 0
        for step in range(10):
            total += await pool.call("store", 20_000, lambda: number * 1_000 + step)  # noqa: B023
        return total

    async def main() -> list[int]:
        return await asyncio.gather(*(pool.drive(feed(n)) for n in range(40)))

    assert run(main()) == [n * 10_000 + 45 for n in range(40)]


def test_calls_of_others_do_not_wait_for_coroutines_that_have_not_begun(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 0.0)  # the first one sleeps, and counts as one that computes
    pool._width = 1
    order: list[str] = []
    begun, let_go = threading.Event(), threading.Event()

    async def feed(name: str) -> None:
        if name == "first":
            begun.set()
            let_go.wait(20)
        order.append(name)

    async def main() -> None:
        feeds = [asyncio.ensure_future(pool.drive(feed(name))) for name in ("first", "second")]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        call = asyncio.ensure_future(pool.call("ids", 20_000, lambda: order.append("call")))
        await asyncio.sleep(0)
        let_go.set()
        await asyncio.gather(*feeds, call)

    run(main())
    assert order.index("call") < order.index("second")


def test_one_that_nobody_waits_for_any_more_is_closed(pool: Pool) -> None:
    begun, let_go, closed = threading.Event(), threading.Event(), threading.Event()

    async def feed() -> None:
        begun.set()
        try:
            await pool.call("store", 20_000, lambda: let_go.wait(20))
            await pool.call("store", 20_000, lambda: None)
        except asyncio.CancelledError:
            closed.set()
            raise

    async def main() -> None:
        asked = asyncio.ensure_future(pool.drive(feed()))
        assert await asyncio.to_thread(begun.wait, 20)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        let_go.set()
        assert await asyncio.to_thread(closed.wait, 20)
        assert await pool.call("store", 20_000, lambda: 1) == 1

    run(main())


def test_one_that_has_begun_ends_after_the_pool_was_closed(pool: Pool) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def hangs() -> bool:
        begun.set()
        return let_go.wait(20)

    async def feed() -> list[BaseException | None]:
        hung, *_ = await pool.calls([Call("hangs", 300, hangs)])
        refused, *_ = await pool.calls([Call("store", 20_000, lambda: 1)])
        return [hung.error, refused.error]

    async def main() -> list[BaseException | None]:
        await asyncio.gather(*(pool.call("warm", 20_000, lambda: 1) for _ in range(4)))
        asked = asyncio.ensure_future(pool.drive(feed()))
        assert await asyncio.to_thread(begun.wait, 20)
        pool.close()
        return await asyncio.wait_for(asked, 20)

    hung, refused = run(main())
    let_go.set()
    assert isinstance(hung, TimeoutError) and isinstance(refused, RuntimeError)


def told_of_a_late_call(pool: Pool) -> BaseException | None:
    """What came of a call that hangs, while others arrive; closes the pool."""
    hang, told = threading.Event(), queue.SimpleQueue[BaseException | None]()

    async def late() -> None:
        await pool.call("store", 50, hang.wait)

    async def other() -> None:
        await pool.call("other", 20_000, int)

    pool.begin(late(), lambda _, error: told.put(error))
    for _ in range(4_000):
        pool.begin(other(), lambda _, error: None)
        if not told.empty():
            break
        time.sleep(0.005)
    hang.set()
    pool.close()
    return told.get_nowait()


def test_a_late_call_is_given_up_while_others_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 0.0)  # it counts as one that computes: nobody else begins beside it
    assert isinstance(told_of_a_late_call(Pool(4, width=1)), TimeoutError)


def test_threads_that_come_by_look_at_what_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flights, "_look_on", lambda flights: None)  # nobody else does
    assert isinstance(told_of_a_late_call(Pool(4, width=2)), TimeoutError)


def test_where_others_look_nobody_looks_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentos.flights.LOOKS_S", 20.0)
    looked: list[str] = []
    monkeypatch.setattr(Pool, "_look", lambda pool: looked.append(threading.current_thread().name))
    pool = Pool(4, width=1)
    pool._flights.looked = time.perf_counter()
    assert run(pool.call("store", 20_000, lambda: time.sleep(0.1))) is None
    pool._flights.looked = 0.0
    assert run(pool.call("store", 20_000, int)) == 0
    assert set(looked) == {"store"}
    pool.close()


def test_a_look_that_fails_is_not_the_last(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    looks, failed = pool._look, []

    def fails_once() -> None:
        if not failed:
            failed.append(True)
            raise OSError("no metrics")
        looks()

    monkeypatch.setattr(pool, "_look", fails_once)
    monkeypatch.setattr("bentos.pool.WAITS_S", 20.0)  # threads that come by do not look
    hang = threading.Event()
    with pytest.raises(TimeoutError):
        run(pool.call("store", 50, hang.wait))
    assert failed
    hang.set()


def test_what_flies_after_a_rest_is_looked_at(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(pool.call("store", 20_000, int)) == 0
    for _ in range(4_000):
        if pool._flights._rests:
            break
        time.sleep(0.005)
    assert pool._flights._rests
    monkeypatch.setattr(module, "WAITING", 0.0)
    hang = threading.Event()
    with pytest.raises(TimeoutError):
        run(pool.call("store", 50, hang.wait))
    hang.set()


def test_calls_wait_in_line_while_no_thread_can_be_started(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = threading.Thread.start, {"store": 3, "looks": 1}

    def start(thread: threading.Thread) -> None:
        if refused.get(thread.name):
            refused[thread.name] -= 1
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    async def feed() -> int:
        return await pool.call("store", 20_000, lambda: 1)

    async def main() -> list[int]:
        return await asyncio.gather(pool.call("store", 20_000, lambda: 2), pool.drive(feed()))

    assert run(main()) == [2, 1] and set(refused.values()) == {0}
    with pytest.raises(TimeoutError):
        run(pool.call("store", 50, lambda: time.sleep(1)))


def test_a_closed_pool_takes_none(pool: Pool) -> None:
    async def feed() -> None: ...

    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        run(pool.drive(feed()))
