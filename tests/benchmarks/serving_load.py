"""Requests over HTTP to a running service: one at a time, at random times, or each when the last was answered.

The loops are the benchmark's own: locust would put gevent's sockets and threads into the process in which the
kernels run, and has no open loop, since each of its users waits for an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiohttp
import numpy as np
import orjson

from validation.manifest import ReleaseManifest

LIMIT = 50
TURNS = 6
"""Of unloaded requests with the kernels alone."""


@dataclass
class Seen:
    """What came back from one kind of load."""

    ms: list[float] = field(default_factory=list)
    """From when the request was due, in order of the answers."""
    at: list[float] = field(default_factory=list)
    """When each answer came, seconds of the loop's clock."""
    stages: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    qualities: list[float] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    """What answers named that is not of the release that they name."""
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def asked(self) -> int:
        return len(self.ms) + self.errors.total()

    def take(self, answer: dict[str, Any], foreign: str | None) -> None:
        for stage in answer["stages"]:
            self.stages[stage["name"]] += stage["ms"]
        self.missing.update(part.partition(":")[0] for part in answer["missing"])
        self.qualities.append(answer["quality"])
        if foreign is not None:
            self.mixed.append(foreign)

    def percentile(self, q: float) -> float:
        return round(float(np.percentile(self.ms, q)), 2) if self.ms else float("nan")


@dataclass(frozen=True)
class Asked:
    """What requests are made of."""

    users: list[Any]
    """Active ones, as the outside names them."""
    pins: list[Any]
    action: str
    """A positive one."""
    queries: list[str]


class Client:
    """Asks one service for what the home's active users would."""

    def __init__(
        self, url: str, asked: Asked, manifests: Mapping[int, ReleaseManifest], session: aiohttp.ClientSession
    ) -> None:
        self.url, self.asked, self.manifests, self.session = url, asked, manifests, session
        self.rng = np.random.default_rng(0)
        self.turn = count()

    def user(self) -> Any:
        return self.one_of(self.asked.users)

    def one_of(self, things: list[Any]) -> Any:
        return things[int(self.rng.integers(len(things)))]

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await post(self.session, self.url + path, body)

    async def feed(self, seen: Seen, due: float | None = None) -> None:
        """One feed; its time counts from `due`."""
        await self.ask(seen, "/homefeed", {"user_id": self.user(), "limit": LIMIT}, due)

    async def mixed(self, seen: Seen) -> None:
        """Two feeds, related pins, a search and an event in turns."""
        user, turn = self.user(), next(self.turn) % 5
        if turn == 0:
            event = {"user_id": user, "pin_id": self.one_of(self.asked.pins), "action": self.asked.action}
            await self.ask(seen, "/events", {"events": [event]})
        elif turn == 1:
            await self.ask(seen, "/related", {"pin_id": self.one_of(self.asked.pins), "user_id": user})
        elif turn == 2 and self.asked.queries:
            query = self.one_of(self.asked.queries)
            await self.ask(seen, "/search", {"query": query, "user_id": user, "limit": LIMIT})
        else:
            await self.feed(seen)

    async def ask(self, seen: Seen, path: str, body: dict[str, Any], due: float | None = None) -> None:
        """One request; its time counts from `due`."""
        clock = asyncio.get_running_loop().time
        begun = clock() if due is None else due
        try:
            status, answer = await self.post(path, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            seen.errors[type(error).__name__] += 1
            return
        if status != 200:
            seen.errors[answer["error"]["name"]] += 1
            return
        seen.ms.append((clock() - begun) * 1000)
        seen.at.append(clock())
        if "stages" in answer:
            seen.take(answer, foreign(answer, self.manifests))


async def post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    async with session.post(url, json=body) as answer:
        return answer.status, await answer.json(content_type=None, loads=orjson.loads)


Ask = Callable[[Seen], Awaitable[None]]


def foreign(answer: Mapping[str, Any], manifests: Mapping[int, ReleaseManifest]) -> str | None:
    """What an answer names that is not of the release that it names; None where all is."""
    manifest = manifests.get(answer["release"])
    if manifest is None:
        return f"release {answer['release']} is none of {sorted(manifests)}"
    if strange := set(answer["spaces"]) - set(manifest.spaces()):
        return f"release {answer['release']} answers with spaces {sorted(strange)}"
    ranker, part = (answer["utility"] or {}).get("ranker"), manifest.parts.get("ranker")
    if ranker is not None and (part is None or ranker != f"{part.model}@{part.version}"):
        return f"release {answer['release']} is ranked by {ranker}"
    return None


@dataclass(frozen=True)
class Service:
    """The running service, seen from outside."""

    pid: int

    def _family(self) -> list[Any]:
        import psutil

        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    def cpu_s(self) -> float:
        return sum(t.user + t.system for t in (p.cpu_times() for p in self._family()))

    def rss_mb(self) -> float:
        """Pages that processes share count once for each."""
        return sum(p.memory_info().rss for p in self._family()) / 2**20

    def pss_mb(self) -> float:
        """What the family takes of the machine: shared pages count once. It is slow to read."""
        return sum(p.memory_full_info().pss for p in self._family()) / 2**20

    async def settled(self, busy: float = 0.1, patience_s: float = 120.0) -> None:
        """Wait until a second costs it less than `busy` of a core: all that starts beside requests is done."""
        end = time.monotonic() + patience_s
        before = self.cpu_s()
        while time.monotonic() < end:
            await asyncio.sleep(1)
            now = self.cpu_s()
            if now - before < busy:
                return
            before = now

    @contextmanager
    def spending(self, seen: Seen) -> Iterator[None]:
        """Add the wall time and the service's CPU time of the block."""
        cpu, wall = self.cpu_s(), time.perf_counter()
        yield
        seen.cpu_s += self.cpu_s() - cpu
        seen.wall_s += time.perf_counter() - wall


async def one_at_a_time(
    client: Client, service: Service, requests: int, between: Callable[[], None] = lambda: None
) -> Seen:
    """One request after another, in TURNS between which something else is done."""
    seen = Seen()
    for turn in range(TURNS):
        between()
        with service.spending(seen):
            for _ in range(turn, requests, TURNS):
                await client.feed(seen)
    return seen


async def open_loop(client: Client, service: Service, rate: float, seconds: float) -> Seen:
    """Arrivals at random, `rate` a second: a service that is late does not slow them down."""
    seen, loop = Seen(), asyncio.get_running_loop()
    due = loop.time() + np.cumsum(np.random.default_rng(1).exponential(1 / rate, int(rate * seconds)))
    with service.spending(seen):
        tasks = []
        for moment in due.tolist():
            await asyncio.sleep(max(0.0, moment - loop.time()))
            tasks.append(asyncio.ensure_future(client.feed(seen, moment)))
        await asyncio.gather(*tasks)
    return seen


async def closed_loop(service: Service, ask: Ask, clients: int, until: Callable[[], bool]) -> Seen:
    """`clients` that each ask again at once."""
    seen = Seen()

    async def one() -> None:
        while not until():
            await ask(seen)

    with service.spending(seen):
        await asyncio.gather(*(one() for _ in range(clients)))
    return seen


def lasting(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
