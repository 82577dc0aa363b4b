"""Makers that follow a script in a thread each, at the real end of a real socket."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from bentos.frames import Frame, Kind
from bentos.maker import Line


@dataclass
class Script:
    """What all makers do, and what they did."""

    rejects: set[int] = field(default_factory=set)
    rejects_once: dict[int, int] = field(default_factory=dict)
    """Maker -> the version that it rejects the next time."""
    kills: set[int] = field(default_factory=set)
    """Versions that end whoever loads them."""
    fails: list[int] = field(default_factory=list)
    """Versions whose next load fails, once for each time they are named."""
    may_load: threading.Event = field(default_factory=threading.Event)
    hangs: set[int] = field(default_factory=set)
    """Numbers of makers that answer nothing."""
    last_words: bytes = b""
    """Lines that each maker still has to log when it is to end."""
    starts: list[int] = field(default_factory=list)
    told: dict[int, list[Frame]] = field(default_factory=dict)
    """What each maker was told, but for questions."""
    living: dict[int, Scripted] = field(default_factory=dict)
    _pids: Callable[[], int] = field(default_factory=lambda: itertools.count(1000).__next__)

    def __post_init__(self) -> None:
        self.may_load.set()

    def start(self, number: int) -> tuple[Scripted, socket.socket]:
        """`makers.Start`."""
        ours, theirs = socket.socketpair()
        made = Scripted(self, number, theirs, self._pids())
        self.starts.append(number)
        self.living[number] = made
        made.thread.start()
        return made, ours


class Scripted:
    """One of them; stands for its process too."""

    def __init__(self, script: Script, number: int, channel: socket.socket, pid: int) -> None:
        self.script, self.number, self.channel, self.pid = script, number, channel, pid
        self.release: int | None = None
        self.line = Line(channel)
        self.say = self.line.say
        """From whatever thread."""
        self.thread = threading.Thread(target=self._life, daemon=True)

    def kill(self) -> None:
        try:
            self.channel.shutdown(socket.SHUT_RDWR)
        except OSError:  # it has ended
            return

    def join(self, timeout_s: float) -> None:
        self.thread.join(timeout_s)

    def _life(self) -> None:
        self.say(Kind.HELD, orjson.dumps({"release": None}))
        for frame in self.line.heard():
            if frame.kind is Kind.ASK:
                self._answer(frame)
                continue
            self.script.told.setdefault(self.number, []).append(frame)
            if frame.kind is Kind.LOAD:
                self.script.may_load.wait(20)
                self._load(frame.told)
        if self.script.last_words:
            self.say(Kind.LINES, self.script.last_words)
        self.channel.close()

    def _load(self, version: int) -> None:
        if version in self.script.kills:
            self.kill()
            return
        rejected = version in self.script.rejects or self.script.rejects_once.get(self.number) == version
        self.script.rejects_once.pop(self.number, None)
        told = {"asked": version, "rejected": rejected, "why": ""}
        if told["rejected"]:
            told["why"] = f"release {version} answers its trial with no pins"
        elif version in self.script.fails:
            self.script.fails.remove(version)
            told["why"] = "the registry is down"
        else:
            self.release = version
        self.say(Kind.HELD, orjson.dumps(told | {"release": self.release}))

    def _answer(self, frame: Frame) -> None:
        if self.number in self.script.hangs:
            return
        api, _, body = frame.body.partition(b"\n")
        asked = orjson.loads(body)
        if asked.get("user_id") == "nobody":
            self.say(Kind.REFUSAL, orjson.dumps(["BadId", "no such form", 400, None, "deadline"]), frame.number)
        elif asked.get("user_id") == "broken":
            self.say(Kind.FAILURE, b"KeyError('pins')", frame.number)
        else:
            told = {"maker": self.number, "release": self.release, "api": api.decode(), "asked": asked}
            self.say(Kind.ANSWER, orjson.dumps(told), frame.number)
