"""Requests over HTTP to a running service: one at a time from here, and loads that locust sends.

A load is a process of its own (`serving_users.py`): at random times, whatever the answers do, or each request
when the last was answered.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Any

import numpy as np
import orjson
import urllib3
from pydantic import BaseModel, ConfigDict, Field

from tests.benchmarks.serving_process import Service
from validation.manifest import ReleaseManifest

LIMIT = 50
BATCH = 20
"""Events of one request of a load of events."""
TIMEOUT_S = 30.0
TURNS = 12
"""Of unloaded requests with the kernels alone."""


class Seen(BaseModel):
    """What came back from one kind of load."""

    ms: list[float] = Field(default_factory=list)
    """From when the request was due, in order of the answers."""
    stages: defaultdict[str, float] = Field(default_factory=lambda: defaultdict(float))
    """Milliseconds of each, of all answers."""
    missing: Counter[str] = Field(default_factory=Counter)
    qualities: list[float] = Field(default_factory=list)
    mixed: list[str] = Field(default_factory=list)
    """What answers named that is not of the release that they name."""
    errors: Counter[str] = Field(default_factory=Counter)
    accepted: int = 0
    """Events."""
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


class Asked(BaseModel):
    """What requests are made of."""

    model_config = ConfigDict(frozen=True)

    users: list[Any]
    """Active ones, as the outside names them."""
    pins: list[Any]
    action: str
    """A positive one."""
    queries: list[str]


class Named(BaseModel):
    """What answers of a release may name."""

    model_config = ConfigDict(frozen=True)

    spaces: frozenset[str]
    ranker: str | None

    @classmethod
    def of(cls, manifest: ReleaseManifest) -> Named:
        part = manifest.parts.get("ranker")
        ranker = None if part is None else f"{part.model}@{part.version}"
        return cls(spaces=frozenset(manifest.spaces()), ranker=ranker)


def foreign(answer: Mapping[str, Any], releases: Mapping[int, Named]) -> str | None:
    """What an answer names that is not of the release that it names; None where all is."""
    named = releases.get(answer["release"])
    if named is None:
        return f"release {answer['release']} is none of {sorted(releases)}"
    if strange := set(answer["spaces"]) - named.spaces:
        return f"release {answer['release']} answers with spaces {sorted(strange)}"
    ranker = (answer["utility"] or {}).get("ranker")
    if ranker is not None and ranker != named.ranker:
        return f"release {answer['release']} is ranked by {ranker}"
    return None


class Kind(StrEnum):
    """What a load asks for, and when."""

    CLOSED = "closed"
    OPEN = "open"
    MIXED = "mixed"
    EVENTS = "events"


class Load(BaseModel):
    """One load: `clients` that each ask again at once, or feeds that arrive `rate` a second."""

    model_config = ConfigDict(frozen=True)

    url: str
    pid: int
    """Of the service, whose CPU time is told."""
    kind: Kind
    clients: int
    """Of an open load: how many requests may be under way."""
    seconds: float | None
    """None where it lasts as long as something else does."""
    rate: float | None = None
    asked: Asked
    releases: dict[int, Named]


def loaded(load: Load, during: Callable[[], None] | None = None) -> Seen:
    """Send `load`, for its seconds or until `during` returns. Raises CalledProcessError where locust fails."""
    command = [sys.executable, "-m", "tests.benchmarks.serving_users"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it has died, as its return code says
                process.stdin.write(load.model_dump_json().encode() + b"\n")
                process.stdin.flush()
            if during is not None:
                during()
        finally:
            out, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Seen.model_validate_json(out.splitlines()[-1])


class Refused(RuntimeError):
    """An answer that is none; named as the service named it."""


class Client:
    """Asks one service, one request at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pool = urllib3.PoolManager(timeout=TIMEOUT_S, retries=False)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON of an answer. Raises Refused."""
        answer = self.pool.request("POST", self.url + path, json=body)
        told: dict[str, Any] = orjson.loads(answer.data)
        if answer.status != 200:
            raise Refused(told["error"]["name"])
        return told


def one_at_a_time(
    client: Client,
    service: Service,
    asked: Asked,
    releases: Mapping[int, Named],
    requests: int,
    between: Callable[[], None] = lambda: None,
) -> Seen:
    """One feed after another, in TURNS between which something else is done."""
    seen, rng = Seen(), np.random.default_rng(0)
    for turn in range(TURNS):
        between()
        with service.spending(seen):
            for _ in range(turn, requests, TURNS):
                user = asked.users[int(rng.integers(len(asked.users)))]
                begun = time.perf_counter()
                try:
                    answer = client.post("/homefeed", {"user_id": user, "limit": LIMIT})
                except Refused as error:
                    seen.errors[str(error)] += 1
                    continue
                seen.ms.append((time.perf_counter() - begun) * 1000)
                seen.take(answer, foreign(answer, releases))
    return seen
