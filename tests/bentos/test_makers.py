"""A service and its makers: who is asked, what happens when one ends or hangs, and how releases go round."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from bentos.answer_logs import open_streams
from bentos.errors import NoRelease, RequestError, StoreUnavailable
from bentos.event_log import EventLog
from bentos.frames import Kind
from bentos.log_segments import read
from bentos.maker_process import WAITING_FRAMES, forked
from bentos.makers import DEATHS, Makers
from bentos.messages import FeedRequest
from bentos.settings import Settings
from tests.bentos import fakes
from tests.bentos.fakes import Stack
from tests.bentos.planted_maker import open_planted
from tests.bentos.scripted_makers import Script
from tests.crashing import FORKED_FROM
from validation.events import ActionRecord, to_line

USER = FeedRequest(user_id=7)


class Alias:
    """What the registry says, and the home's note of what was served last."""

    def __init__(self) -> None:
        self.version: int | None = 1
        self.noted: int | None = None
        self.down = False
        self.looks = 0

    def __call__(self) -> int | None:
        self.looks += 1
        if self.down:
            raise ConnectionError("the registry is down")
        return self.version


@asynccontextmanager
async def running(
    script: Script, alias: Alias, logs: dict[str, EventLog] | None = None, ask_s: float = 10.0
) -> AsyncIterator[Makers]:
    makers = Makers(
        script.start, alias, logs or {}, count=2, poll_s=0.02, ask_s=ask_s, served_last=lambda: alias.noted
    )
    following = asyncio.ensure_future(makers.run())
    try:
        yield makers
    finally:
        makers.close()
        following.cancel()


async def until(true: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def asked(makers: Makers, user: Any = 7) -> dict[str, Any]:
    return orjson.loads(await makers.answer("homefeed", FeedRequest(user_id=user)))


def all_hold(script: Script, version: int) -> Callable[[], bool]:
    return lambda: [m.release for m in script.living.values()] == [version] * 3


def on_a_loop(scenario: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    def run(tmp_path: Path) -> None:
        asyncio.run(asyncio.wait_for(scenario(tmp_path), 150))

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


@on_a_loop
async def test_a_request_is_answered_by_a_maker_with_the_release(_: Path) -> None:
    script = Script()
    async with running(script, Alias()) as makers:
        with pytest.raises(NoRelease, match="corkboard promote"):
            await makers.answer("homefeed", USER)
        await until(lambda: makers.ready)
        answer = await asked(makers)
        assert answer["api"] == "homefeed" and answer["release"] == makers.version == 1
        assert answer["asked"]["user_id"] == 7
        await until(all_hold(script, 1))
        assert sorted(script.starts) == [0, 1, 2], "two that answer and one that stands by"


@on_a_loop
async def test_requests_go_to_the_maker_with_the_fewest(_: Path) -> None:
    script = Script()
    async with running(script, Alias(), ask_s=1.0) as makers:
        await until(all_hold(script, 1))
        script.hangs = {0}
        stuck = asyncio.ensure_future(makers.answer("homefeed", USER))
        await asyncio.sleep(0.05)
        assert {(await asked(makers))["maker"] for _ in range(5)} == {1}
        with pytest.raises(StoreUnavailable, match="in time"):
            await stuck
        await until(lambda: script.starts.count(0) == 2)  # one that hangs is replaced


@on_a_loop
async def test_a_request_that_finds_all_at_one_each_goes_to_who_stands_by_then_to_who_was_asked_first(
    _: Path,
) -> None:
    script = Script()
    async with running(script, Alias()) as makers:
        await until(all_hold(script, 1))
        script.hangs = {0, 1, 2}
        waiting = []

        def lines() -> list[int]:
            return [len(makers._lives[number].asked) for number in range(3)]

        async def lines_after_one_more() -> list[int]:
            waiting.append(asyncio.ensure_future(makers.answer("homefeed", USER)))
            await until(lambda: sum(lines()) == len(waiting))
            return lines()

        seen = [await lines_after_one_more() for _ in range(4)]
        assert seen == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1]]
        waiting.pop(0).cancel()
        waiting.pop(2).cancel()
        await until(lambda: sum(lines()) == len(waiting))
        seen = [await lines_after_one_more() for _ in range(3)]
        assert seen == [[1, 1, 1], [1, 2, 1], [2, 2, 1]], "with a line before each, who stands by keeps out"
        for each in waiting:
            each.cancel()


@on_a_loop
async def test_what_an_ended_maker_was_asked_is_asked_of_another(_: Path) -> None:
    script = Script()
    async with running(script, Alias()) as makers:
        await until(all_hold(script, 1))
        script.hangs = {0}
        caught = asyncio.ensure_future(asked(makers))
        await asyncio.sleep(0.05)
        script.living[0].kill()
        assert (await caught)["maker"] == 1
        script.hangs = set()
        await until(lambda: script.starts.count(0) == 2 and script.living[0].release == 1)


@on_a_loop
async def test_refusals_keep_their_name_and_failures_are_failures(_: Path) -> None:
    async with running(Script(), Alias()) as makers:
        await until(lambda: makers.ready)
        with pytest.raises(RequestError) as refused:
            await asked(makers, "nobody")
        assert (refused.value.name, refused.value.message, refused.value.http_status) == (
            "BadId",
            "no such form",
            400,
        )
        assert refused.value.retry_after_s is None and refused.value.why == "deadline"
        with pytest.raises(RuntimeError, match="KeyError"):
            await asked(makers, "broken")
        assert (await asked(makers))["release"] == 1


@on_a_loop
async def test_a_new_release_goes_round_while_two_answer(_: Path) -> None:
    script, alias = Script(), Alias()
    async with running(script, alias) as makers:
        await until(all_hold(script, 1))
        script.may_load.clear()
        alias.version = 2
        await until(lambda: any(f.told == 2 for f in script.told.get(2, []) if f.kind is Kind.LOAD))
        for _ in range(5):
            assert (await asked(makers))["maker"] != 2, "who loads is not asked"
        script.may_load.set()
        await until(all_hold(script, 2))
        assert makers.version == 2
        alias.version = 1
        await until(all_hold(script, 1))


@on_a_loop
async def test_a_rejected_release_stops_where_it_was_tried(_: Path) -> None:
    script, alias = Script(rejects={2}), Alias()
    async with running(script, alias) as makers:
        await until(all_hold(script, 1))
        alias.version = 2
        tried = lambda: sum(f.told == 2 for told in script.told.values() for f in told)  # noqa: E731
        await until(lambda: tried() == 1)
        script.living[0].kill()
        await until(lambda: script.starts.count(0) == 2 and script.living[0].release == 1)
        assert tried() == 1 and (await asked(makers))["release"] == 1, "what comes anew serves as the others do"
        alias.version = 3
        await until(all_hold(script, 3))
        script.rejects = set()
        alias.version = 2
        await until(all_hold(script, 2))  # the alias has moved since: it is tried again


@pytest.mark.parametrize("unfit", ["rejects", "kills"])
def test_a_rejected_release_is_tried_again_after_a_while(unfit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        script, alias = Script(**{unfit: {2}}), Alias()
        async with running(script, alias) as makers:
            await until(all_hold(script, 1))
            alias.version = 2
            await until(lambda: makers._rejected.version == 2 and all_hold(script, 1)())
            setattr(script, unfit, set())
            monkeypatch.setattr("bentos.rejected.AGAIN_S", 0.0)
            await until(all_hold(script, 2))

    asyncio.run(asyncio.wait_for(scenario(), 150))


@on_a_loop
async def test_a_release_that_ends_whoever_loads_it_is_given_up(_: Path) -> None:
    script, alias = Script(kills={2}), Alias()
    async with running(script, alias) as makers:
        await until(all_hold(script, 1))
        alias.version = 2
        await until(lambda: len(script.starts) == 3 + DEATHS and all_hold(script, 1)())
        assert set(script.starts[3:]) == {2}, "none that answers was taken"
        assert (await asked(makers))["release"] == 1
        alias.version = 3
        await until(all_hold(script, 3))


@on_a_loop
async def test_a_start_while_the_registry_is_down_serves_what_was_served_last(_: Path) -> None:
    script, alias = Script(), Alias()
    alias.version, alias.noted, alias.down = 2, 1, True
    async with running(script, alias):
        await until(all_hold(script, 1))
        alias.down = False
        await until(all_hold(script, 2))


@on_a_loop
async def test_a_look_that_fails_is_not_the_last(_: Path) -> None:
    script, alias, broken = Script(), Alias(), [OSError("no note")] * 2
    alias.down = True

    def served_last() -> int | None:
        if broken:
            raise broken.pop()
        return 1

    async with running(script, alias) as makers:
        makers._served_last = served_last
        await until(all_hold(script, 1))
        assert broken == []


def test_trouble_that_lasts_is_said_when_it_comes_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def no_life(makers: Makers, number: int) -> None:
        """Nobody answers here."""

    async def follows() -> None:
        makers = Makers(Script().start, alias, {}, count=2, poll_s=0.001)
        running = asyncio.ensure_future(makers.run())
        for alias.down in (True, False):
            alias.looks = 0
            await until(lambda: alias.looks >= 3)
        running.cancel()
        makers.close()

    alias = Alias()
    monkeypatch.setattr(Makers, "_live", no_life)
    asyncio.run(follows())
    told = [(r.levelname, r.getMessage(), r.exc_info is not None) for r in caplog.records]
    assert told == [
        ("ERROR", "the alias cannot be read: ConnectionError('the registry is down')", True),
        ("WARNING", "the alias cannot be read: no longer", False),
    ]


@pytest.mark.parametrize("unfit", [{"rejects": {2}}, {"kills": {2}}])
def test_a_look_while_the_registry_is_down_brings_no_rejected_release_back(unfit: dict[str, set[int]]) -> None:
    async def scenario() -> None:
        script, alias = Script(**unfit), Alias()
        alias.noted = 1

        async def looks() -> None:
            enough = alias.looks + 3
            await until(lambda: alias.looks >= enough)

        async with running(script, alias) as makers:
            await until(all_hold(script, 1))
            alias.version = 2
            await until(lambda: makers._rejected.version == 2 and all_hold(script, 1)())
            starts, loads = list(script.starts), {n: len(told) for n, told in script.told.items()}
            for alias.down in (True, False):
                await looks()
            assert makers._rejected.version == 2 and script.starts == starts
            assert {n: len(told) for n, told in script.told.items()} == loads

    asyncio.run(asyncio.wait_for(scenario(), 150))


@on_a_loop
async def test_what_only_one_maker_rejects_is_tried_there_again(_: Path) -> None:
    script, alias = Script(), Alias()
    async with running(script, alias):
        await until(all_hold(script, 1))
        script.rejects_once = {0: 2}
        alias.version = 2
        await until(all_hold(script, 2))
        assert script.rejects_once == {}


@on_a_loop
async def test_closed_while_makers_start_none_is_left(_: Path) -> None:
    script, gate = Script(), threading.Event()
    start = script.start

    def slow(number: int) -> Any:
        gate.wait(20)
        return start(number)

    script.start = slow  # type: ignore[method-assign]
    async with running(script, Alias()):
        await asyncio.sleep(0.05)
    gate.set()
    await until(lambda: len(script.starts) == 3)
    for each in list(script.living.values()):
        await asyncio.to_thread(each.join, 10)
        assert not each.thread.is_alive()


@on_a_loop
async def test_a_maker_that_cannot_start_is_started_again(_: Path) -> None:
    script, refused = Script(), [OSError("no memory")] * 2
    start = script.start

    def refusing(number: int) -> Any:
        if number == 1 and refused:
            raise refused.pop()
        return start(number)

    script.start = refusing  # type: ignore[method-assign]
    async with running(script, Alias()):
        await until(all_hold(script, 1))
        assert refused == []


@on_a_loop
async def test_a_load_that_fails_is_tried_again(_: Path) -> None:
    script, alias = Script(fails=[2, 2]), Alias()
    async with running(script, alias):
        await until(all_hold(script, 1))
        alias.version = 2
        await until(all_hold(script, 2))
        assert script.fails == []


@on_a_loop
async def test_lines_of_a_maker_are_in_the_log(folder: Path) -> None:
    script, log = Script(), EventLog.open(folder, "impressions")
    record = ActionRecord(event_id=5, user_id=7, pin_id=3, action="save", timestamp_ms=1, surface="homefeed")
    async with running(script, Alias(), {"impressions": log}):
        await until(all_hold(script, 1))
        lines = orjson.dumps(["impressions", [5]]) + b"\n" + to_line(record)
        script.living[0].say(Kind.LINES, lines)
        await until(lambda: list(read(folder, "impressions")) == [record])
    log.close()


@on_a_loop
async def test_what_makers_have_to_log_when_they_end_is_kept(folder: Path) -> None:
    record = ActionRecord(event_id=5, user_id=7, pin_id=3, action="save", timestamp_ms=1, surface="homefeed")
    script = Script(last_words=orjson.dumps(["candidates", [5]]) + b"\n" + to_line(record))
    log = EventLog.open(folder, "candidates")
    async with running(script, Alias(), {"candidates": log}) as makers:
        await until(all_hold(script, 1))
        closing = asyncio.ensure_future(asyncio.to_thread(makers.close))
        await asyncio.sleep(0)
        time.sleep(0.3)  # they end before the loop hears them
        await closing
        log.close()
    assert list(read(folder, "candidates")) == [record]


@on_a_loop
async def test_what_one_maker_showed_the_others_know_before_they_are_asked(_: Path) -> None:
    script = Script()
    async with running(script, Alias()) as makers:
        await until(all_hold(script, 1))

        def shown(maker: int) -> list[Any]:
            return [frame.told for frame in script.told[maker] if frame.kind is Kind.SHOWN]

        for pin in range(WAITING_FRAMES):
            script.living[0].say(Kind.SHOWN, orjson.dumps([7, [pin]]))
        every = [[7, [pin]] for pin in range(WAITING_FRAMES)]
        await until(lambda: shown(1) == shown(2) == every)  # so many are not held back
        script.living[0].say(Kind.SHOWN, b"[8,[3]]")
        script.hangs = {0}
        caught = asyncio.ensure_future(asked(makers))
        await asyncio.sleep(0.05)
        assert (await asked(makers))["maker"] == 1
        assert shown(1) == [*every, [8, [3]]] and shown(0) == []
        script.living[0].kill()
        await caught


@pytest.fixture
def compiled(stack: Stack) -> None:
    """Every kernel that a maker's users reach, in numba's cache: makers compile nothing against a clock."""
    for user in (fakes.FOLLOWER, fakes.COOK):
        asyncio.run(stack.service.homefeed(FeedRequest(user_id=user)))


def real(home: Path, **changes: Any) -> tuple[Makers, dict[str, EventLog]]:
    settings = Settings(home=home, mlflow_uri="sqlite://", makers=2, candidates_rate=1.0, **changes)
    logs = {log.stream: log for log in open_streams(settings)}
    start = forked(settings, open_planted, preload=FORKED_FROM)  # one process that forks serves all tests
    return Makers(start, lambda: 1, logs, count=2, poll_s=0.1), logs


@pytest.mark.usefixtures("compiled")
@pytest.mark.timeout(func_only=True)
@on_a_loop
async def test_real_makers_answer_log_and_are_killed_without_loss(folder: Path) -> None:
    """kill -9 of one of two: what was asked is answered all the same, and another takes its place."""
    makers, logs = real(folder)
    following = asyncio.ensure_future(makers.run())
    try:
        await until(lambda: list(makers.holding.values()) == [1, 1, 1])
        shown: set[int] = set()
        for _ in range(3):
            answer = await asked(makers, fakes.FOLLOWER)
            pins = {pin["pin_id"] for pin in answer["pins"]}
            assert len(pins) == FeedRequest(user_id=1).limit
            assert not pins & shown, "whoever made the page before, its pins are known"
            shown |= pins
        several = [asyncio.ensure_future(asked(makers, fakes.COOK)) for _ in range(8)]
        await asyncio.sleep(0.02)
        before = set(makers.holding)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        for answer in await asyncio.gather(*several):
            assert answer["release"] == 1 and answer["pins"]
        await until(lambda: len(makers.holding) == 3 and victim not in makers.holding)
        assert len(set(makers.holding) & before) == 2
        living = list(makers.holding)
    finally:
        makers.close()
        following.cancel()
    for log in logs.values():
        log.close()
    kept = [r for r in read(folder / "events", "impressions") if r.user_id == fakes.FOLLOWER]
    assert {r.pin_id for r in kept} == shown
    requests = {r.request_id for r in read(folder / "events", "impressions")}
    fetched = {r.request_id for r in read(folder / "events", "candidates")}
    assert fetched and fetched <= requests, "samples follow answers, and the killed one's may be lost"
    await until(lambda: not any(psutil.pid_exists(pid) for pid in living))  # no maker outlives its service
