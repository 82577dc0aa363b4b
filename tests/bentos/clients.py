"""Clients that go on while a service is killed: what they were answered, and what became of their events."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from bentos.log_segments import read
from tests.bentos.fakes import COOK, GARDENER
from tests.bentos.servers import Server


def processes_of(server: Server, *services: str) -> list[psutil.Process]:
    """The processes that run these services."""
    found = []
    for process in psutil.Process(server.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            command = process.cmdline()
            if "--service-name" in command and command[command.index("--service-name") + 1] in services:
                found.append(process)
    return found


class Clients:
    """Ask for feeds and send events without pause; an event is sent until it is acknowledged."""

    def __init__(self, server: Server, first_event: int) -> None:
        self.server, self.events = server, itertools.count(first_event)
        self.feeds: list[tuple[int, dict[str, Any]]] = []
        """Status and answer of each feed asked for; status 0 where the line broke."""
        self.refused: set[tuple[int, str]] = set()
        self.promised: list[int] = []
        self.over = threading.Event()

    @property
    def missing(self) -> list[list[str]]:
        """What each feed that was served went without."""
        return [answer["missing"] for status, answer in self.feeds if status == 200]

    def ask(self) -> None:
        while not self.over.is_set():
            self.feeds.append(self.post("/homefeed", {"user_id": COOK, "limit": 10}))

    def send(self) -> None:
        event_id = next(self.events)
        while not self.over.is_set():
            event = {"user_id": GARDENER, "pin_id": 9, "action": "save", "event_id": event_id}
            status, answer = self.post("/events", {"events": [event]})
            if status == 200:
                self.promised.append(event_id)
                event_id = next(self.events)
            else:
                self.refused.add((status, answer["error"]["name"]))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """As the server's; (0, NoLine) where the process that heard it, or was to, is gone."""
        try:
            return self.server.post(path, body)
        except (OSError, http.client.HTTPException, ValueError):  # ValueError: half an answer
            time.sleep(0.05)
            return 0, {"error": {"name": "NoLine"}}

    def __enter__(self) -> Clients:
        self.pool = ThreadPoolExecutor(2)
        self.running = [self.pool.submit(self.ask), self.pool.submit(self.send)]
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for client in self.running:
            client.result()
        self.pool.shutdown()

    def kill(self, *services: str) -> None:
        """kill -9 in the middle of both; returns once feeds are whole again and events are kept."""
        self.keeps_events()
        doomed = processes_of(self.server, *services)
        assert len(doomed) == len(services)
        for process in doomed:
            process.kill()
        psutil.wait_procs(doomed, 10)
        self.wait_for(lambda: len(processes_of(self.server, *services)) == len(services))
        self.is_whole()
        self.keeps_events()

    def stall(self, *services: str) -> None:
        """The processes stand still until an answer goes without them, and go on until one is whole."""
        stalled = processes_of(self.server, *services)
        for process in stalled:
            process.suspend()
        before = len(self.missing)
        try:
            self.wait_for(lambda: any("deadline" in str(missing) for missing in self.missing[before:]))
        finally:
            for process in stalled:
                process.resume()
        self.is_whole()

    def is_whole(self) -> None:
        before = len(self.missing)
        self.wait_for(lambda: [] in self.missing[before:])

    def keeps_events(self) -> None:
        after = len(self.promised) + 3
        self.wait_for(lambda: len(self.promised) >= after)

    def wait_for(self, condition: Callable[[], Any], patience_s: float = 240) -> None:
        """Until it is true; a client that raised raises here."""
        end = time.monotonic() + patience_s
        while not condition():
            for client in self.running:
                if client.done():
                    client.result()
            assert time.monotonic() < end, (self.feeds[-1], self.refused, self.promised[-1])
            time.sleep(0.05)


def kept_once(server: Server, promised: list[int]) -> bool:
    """Whether every acknowledged event is in the log, and none is there twice."""
    logged = [record.event_id for record in read(server.home / "events", "actions")]
    return set(promised) <= set(logged) and len(logged) == len(set(logged))
