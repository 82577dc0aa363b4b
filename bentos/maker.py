"""A maker: a process that makes answers for the service in front of it, and keeps nothing of its own on disk.

The service (`makers.py`) hears clients, takes in events and owns the logs; a maker has releases, features and a
thread for a feed. It ends when the socket between them does, however the service ended. Requests come and
answers go as JSON; what is logged of an answer goes ahead of it, as lines, and so does what it showed to whom,
which every maker must know before that user comes again.

There is no event loop here: one thread hears what is asked, and one of the pool makes the answer and says it.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import orjson

from bentos import frames, impressions
from bentos.answer_logs import STREAMS, logs_on, served_pins
from bentos.errors import RequestError
from bentos.event_log import Appended
from bentos.feast_features import FeastFeatures
from bentos.frames import Frame, Kind
from bentos.impressions import ServedPins
from bentos.loader import WHOLE
from bentos.parts import REQUESTS, HomefeedParts, feed_service, one_thread, open_holder
from bentos.pool import Pool
from bentos.settings import Settings
from validation.lake import Lake

logger = logging.getLogger("corkboard.maker")

LOADING_NICE = 10
"""By how much the thread that loads a release gives way: it may take a while, requests may not."""


class Line:
    """The maker's end of the line. What is said arrives in the order it was said, from whatever thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel, self._door = channel, threading.Lock()
        self._before: list[bytes] = []

    def say(self, kind: Kind, body: bytes, number: int = 0) -> None:
        """Send a frame, and what was to go ahead of one. A service that has ended hears nothing."""
        with self._door, contextlib.suppress(OSError):
            self._channel.sendall(b"".join([*self._before, frames.packed(kind, body, number)]))
            self._before.clear()

    def say_before(self, kind: Kind, body: bytes) -> None:
        """Send a frame ahead of whatever is said next: the service wakes once for both."""
        with self._door:
            self._before.append(frames.packed(kind, body))

    def heard(self) -> Iterator[Frame]:
        """What the service says, until it ends."""
        with self._channel.makefile("rb") as stream:
            while (frame := frames.read_blocking(stream)) is not None:
                yield frame


@dataclass(frozen=True)
class Made:
    """What a maker is made of. Its holder follows no alias: it serves what the service tells it to."""

    parts: HomefeedParts
    served: ServedPins


Open = Callable[[Settings, Line], Made]


def make(channel: socket.socket, settings: Settings, number: int, open_parts: Open) -> None:
    """The life of maker `number` at its end of a socket pair; the body of its process."""
    for ending in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; what has begun is still answered
        signal.signal(ending, signal.SIG_IGN)
    logging.basicConfig(
        level=logging.INFO, format=f"%(asctime)s maker {number} %(levelname)s %(name)s: %(message)s"
    )
    threading.Thread(target=_end_with_service, daemon=True).start()
    impressions.number_requests_of(number)
    _live(Line(channel), settings, open_parts)


def _end_with_service() -> None:
    """End this process with the one that started it, also where it is not at its line."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def open_maker(settings: Settings, line: Line) -> Made:
    """A maker of the settings' home. Raises what opening a home does."""
    one_thread()
    features, lake = FeastFeatures.open(settings), Lake(settings.lake)
    cores = len(os.sched_getaffinity(0))
    pool = Pool(settings.threads, width=max(1, cores // settings.makers))
    served = served_pins(settings, lake)
    logs = logs_on(settings, Told(served, line), [LinesTo(stream, line) for stream in STREAMS])
    holder = open_holder(settings, features, WHOLE)
    feed = feed_service(settings, holder.current, pool, logs)
    return Made(HomefeedParts(pool, holder, feed, None, lake), served)


class Told(ServedPins):
    """Remembers what users were shown, here and in every other maker."""

    def __init__(self, served: ServedPins, line: Line) -> None:
        super().__init__()
        self._here, self._line = served, line

    def add(self, user_id: int, pin_ids: list[int]) -> None:
        self._here.add(user_id, pin_ids)
        self._line.say_before(Kind.SHOWN, orjson.dumps([user_id, pin_ids]))

    def of(self, user_id: int) -> impressions.Ints:
        return self._here.of(user_id)


class LinesTo:
    """A stream of the service's, seen from a maker: what is appended is in the service's hands at once, and
    impressions are with the answer that they are of."""

    def __init__(self, stream: str, line: Line) -> None:
        self.stream = stream
        self._say = line.say_before if stream == impressions.STREAM else line.say

    def append_lines(self, event_ids: tuple[int, ...], lines: tuple[bytes, ...]) -> Future[Appended]:
        """Sent, and done; whether it reached the disk, the service's log of errors says."""
        ids = orjson.dumps([self.stream, event_ids])
        self._say(Kind.LINES, b"\n".join([ids, b"".join(lines)]))
        done: Future[Appended] = Future()
        done.set_result(Appended((True,) * len(lines)))
        return done

    def close(self) -> None:
        """Nothing is held."""


def _live(line: Line, settings: Settings, open_parts: Open) -> None:
    made = open_parts(settings, line)
    line.say(Kind.HELD, orjson.dumps({"release": None}))
    for frame in line.heard():
        if frame.kind is Kind.ASK:
            made.parts.pool.begin(_answer(made.parts, frame, line), _ended)
        elif frame.kind is Kind.SHOWN:
            made.served.add(*frame.told)
        elif frame.kind is Kind.LOAD:
            threading.Thread(target=_load, args=(made, frame.told, line), name="release", daemon=True).start()
    made.parts.close()


async def _answer(parts: HomefeedParts, frame: Frame, line: Line) -> None:
    name, _, body = frame.body.partition(b"\n")
    api = name.decode(errors="replace")
    try:
        answer = await parts.answer(api, REQUESTS[api].model_validate_json(body))
    except RequestError as error:
        told = [error.name, error.message, int(error.http_status), error.retry_after_s, error.why]
        line.say(Kind.REFUSAL, orjson.dumps(told), frame.number)
    except Exception as error:
        # The service says that it failed; what and where is for this process's log.
        logger.exception("a request for %s failed", api)
        line.say(Kind.FAILURE, repr(error).encode(), frame.number)
    else:
        line.say(Kind.ANSWER, answer, frame.number)


def _ended(_: None, error: BaseException | None) -> None:
    if error is not None:  # not of the request: those were answered
        logger.error("an answer was not made: %r", error)


def _load(made: Made, version: int, line: Line) -> None:
    """Serve release `version`, giving way to whoever else needs the machine; say what came of it."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICE)
    holder = made.parts.holder
    holder.serve(version)
    told = {
        "asked": version,
        "release": holder.current().version if holder.ready else None,
        "rejected": holder.rejected == version,
        "why": holder.why,
    }
    line.say(Kind.HELD, orjson.dumps(told))
