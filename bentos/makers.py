"""Makers behind a service: processes that make answers, so that no request's Python waits for another's.

The service starts them, gives each request to the one with the fewest, and follows the releases' alias for all
of them (`rotation.py`). A maker that ends is replaced, and what it was asked is asked of another: makers only
read. One that lets a request wait ASK_S is taken to hang, and replaced too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import multiprocessing
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from pydantic import BaseModel

from bentos import frames, maker, rotation
from bentos.errors import NoRelease, StoreUnavailable
from bentos.event_log import EventLog, LogClosed, LogFull
from bentos.frames import Frame, Kind
from bentos.hop import HopRefused
from bentos.metrics import metrics
from bentos.rotation import Seen
from bentos.settings import Settings

logger = logging.getLogger("corkboard.makers")

STAND_BY = 1
"""Makers beside those that answer: the next release is loaded there."""

ASK_S = 12.0
"""Longest wait for an answer: past what a funnel's deadlines sum up to, and within the service's own."""

RESTART_S, SLOWEST_RESTART_S = 0.5, 30.0
"""Wait before a maker is replaced; twice as long after each that ended before it held a release."""

CLOSE_S = 5.0


class Ended(Exception):
    """A maker's process ended with the request."""


class Process(Protocol):
    """What is needed of `multiprocessing.Process`."""

    @property
    def pid(self) -> int | None: ...

    def kill(self) -> None: ...

    def join(self, timeout: float | None = None) -> None: ...


Start = Callable[[int], tuple[Process, socket.socket]]
"""Starts the maker of a number; its process, and the service's end of the line to it. Blocks."""


@dataclass(eq=False)
class Maker:
    """One process, as the service sees it."""

    number: int
    process: Process
    writer: asyncio.StreamWriter
    release: int | None = None
    loads: int | None = None
    """The version that it is to load, or loads."""
    asked: dict[int, asyncio.Future[bytes]] = field(default_factory=dict)
    """What it has not answered yet, by number."""

    def say(self, kind: Kind, body: bytes, number: int = 0) -> None:
        self.writer.write(frames.packed(kind, body, number))

    def hears(self, frame: Frame) -> None:
        """An answer, of whatever kind, to what was asked of it."""
        waits = self.asked.pop(frame.number, None)
        if waits is None or waits.done():
            return
        if frame.kind is Kind.ANSWER:
            waits.set_result(frame.body)
        elif frame.kind is Kind.REFUSAL:
            name, message, status, again = frame.told
            refused = HopRefused(name, message, HTTPStatus(status))
            refused.retry_after_s = again
            waits.set_exception(refused)
        else:
            waits.set_exception(RuntimeError(f"maker {self.number}: {frame.body.decode()}"))

    @property
    def seen(self) -> Seen:
        return Seen(self.number, self.release, self.loads is not None)


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
    ) -> None:
        """`newest` gives the version that the alias names, and blocks; `logs`, those of answers, by stream."""
        self._start, self._newest, self._logs = start, newest, logs
        self._count, self._poll_s, self._ask_s = count, poll_s, ask_s
        self._makers: dict[int, Maker] = {}
        """Those that have opened what they need."""
        self._started: dict[int, tuple[Process, socket.socket]] = {}
        """All there are, with the service's end of the line, which can be shut without the event loop."""
        self._wanted: int | None = None
        self._rejected: int | None = None
        self._why = "no release was promoted yet; run `corkboard promote`"
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    async def run(self) -> None:
        """Start the makers, and follow the alias until closed."""
        for number in range(self._count + STAND_BY):
            self._spawn(self._live(number))
        while not self._closing:
            try:
                self._wanted = await asyncio.to_thread(self._newest)
            except Exception as error:
                # What is served is served on, whatever the registry's trouble.
                logger.error("the alias cannot be read: %r", error)
            self._rotate()
            await asyncio.sleep(self._poll_s)

    @property
    def ready(self) -> bool:
        return bool(self._answering())

    @property
    def holding(self) -> dict[int | None, int | None]:
        """The release that each maker's process holds, by pid."""
        return {each.process.pid: each.release for each in self._makers.values()}

    @property
    def version(self) -> int:
        """A release that is served: while one goes round, either. Raises NoRelease."""
        return self._release_of(self._choice())

    async def answer(self, api: str, request: BaseModel) -> bytes:
        """The JSON of the answer. Raises NoRelease, StoreUnavailable where makers end under it, and as a
        HopRefused what the maker refuses with."""
        body = b"\n".join([api.encode(), request.model_dump_json().encode()])
        for _ in range(2):
            chosen = self._choice()
            try:
                return await self._asked(chosen, body)
            except Ended:
                logger.warning("a request for %s is asked again: maker %d ended", api, chosen.number)
        raise StoreUnavailable("the processes that make answers ended under the request; ask again")

    async def _asked(self, chosen: Maker, body: bytes) -> bytes:
        number = next(self._numbers)
        waits = chosen.asked[number] = asyncio.get_running_loop().create_future()
        chosen.say(Kind.ASK, body, number)
        try:
            return await asyncio.wait_for(waits, self._ask_s)
        except TimeoutError as error:
            logger.error("maker %d did not answer in %.0f s and is replaced", chosen.number, self._ask_s)
            chosen.process.kill()
            raise StoreUnavailable("no answer was made in time; ask again") from error
        finally:
            chosen.asked.pop(number, None)

    def _choice(self) -> Maker:
        able = self._answering()
        if not able:
            raise NoRelease(f"no release is loaded: {self._why}")
        return min(able, key=lambda each: len(each.asked))

    def _answering(self) -> list[Maker]:
        numbers = rotation.answering(self._seen, self._to_serve, self._count)
        return [self._makers[number] for number in numbers]

    @property
    def _seen(self) -> list[Seen]:
        return [each.seen for each in self._makers.values()]

    @staticmethod
    def _release_of(chosen: Maker) -> int:
        assert chosen.release is not None
        return chosen.release

    def _rotate(self) -> None:
        """Have the next maker load what is to be served."""
        wanted = self._to_serve
        if wanted is None or self._closing:
            return
        while (number := rotation.next_to_load(self._seen, wanted, self._count)) is not None:
            chosen = self._makers[number]
            chosen.loads = wanted
            self._spawn(self._loading(chosen, wanted))

    @property
    def _to_serve(self) -> int | None:
        """What the alias names; where that was rejected, what is served: a maker that comes anew needs it."""
        if self._wanted != self._rejected:
            return self._wanted
        held = Counter(seen.release for seen in self._seen if seen.release is not None)
        return held.most_common(1)[0][0] if held else None

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
            why, held = "ended", False
            try:
                process, channel = await asyncio.to_thread(self._begin, number)
                reader, writer = await asyncio.open_connection(sock=channel)
                lives = Maker(number, process, writer)
                try:
                    await self._hear(lives, reader)
                finally:
                    self._lost(lives)
                held = lives.release is not None
            except Exception as error:
                # No memory or process to be had, or a frame that is none: this number goes on living.
                why = repr(error)
            if self._closing:
                return
            wait_s = RESTART_S if held else min(2 * wait_s, SLOWEST_RESTART_S)
            logger.error("maker %d: %s; another starts in %.1f s", number, why, wait_s)
            await asyncio.sleep(wait_s)

    def _begin(self, number: int) -> tuple[Process, socket.socket]:
        if number in self._started:
            process, line = self._started.pop(number)
            process.kill()
            line.close()
        process, channel = self._start(number)
        self._started[number] = process, channel.dup()
        if self._closing:
            process.kill()
        return process, channel

    async def _hear(self, lives: Maker, reader: asyncio.StreamReader) -> None:
        """What a maker says, to its end."""
        while (frame := await frames.read(reader)) is not None:
            match frame.kind:
                case Kind.ANSWER | Kind.REFUSAL | Kind.FAILURE:
                    lives.hears(frame)
                case Kind.SHOWN:
                    for other in self._makers.values():
                        if other is not lives:
                            other.say(Kind.SHOWN, frame.body)
                case Kind.LINES:
                    self._keep(frame.body)
                case Kind.HELD:
                    self._makers[lives.number] = lives
                    self._held(lives, frame.told)

    def _held(self, lives: Maker, told: dict[str, Any]) -> None:
        """A maker says what it holds: at its start, and after a load."""
        lives.release, lives.loads = told["release"], None
        if told.get("why"):
            self._why = told["why"]
        if told.get("rejected"):
            self._rejected = told["asked"]
        elif told["release"] == told.get("asked"):  # one that failed is asked again at the next look
            if told["release"] is not None and told["release"] == self._wanted:
                self._rejected = None
            self._rotate()
        if lives.release is not None:
            metrics().release.set(lives.release)

    def _lost(self, lives: Maker) -> None:
        if self._makers.get(lives.number) is lives:
            del self._makers[lives.number]
        lives.writer.close()
        for waits in lives.asked.values():
            if not waits.done():
                waits.set_exception(Ended())

    def _keep(self, body: bytes) -> None:
        """Lines that a maker wrote, into the log. One that is full or closed costs its lines."""
        ids, _, lines = body.partition(b"\n")
        stream, event_ids = orjson.loads(ids)
        try:
            kept = self._logs[stream].append_lines(tuple(event_ids), tuple(lines.splitlines(keepends=True)))
        except (LogClosed, LogFull) as error:
            logger.error("%d records are lost: %s", len(event_ids), error)
            return
        kept.add_done_callback(_report)

    def _spawn(self, work: Any) -> None:
        self._tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End all makers. Waits for their processes CLOSE_S at most, then kills them; blocks meanwhile."""
        self._closing = True
        for _, line in self._started.values():
            with contextlib.suppress(OSError):  # the other end is gone
                line.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + CLOSE_S
        for process, line in self._started.values():
            process.join(max(0.1, end - time.monotonic()))
            process.kill()
            line.close()


def _report(done: Any) -> None:
    if error := done.exception():
        logger.error("records are lost: %s", error)


def forked(
    settings: Settings, open_parts: maker.Open = maker.open_maker, preload: str = "bentos.maker_imports"
) -> Start:
    """`Start` of real processes, forked from one that has imported what they need and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])

    def start(number: int) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        process = context.Process(
            target=maker.make, args=(theirs, settings, number, open_parts), name=f"maker-{number}", daemon=True
        )
        process.start()
        theirs.close()
        return process, ours

    return start
