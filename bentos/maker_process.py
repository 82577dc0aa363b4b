"""A maker's process as its service sees it: how it is started, what it holds, and what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from bentos import frames, maker
from bentos.frames import Frame, Kind
from bentos.hop import HopRefused
from bentos.settings import Settings

WAITING_FRAMES = 64
"""Frames that may wait for one that wakes a maker: the one that stands by is asked little."""

LOAD_S = 600.0
"""Longest time in which a maker opens what it needs, or loads a release; then it is replaced."""


class Ended(Exception):
    """A maker's process ended with the request."""


class Process(Protocol):
    """A maker's process, seen from the service. Neither call minds that it has ended."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def join(self, timeout_s: float) -> None: ...


Start = Callable[[int], tuple[Process, socket.socket]]
"""Starts the maker of a number; its process, and the service's end of the line to it. Blocks."""


@dataclass(eq=False)
class Maker:
    """One process, as the service sees it."""

    number: int
    process: Process
    end: frames.Hearing
    """The service's end of the line to it."""
    opened: bool = False
    """Whether it has what it needs to load a release."""
    release: int | None = None
    loads: int | None = None
    """The version that it is to load, or loads."""
    since: float = field(default_factory=time.monotonic)
    """When it began what it is at: opening, or loading."""
    heard: float = field(default_factory=time.monotonic)
    """When it said something last."""
    before: list[bytes] = field(default_factory=list)
    """Frames that go with the next one."""
    asked: dict[int, asyncio.Future[bytes]] = field(default_factory=dict)
    """What it has not answered yet, by number."""

    @property
    def late(self) -> bool:
        """Whether it has been opening or loading for longer than any maker should."""
        return (not self.opened or self.loads is not None) and time.monotonic() - self.since > LOAD_S

    def replace(self) -> None:
        """End it, whatever it does: its line with it, so that another comes."""
        self.process.kill()
        self.end.hang_up()

    def say(self, kind: Kind, body: bytes, number: int = 0) -> None:
        """Send a frame, and what was to come before one."""
        self.before.append(frames.packed(kind, body, number))
        self.end.say(b"".join(self.before))
        self.before.clear()

    def say_before(self, kind: Kind, body: bytes) -> None:
        """Send a frame before the next one that is said, or with others that wait: none wakes a maker alone."""
        self.before.append(frames.packed(kind, body))
        if len(self.before) >= WAITING_FRAMES:
            self.end.say(b"".join(self.before))
            self.before.clear()

    def hears(self, frame: Frame) -> None:
        """An answer, of whatever kind, to what was asked of it."""
        waits = self.asked.pop(frame.number, None)
        if waits is None or waits.done():
            return
        if frame.kind is Kind.ANSWER:
            waits.set_result(frame.body)
        elif frame.kind is Kind.REFUSAL:
            name, message, status, again, why = frame.told
            refused = HopRefused(name, message, HTTPStatus(status), why)
            refused.retry_after_s = again
            waits.set_exception(refused)
        else:
            waits.set_exception(RuntimeError(f"maker {self.number}: {frame.body.decode()}"))

    @property
    def line(self) -> tuple[int, int]:
        """Orders makers by when they are free: by how much they were asked, then by what was asked first."""
        return len(self.asked), next(iter(self.asked), 0)


class Forked:
    """A process by pid and start time, whoever its parent is: `multiprocessing` takes the children of a
    forkserver that has ended for dead."""

    def __init__(self, pid: int) -> None:
        import psutil

        self.pid = pid
        self._process, self._gone = psutil.Process(pid), psutil.NoSuchProcess
        self._late = psutil.TimeoutExpired

    def kill(self) -> None:
        with contextlib.suppress(self._gone):
            self._process.kill()

    def join(self, timeout_s: float) -> None:
        with contextlib.suppress(self._gone, self._late):
            self._process.wait(timeout_s)


def forked(
    settings: Settings, open_parts: maker.Open = maker.open_maker, preload: str = "bentos.maker_imports"
) -> Start:
    """`Start` of real processes, forked from one that has imported what they need and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])

    def start(number: int) -> tuple[Process, socket.socket]:
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            process = context.Process(
                target=maker.make,
                args=(theirs, settings, number, open_parts),
                name=f"maker-{number}",
                daemon=True,
            )
            process.start()
        assert process.pid is not None
        return Forked(process.pid), ours

    return start
