"""Locust's users of the home feed: what one process of load sends, and what it saw come back.

    python -m tests.benchmarks.serving_users        one `Load` as a line of JSON on stdin; its `Seen` on stdout

`serving_load.loaded` starts it. Locust sends in a process of its own: it gives gevent's sockets to whatever
imports it. A load without `seconds` ends when stdin does.
"""

from __future__ import annotations

import time

from locust import FastHttpUser, task  # before all else, since it replaces sockets and threads
from locust.env import Environment
from locust.exception import StopUser
from locust.stats import get_percentile_stats_summary, get_stats_summary

# isort: split

import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import gevent
import gevent.os
import numpy as np
import orjson
from geventhttpclient.client import HTTPClientPool
from locust.runners import LocalRunner

from tests.benchmarks.serving_load import BATCH, LIMIT, TIMEOUT_S, Asked, Kind, Load, Seen, foreign
from tests.benchmarks.serving_process import Service


class Course(Environment):
    """One load under way: what its users share."""

    def __init__(self, load: Load) -> None:
        super().__init__(user_classes=[KINDS[load.kind]], host=load.url, stop_timeout=TIMEOUT_S)
        self.load, self.asked, self.seen = load, load.asked, Seen()
        self.rng = np.random.default_rng(0)
        self.turn = count()
        self.dues: Iterator[float] = iter(())
        self.pool = HTTPClientPool(
            concurrency=load.clients, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
        )

        self.events.user_error.add_listener(self._failed)

    def _failed(self, exception: BaseException, **_: Any) -> None:
        """Locust only prints what goes wrong in a user."""
        self.seen.errors[type(exception).__name__] += 1

    def one_of(self, things: list[Any]) -> Any:
        return things[int(self.rng.integers(len(things)))]

    def run(self) -> Seen:
        """Send the load until its time is over, or stdin ends, and wait for what is under way."""
        load, runner = self.load, self.create_local_runner()
        if load.rate is not None:
            self.dues = _arrivals(load.rate, load.seconds or 0.0)
        with Service(load.pid).spending(self.seen):
            runner.start(load.clients, spawn_rate=load.clients)
            _wait(load, runner)
            runner.stop()
        return self.seen


def _arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Moments of `time.perf_counter`, at random, `rate` a second."""
    gaps = np.random.default_rng(1).exponential(1 / rate, int(rate * seconds))
    return iter((time.perf_counter() + np.cumsum(gaps)).tolist())


def _wait(load: Load, runner: LocalRunner) -> None:
    if load.rate is not None:
        gevent.sleep(0.5)
        while runner.user_count:
            gevent.sleep(0.05)
    elif load.seconds is not None:
        gevent.sleep(load.seconds)
    else:
        gevent.os.tp_read(sys.stdin.fileno(), 1)


class Asking(FastHttpUser):
    """Asks for what the home's active users would, and looks every answer through."""

    abstract = True
    environment: Course

    def __init__(self, environment: Course) -> None:
        self.client_pool = environment.pool
        super().__init__(environment)

    @property
    def asked(self) -> Asked:
        return self.environment.asked

    def user(self) -> Any:
        return self.environment.one_of(self.asked.users)

    def pin(self) -> Any:
        return self.environment.one_of(self.asked.pins)

    def feed(self, due: float | None = None) -> None:
        """One feed; its time counts from `due`."""
        self.ask("/homefeed", {"user_id": self.user(), "limit": LIMIT}, due)

    def ask(self, path: str, body: dict[str, Any], due: float | None = None) -> None:
        """One request; its time counts from `due`."""
        seen, load = self.environment.seen, self.environment.load
        begun = time.perf_counter() if due is None else due
        with self.client.post(path, data=orjson.dumps(body), headers=JSON, catch_response=True) as answer:
            if not answer.status_code:  # no answer came
                seen.errors[type(vars(answer)["error"]).__name__] += 1
                return
            told = orjson.loads(answer.content)
            if answer.status_code != 200:
                seen.errors[told["error"]["name"]] += 1
                return
            took = (time.perf_counter() - begun) * 1000
            if path == EVENTS:
                seen.accepted += told["accepted"]
            else:
                wrong = foreign(told, load.releases)
                seen.take(told, wrong)
                if wrong is not None:
                    answer.failure(wrong)
            seen.ms.append(took)


JSON = {"Content-Type": "application/json"}
EVENTS = "/events"
"""Answers of this path are of no release."""


class Closed(Asking):
    """Asks for a feed again as soon as it was answered."""

    @task
    def again(self) -> None:
        self.feed()


class Open(Asking):
    """Takes the next arrival, whatever became of those before: `clients` is how many may be under way."""

    @task
    def arrive(self) -> None:
        due = next(self.environment.dues, None)
        if due is None:
            raise StopUser
        gevent.sleep(max(0.0, due - time.perf_counter()))
        self.feed(due)


class Mixed(Asking):
    """Two feeds, related pins, a search and an event in turns."""

    @task
    def next_turn(self) -> None:
        asked, turn = self.asked, next(self.environment.turn) % 5
        if turn == 0:
            event = {"user_id": self.user(), "pin_id": self.pin(), "action": asked.action}
            self.ask(EVENTS, {"events": [event]})
        elif turn == 1:
            self.ask("/related", {"pin_id": self.pin(), "user_id": self.user()})
        elif turn == 2 and asked.queries:
            query = self.environment.one_of(asked.queries)
            self.ask("/search", {"query": query, "user_id": self.user(), "limit": LIMIT})
        else:
            self.feed()


class Events(Asking):
    """Sends batches of events, one after another."""

    @task
    def send(self) -> None:
        action = self.asked.action
        events = [{"user_id": self.user(), "pin_id": self.pin(), "action": action} for _ in range(BATCH)]
        self.ask(EVENTS, {"events": events})


KINDS: dict[Kind, type[Asking]] = {Kind.CLOSED: Closed, Kind.OPEN: Open, Kind.MIXED: Mixed, Kind.EVENTS: Events}


def main() -> None:
    course = Course(Load.model_validate_json(sys.stdin.buffer.raw.readline()))
    seen = course.run()
    for line in (*get_stats_summary(course.stats, False), *get_percentile_stats_summary(course.stats)):
        print(line, file=sys.stderr)
    print(seen.model_dump_json())


if __name__ == "__main__":
    main()
