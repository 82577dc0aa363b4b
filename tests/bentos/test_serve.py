"""`bentoml serve` with real processes: one process, and four behind `depends`, give the same answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bentos.log_segments import read
from tests.bentos.clients import Clients, kept_once, processes_of
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


@pytest.mark.parametrize("server", ["separate"], indirect=True, scope="module")
def test_slow_and_killed_services_cost_what_they_bring_and_come_back(server: Server) -> None:
    """Retrieval and ranking stand still; then both and events are killed, and then the home feed."""
    behind = ("Retrieval", "Ranking", "Events")
    assert processes_of(server, *behind), "processes of their own"
    with Clients(server, 10_000) as clients:
        clients.stall("Retrieval", "Ranking")
        clients.kill(*behind)
        assert {status for status, _ in clients.feeds} == {200}, "a feed all the while"
        served = [answer for _, answer in clients.feeds]
        assert {len(answer["pins"]) for answer in served} == {10}, "with all its pins"
        popular = [answer for answer in served if answer["fallback"]]
        assert popular and all("retrieval" in str(answer["missing"]) for answer in popular), "and says so"
        clients.kill("Homefeed")
    assert {status for status, _ in clients.feeds} <= {200, 0, 503}
    names = {(503, "LogUnavailable"), (503, "NoRelease"), (0, "NoLine")}
    assert clients.refused <= names, "with a name that says: again"
    assert kept_once(server, clients.promised)


def test_a_home_has_one_writer(server: Server) -> None:
    from bentos.event_log import EventLog, LogInUse

    with pytest.raises(LogInUse):
        EventLog.open(Path(server.home) / "events", "actions")
