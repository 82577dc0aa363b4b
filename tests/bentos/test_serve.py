"""`bentoml serve` with real processes: one process, and four behind `depends`, give the same answers."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from bentos.event_log import read
from tests.bentos.fakes import COOK, GARDENER, pin_of, topic_of
from tests.bentos.servers import Server, bentoml, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["composed", "separate"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp(request.param)
    command = bentoml(
        "serve", "tests.bentos.planted_service:Homefeed", "--host", "127.0.0.1", "--port", "{port}"
    )
    with serving(command, home, CORKBOARD_PROFILE=request.param) as running:
        yield running


def whole(server: Server, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """An answer that lacks nothing: a busy machine misses deadlines, and breakers open and close again."""
    end = time.monotonic() + 60
    while True:
        answer: dict[str, Any] = server.post(path, body)[1]
        if not answer["missing"]:
            return answer
        assert time.monotonic() < end, answer["missing"]
        time.sleep(0.25)


def test_feeds_are_ranked_whole_and_without_loss_under_concurrent_calls(server: Server) -> None:
    """BentoML's default of 100 calls a connection lost calls that were in flight; ours loses none."""

    def ask(number: int) -> tuple[int, list[str], int]:
        status, answer = server.post("/homefeed", {"user_id": COOK if number % 2 else GARDENER, "limit": 10})
        return status, answer["missing"], len(answer["pins"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(240)))
    assert {status for status, _, _ in answers} == {200}
    # A busy machine may miss a deadline, which the answer names; anything else named is a lost call.
    slow = ("deadline", "busy", "breaker open")
    lost = [part for _, missing, _ in answers for part in missing if not part.endswith(slow)]
    assert lost == []
    whole = [count for _, missing, count in answers if not missing]
    assert set(whole) == {10}


def test_learned_sources_and_light_scores_across_the_hop(server: Server) -> None:
    answer = whole(server, "/homefeed", {"user_id": COOK, "limit": 60})
    brought = {source["name"]: source["count"] for source in answer["sources"]}
    assert min(brought[name] for name in ("pinnerformer", "dcm", "two_tower")) > 0
    assert "light" in [stage["name"] for stage in answer["stages"]]
    assert answer["utility"]["ranker"] == "pinnability_lr@1"
    assert answer["pins"][0]["heads"] == {"engage": pytest.approx(answer["pins"][0]["score"], abs=1e-6)}


def test_related_pins_across_the_hop(server: Server) -> None:
    answer = whole(server, "/related", {"pin_id": pin_of(4, 3), "limit": 8})
    assert {topic_of(p["pin_id"]) for p in answer["pins"]} == {4}
    assert answer["sources"][0]["name"] == "similar_pins" and answer["missing"] == []


def test_search_across_the_hop(server: Server) -> None:
    answer = whole(server, "/search", {"query": "choclate cake", "user_id": GARDENER, "limit": 10})
    assert {topic_of(p["pin_id"]) for p in answer["pins"]} == {1}
    assert {s["name"]: s["count"] > 0 for s in answer["sources"]} == {"searchsage": True, "lexical": True}
    assert answer["query"]["corrected"] == [{"typed": "choclate", "read": "chocolate", "sure": True}]
    assert answer["pins"][0]["heads"] and answer["utility"] is None, "the planted ranker reads no query"


def test_events_are_on_disk_when_they_are_answered(server: Server) -> None:
    event = {"user_id": COOK, "pin_id": 9, "action": "save", "event_id": 321}
    assert server.post("/events", {"events": [event]})[1] == {"accepted": 1, "duplicates": 0, "applied": True}
    logged = [r for r in read(server.home / "events", "actions") if r.event_id == 321]
    assert [(r.user_id, r.pin_id) for r in logged] == [(COOK, 9)]
    assert server.post("/events", {"events": [event]})[1]["duplicates"] == 1


def test_refusals_keep_their_name_across_the_hop(server: Server) -> None:
    status, answer = server.post("/events", {"events": [{"user_id": 1, "pin_id": 1, "action": "repinn"}]})
    assert status == 400 and answer["error"]["name"] == "UnknownAction"


def test_metrics_of_the_funnel(server: Server) -> None:
    text = server.get("/metrics")[1]
    assert 'stage="retrieve"' in text and "corkboard_answer_seconds_count" in text


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
        self.feeds: list[tuple[int, list[str]]] = []
        self.refused: set[tuple[int, str]] = set()
        self.promised: list[int] = []
        self.over = threading.Event()

    def ask(self) -> None:
        while not self.over.is_set():
            status, answer = self.server.post("/homefeed", {"user_id": COOK, "limit": 10})
            self.feeds.append((status, answer.get("missing", [answer])))

    def send(self) -> None:
        event_id = next(self.events)
        while not self.over.is_set():
            event = {"user_id": GARDENER, "pin_id": 9, "action": "save", "event_id": event_id}
            status, answer = self.server.post("/events", {"events": [event]})
            if status == 200:
                self.promised.append(event_id)
                event_id = next(self.events)
            else:
                self.refused.add((status, answer["error"]["name"]))

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
        before = len(self.feeds)
        try:
            self.wait_for(lambda: any("deadline" in str(missing) for _, missing in self.feeds[before:]))
        finally:
            for process in stalled:
                process.resume()
        self.is_whole()

    def is_whole(self) -> None:
        before = len(self.feeds)
        self.wait_for(lambda: (200, []) in self.feeds[before:])

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


def test_slow_and_killed_services_cost_what_they_bring_and_come_back(server: Server) -> None:
    """Retrieval and ranking stand still; then both and events are killed."""
    behind = ("Retrieval", "Ranking", "Events")
    if not processes_of(server, *behind):
        pytest.skip("the services behind are in the home feed's process")
    with Clients(server, 10_000) as clients:
        clients.stall("Retrieval", "Ranking")
        clients.kill(*behind)
    assert {status for status, _ in clients.feeds} == {200}, "a feed all the while"
    named = {part.partition(":")[0] for _, missing in clients.feeds for part in missing}
    assert {"retrieval"} <= named, "and it says what it went without"
    assert clients.refused <= {(503, "LogUnavailable"), (503, "NoRelease")}, "with a name that says: again"
    assert kept_once(server, clients.promised)


def test_a_home_has_one_writer(server: Server) -> None:
    from bentos.event_log import EventLog, LogInUse

    with pytest.raises(LogInUse):
        EventLog.open(Path(server.home) / "events", "actions")
