"""Makers behind a service: processes that make answers, so that no request's Python waits for another's.

The service starts them, gives each request to the one that is free first, and follows the releases' alias for
all of them (`rotation.py`). A maker that ends is replaced, and what it was asked is asked of another. What it
had logged of an answer that never came stays in the logs: somebody was nearly shown it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import itertools
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import BaseModel

from bentos import frames, rotation
from bentos.errors import NoRelease, StoreUnavailable
from bentos.event_log import EventLog, LogClosed, LogFull
from bentos.frames import Frame, Kind
from bentos.maker_process import LOAD_S, Ended, Maker, Process, Start
from bentos.metrics import forget_process, metrics
from bentos.rejected import Rejected
from bentos.rotation import STAND_BY
from bentos.trouble import Trouble
from validation.kept_release import nothing_noted

logger = logging.getLogger("corkboard.makers")

ASK_S = 12.0
"""Longest wait for an answer: past what a funnel's deadlines sum up to, and within the service's own."""

DEATHS = 2
"""Makers that may end while they load a release before it counts as rejected."""

RESTART_S, SLOWEST_RESTART_S = 0.5, 30.0
"""Wait before a maker is replaced; twice as long after each that ended before it held a release."""

CLOSE_S = 5.0


class Makers:
    """`count` makers that answer, and STAND_BY more. All but `close` is for the event loop it is used on."""

    def __init__(
        self,
        start: Start,
        newest: Callable[[], int | None],
        logs: Mapping[str, EventLog],
        *,
        count: int,
        poll_s: float,
        ask_s: float = ASK_S,
        served_last: Callable[[], int | None] = nothing_noted,
    ) -> None:
        """`newest` gives the version that the alias names, and blocks; `logs`, those of answers, by stream.
        `served_last` gives the version that was served last, for a start while the alias cannot be read."""
        self._start, self._newest, self._logs, self._served_last = start, newest, logs, served_last
        self._count, self._poll_s, self._ask_s = count, poll_s, ask_s
        self._lives: dict[int, Maker] = {}
        """Those there is a line to, by number."""
        self._started: dict[int, tuple[Process, socket.socket]] = {}
        """All there are, with the service's end of the line, which can be shut without the event loop."""
        self._wanted: int | None = None
        self._rejected = Rejected()
        """What the alias names, where it is left alone."""
        self._deaths = 0
        """Makers that ended while they loaded what the alias names."""
        self._last: int | None = None
        """The release that was served last."""
        self._why = "no release was promoted yet; run `corkboard promote`"
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._unread = Trouble(logger, "the alias cannot be read")
        self._unfollowed = Trouble(logger, "the alias is not followed")
        self._loop: asyncio.AbstractEventLoop | None = None
        atexit.register(self.close)  # before multiprocessing's own, which waits for processes without end

    async def run(self) -> None:
        """Start the makers, and follow the alias until closed."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._count + STAND_BY):
            self._spawn(self._live(number))
        while not self._closing:
            try:
                await self._follow()
                self._unfollowed.over()
            except Exception as error:
                # Answers go on, and the next look may not meet what this one did.
                self._unfollowed.met(error)
            await asyncio.sleep(self._poll_s)

    async def _follow(self) -> None:
        """Look at the alias and at the makers once."""
        newest = await self._look()
        if newest != self._wanted:
            self._wanted, self._deaths = newest, 0
            self._rejected.put(None)
        for each in [each for each in self._lives.values() if each.late]:
            logger.error("maker %d is not done in %.0f s and is replaced", each.number, LOAD_S)
            each.replace()
        self._rotate()

    async def _look(self) -> int | None:
        """What the alias names. Where it cannot be read, what it named before; while no maker holds a release,
        what was served last, if that is known."""
        try:
            newest = await asyncio.to_thread(self._newest)
        except Exception as error:
            # What is served is served on, whatever the registry's trouble.
            self._unread.met(error)
        else:
            self._unread.over()
            return newest
        held = any(each.release is not None for each in self._opened)
        last = None if held else await asyncio.to_thread(self._served_last)
        return self._wanted if last is None else last

    @property
    def ready(self) -> bool:
        return bool(self._answering())

    @property
    def holding(self) -> dict[int, int | None]:
        """The release that each maker's process holds, by pid."""
        return {each.process.pid: each.release for each in self._opened}

    @property
    def version(self) -> int:
        """The release that is served: while one goes round, the new one. Raises NoRelease before the first."""
        held = [each.release for each in self._answering()]
        if held:
            self._last = self._wanted if self._wanted in held else Counter(held).most_common(1)[0][0]
        if self._last is None:
            raise NoRelease(f"no release is loaded: {self._why}")
        return self._last

    async def answer(self, api: str, request: BaseModel) -> bytes:
        """The JSON of the answer. Raises NoRelease, StoreUnavailable where makers end under it or say nothing,
        and as a HopRefused what the maker refuses with."""
        body = b"\n".join([api.encode(), request.model_dump_json().encode()])
        end = time.monotonic() + self._ask_s
        for _ in range(2):
            chosen = self._choice()
            try:
                return await self._asked(chosen, body, end - time.monotonic())
            except Ended:
                logger.warning("a request for %s is asked again: maker %d ended", api, chosen.number)
        raise StoreUnavailable("the processes that make answers ended under the request; ask again")

    async def _asked(self, chosen: Maker, body: bytes, wait_s: float) -> bytes:
        number, began = next(self._numbers), time.monotonic()
        loop = asyncio.get_running_loop()
        waits = chosen.asked[number] = loop.create_future()
        late = loop.call_later(wait_s, _give_up, waits)
        chosen.say(Kind.ASK, body, number)
        try:
            return await waits
        except TimeoutError as error:
            if (
                chosen.heard < began and wait_s > self._ask_s / 2
            ):  # a repeat may have had no time to be answered
                logger.error("maker %d says nothing for %.0f s and is replaced", chosen.number, wait_s)
                chosen.replace()
            raise StoreUnavailable("no answer was made in time; ask again") from error
        finally:
            late.cancel()
            chosen.asked.pop(number, None)

    def _choice(self) -> Maker:
        able = rotation.able(self._opened, self._to_serve)
        if not able:
            raise NoRelease(f"no release is loaded: {self._why}")
        chosen = min(able[: self._count], key=lambda each: each.line)
        if len(chosen.asked) == 1:  # where there are lines the cores are full, and one more would share them
            return next((each for each in able[self._count :] if not each.asked), chosen)
        return chosen

    def _answering(self) -> list[Maker]:
        return rotation.answering(self._opened, self._to_serve, self._count)

    @property
    def _opened(self) -> list[Maker]:
        return [each for each in self._lives.values() if each.opened]

    @property
    def _to_serve(self) -> int | None:
        """What the alias names; where that was rejected, what is served: a maker that comes anew needs it."""
        if self._wanted != self._rejected.version:
            return self._wanted
        held = Counter(each.release for each in self._opened if each.release is not None)
        return held.most_common(1)[0][0] if held else None

    def _rotate(self) -> None:
        """Have the next maker load what is to be served."""
        wanted = self._to_serve
        if wanted is None or self._closing:
            return
        while (chosen := rotation.next_to_load(self._opened, wanted, self._count)) is not None:
            chosen.loads, chosen.since = wanted, time.monotonic()
            self._spawn(self._loading(chosen, wanted))

    @staticmethod
    async def _loading(chosen: Maker, version: int) -> None:
        """Have a maker load a release once it has answered what it was asked."""
        if chosen.asked:
            await asyncio.wait(list(chosen.asked.values()))
        chosen.say(Kind.LOAD, orjson.dumps(version))

    async def _live(self, number: int) -> None:
        """A process under this number, and another whenever it ends."""
        wait_s = RESTART_S
        while not self._closing:
            why, held = "it ended", False
            try:
                held = await self._life(number)
            except Exception as error:
                # No memory or process to be had, or a frame that is none: this number goes on living.
                why = repr(error)
            if self._closing:
                return
            wait_s = RESTART_S if held else min(2 * wait_s, SLOWEST_RESTART_S)
            logger.error("maker %d: %s; another starts in %.1f s", number, why, wait_s)
            self._why = f"the processes that make answers end ({why}) or are starting; see the service's log"
            await asyncio.sleep(wait_s)

    async def _life(self, number: int) -> bool:
        """Start a process and hear it to its end; whether it held a release."""
        process, channel = await asyncio.to_thread(self._begin, number)
        end = frames.Hearing(lambda frame: self._hears(lives, frame))
        lives = Maker(number, process, end)
        await end.connect(channel)
        self._lives[number] = lives
        try:
            self._rotate()  # what it has said already did not count
            await end.ended
        finally:
            self._lost(lives)
        return lives.release is not None

    def _begin(self, number: int) -> tuple[Process, socket.socket]:
        before = self._started.pop(number, None)
        if before is not None:
            before[0].kill()
            before[1].close()
        process, channel = self._start(number)
        self._started[number] = process, channel.dup()
        if self._closing:
            process.kill()
        return process, channel

    def _hears(self, lives: Maker, frame: Frame) -> None:
        """What a maker says."""
        lives.heard = time.monotonic()
        match frame.kind:
            case Kind.ANSWER | Kind.REFUSAL | Kind.FAILURE:
                lives.hears(frame)
            case Kind.SHOWN:
                for other in self._lives.values():  # those that are still opening too: the line keeps it
                    if other is not lives:
                        other.say_before(Kind.SHOWN, frame.body)
            case Kind.LINES:
                self._keep(frame.body)
            case Kind.HELD:
                self._held(lives, frame.told)

    def _held(self, lives: Maker, told: dict[str, Any]) -> None:
        """A maker says what it holds: once it is open, and after a load."""
        lives.opened, lives.release, lives.loads = True, told["release"], None
        asked = told.get("asked")
        if asked is not None and told["release"] != asked:
            self._why = told["why"]
            others = any(each.release == asked for each in self._opened)
            if told["rejected"] and asked == self._wanted and not others:
                self._rejected.put(asked)
            return  # what failed, and what only this maker rejects, is tried again at the next look
        if asked is not None:
            metrics().release.set(asked)
            if asked == self._wanted:
                self._rejected.put(None)
                self._deaths = 0
        self._rotate()

    def _lost(self, lives: Maker) -> None:
        """A maker has ended, or its line has."""
        if self._lives.get(lives.number) is lives:
            del self._lives[lives.number]
        lives.replace()
        forget_process(lives.process.pid)
        for waits in lives.asked.values():
            if not waits.done():
                waits.set_exception(Ended())
        if lives.loads is not None and lives.loads == self._wanted and not self._closing:
            self._deaths += 1
            if self._deaths >= DEATHS and not any(each.release == lives.loads for each in self._opened):
                self._rejected.put(lives.loads)
                self._deaths = 0
                logger.error("release %d is rejected: makers end while they load it", lives.loads)

    def _keep(self, body: bytes) -> None:
        """Lines that a maker wrote, into the log. One that is full or closed costs its lines."""
        ids, _, text = body.partition(b"\n")
        stream, event_ids = orjson.loads(ids)
        try:
            kept = self._logs[stream].append_text(event_ids, text)
        except (LogClosed, LogFull) as error:
            logger.error("%d records are lost: %s", len(event_ids), error)
            return
        kept.add_done_callback(_report)

    def _spawn(self, work: Any) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End all makers. Waits for their processes CLOSE_S at most, then kills them; blocks meanwhile. What
        they still had to log is kept where the event loop can hear it: on another thread, and running. Safe to
        call twice."""
        self._closing = True
        atexit.unregister(self.close)
        started = list(self._started.values())
        self._started.clear()
        for _, line in started:
            with contextlib.suppress(OSError):  # the other end is gone
                line.shutdown(socket.SHUT_WR)
        end = time.monotonic() + CLOSE_S
        for process, line in started:
            process.join(max(0.1, end - time.monotonic()))
            process.kill()
            line.close()
        while self._lives and self._hears_elsewhere and time.monotonic() < end:
            time.sleep(0.01)

    @property
    def _hears_elsewhere(self) -> bool:
        """Whether the event loop runs, on another thread than this."""
        with contextlib.suppress(RuntimeError):  # no loop on this one
            return asyncio.get_running_loop() is not self._loop
        return self._loop is not None and self._loop.is_running()


def _give_up(waits: asyncio.Future[bytes]) -> None:
    if not waits.done():
        waits.set_exception(TimeoutError())


def _report(done: Any) -> None:
    if error := done.exception():
        logger.error("records are lost: %s", error)
