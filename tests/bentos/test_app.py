"""The home feed over HTTP: answers, named refusals, health, metrics, OpenAPI and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from bentos.log_segments import read
from tests.bentos.fakes import COOK, FOLLOWER, PINS, STRANGER, pin_of, topic_of
from tests.bentos.servers import Server, python, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("app")
    command = python("-m", "tests.bentos.preview", "--port", "{port}", "--home", str(home))
    with serving(command, home) as running:
        yield running


def test_a_feed(server: Server) -> None:
    status, answer = server.post("/homefeed", {"user_id": COOK, "limit": 12})
    assert status == 200 and len(answer["pins"]) == 12
    pin = answer["pins"][0]
    assert {"pin_id", "title", "image", "topics", "position", "source", "score", "why"} <= pin.keys()
    assert {
        "request_id",
        "release",
        "spaces",
        "stages",
        "sources",
        "missing",
        "fallback",
        "ms",
    } <= answer.keys()


def test_a_malformed_request_is_one_line_of_the_log(server: Server) -> None:
    server.post("/homefeed", b"{nonsense")
    log = server.log.read_text()
    assert "/homefeed [POST] refused: body: Invalid JSON" in log and "Traceback" not in log


@pytest.mark.parametrize(
    ("path", "body", "status", "name", "words"),
    [
        ("/homefeed", {"user_id": 1, "limit": 10_000}, 400, "LimitOutOfRange", "limit is 10000"),
        ("/homefeed", {"user_id": "abc"}, 400, "BadId", "user id 'abc'"),
        ("/homefeed", {"limit": 3}, 400, "InvalidRequest", "user_id: Field required"),
        ("/homefeed", {"user_id": 1, "lmit": 3}, 400, "InvalidRequest", "lmit: Extra inputs"),
        ("/homefeed", b"{nonsense", 400, "InvalidRequest", "Invalid JSON"),
        ("/related", {"pin_id": PINS + 5}, 404, "PinNotFound", f"pin {PINS + 5}"),
        ("/pins", {"pin_ids": list(range(1, 10_001))}, 400, "LimitOutOfRange", "10000 pins"),
        ("/search", {"query": ""}, 400, "EmptyQuery", "query is blank"),
        ("/search", {"query": " \u0000\n\u3000"}, 400, "EmptyQuery", "query is blank"),
        (
            "/search",
            {"query": "x" * 2_001},
            400,
            "QueryTooLong",
            "query has 2001 characters",
        ),
        ("/search", {"query": "cake", "limit": 201}, 400, "LimitOutOfRange", "limit is 201"),
        ("/search", {"limit": 3}, 400, "InvalidRequest", "query: Field required"),
        ("/search", b'{"query": "\\ud800"}', 400, "InvalidRequest", "Invalid JSON"),
        ("/suggestions", {"prefix": "x" * 2_001}, 400, "QueryTooLong", "prefix has 2001 characters"),
        ("/suggestions", {"limit": 201}, 400, "LimitOutOfRange", "ask for 1 to 200 suggestions"),
        ("/users", {"limit": 0}, 400, "LimitOutOfRange", "limit is 0"),
        (
            "/events",
            {"events": [{"user_id": 1, "pin_id": 1, "action": "repinn"}]},
            400,
            "UnknownAction",
            "allowed: closeup",
        ),
        ("/events", {"events": [{"user_id": 1, "pin_id": 1}]}, 400, "InvalidRequest", "events.0.action"),
    ],
)
def test_refusals_have_a_name_a_status_and_a_sentence(
    server: Server, path: str, body: object, status: int, name: str, words: str
) -> None:
    got, answer = server.post(path, body)
    assert got == status and answer["error"]["name"] == name and words in answer["error"]["message"]


@pytest.mark.parametrize("path", ["/homefeed", "/events", "/users", "/nowhere"])
def test_a_malformed_form_is_refused_by_name(server: Server, path: str) -> None:
    status, answer = server.post(path, b"--x\r\nnonsense", kind="multipart/form-data; boundary=y")
    assert status == 415 and answer["error"]["name"] == "UnsupportedMediaType"
    assert "Traceback" not in server.log.read_text()


def test_paths_and_methods_that_are_not_there_are_named(server: Server) -> None:
    status, answer = server.post("/nowhere", {})
    assert status == 404 and answer["error"]["name"] == "NotFound"
    status, text = server.get("/homefeed")
    assert status == 405 and json.loads(text)["error"]["name"] == "MethodNotAllowed"
    assert json.loads(server.get("/ui/absent.js")[1])["error"]["name"] == "NotFound"


def test_an_event_then_a_feed_that_knows_it(server: Server) -> None:
    """The loop a person sees: save pins of a topic, and the next feed has more of it."""
    before = server.post("/homefeed", {"user_id": FOLLOWER, "limit": 20})[1]
    event = {"user_id": FOLLOWER, "action": "save", "surface": "homefeed", "request_id": before["request_id"]}
    events = [{**event, "pin_id": pin_of(3, p), "event_id": f"e{p}"} for p in (50, 51, 52)]
    status, kept = server.post("/events", {"events": events})
    assert (status, kept) == (200, {"accepted": 3, "duplicates": 0, "applied": True})
    assert server.post("/events", {"events": events})[1]["duplicates"] == 3
    after = server.post("/homefeed", {"user_id": FOLLOWER, "limit": 20})[1]
    of_topic = [p for p in after["pins"] if topic_of(p["pin_id"]) == 3]
    assert {p["why"]["kind"] for p in of_topic} & {"recent", "together"}
    assert {p["source"] for p in of_topic} & {"pinnersage", "pixie"}


@pytest.mark.parametrize(
    ("query", "topic"),
    [
        ("chocolate cake", 1),
        ("winter caots", 3),
        ("cake " * 400, 1),
        ("\u202eyoga\u202c \u0007", 6),
        ("'; drop table pins; -- garden benches", 2),
        ("pin_id in [1] yoga", 6),
        ("{{ 7 * 7 }} yoga", 6),
        ("<script>alert(1)</script> yoga", 6),
    ],
)
def test_a_search(server: Server, query: str, topic: int) -> None:
    status, answer = server.post("/search", {"query": query, "user_id": COOK, "limit": 8})
    assert status == 200 and answer["missing"] == [] and len(answer["pins"]) == 8
    assert topic_of(answer["pins"][0]["pin_id"]) == topic
    assert answer["release"] == 1 and answer["spaces"] == ["content@1"]
    assert {source["name"] for source in answer["sources"]} == {"searchsage", "lexical"}
    assert all(stage["ms"] >= 0 for stage in answer["stages"]) and answer["query"]["without"] == []


@pytest.mark.parametrize("query", ["🍰🥧", "!!", "שלום"])
def test_a_search_that_finds_nothing_says_what_it_shows(server: Server, query: str) -> None:
    status, answer = server.post("/search", {"query": query, "limit": 5})
    assert status == 200 and len(answer["pins"]) == 5 and answer["query"]["text"] == query
    assert "popular" in answer["fallback"], "of letters that the encoder does not know, meaning is not asked"


def test_suggestions(server: Server) -> None:
    assert server.post("/suggestions", {"prefix": "Ca"})[1] == {
        "release": 1,
        "queries": ["carrot cake", "chocolate cake"],
    }


def test_what_is_done_to_a_result_is_kept_with_its_query(server: Server) -> None:
    answer = server.post("/search", {"query": "Oak  tables", "user_id": FOLLOWER, "limit": 3})[1]
    event = {"user_id": FOLLOWER, "pin_id": answer["pins"][0]["pin_id"], "action": "save", "event_id": 77}
    asked = {"surface": "search", "query": "Oak  tables", "request_id": answer["request_id"]}
    assert server.post("/events", {"events": [event | asked]})[0] == 200
    kept = [r for r in read(server.home / "events", "actions") if r.event_id == 77]
    assert [(r.surface, r.query, r.request_id) for r in kept] == [tuple(asked.values())]


def test_a_stranger(server: Server) -> None:
    status, answer = server.post("/homefeed", {"user_id": STRANGER})
    assert status == 200 and answer["fallback"] == "unknown user: popular by topic" and answer["pins"]


def test_users_to_pick_from_and_the_actions_they_may_take(server: Server) -> None:
    status, answer = server.post("/users", {})
    assert status == 200 and answer["users"][0]["user_id"] == COOK
    assert answer["actions"]["save"] == "positive" and answer["actions"]["hide"] == "negative"


def test_health_and_metrics(server: Server) -> None:
    assert server.get("/livez")[0] == server.get("/readyz")[0] == 200
    server.post("/homefeed", {"user_id": COOK, "limit": 5})
    text = server.get("/metrics")[1]
    for name in (
        "corkboard_stage_seconds",
        "corkboard_source_seconds",
        "corkboard_shown_pins",
        "corkboard_answer",
    ):
        assert name in text
    server.post("/homefeed", {"user_id": COOK, "limit": 0})
    server.post("/events", {"events": [{"user_id": COOK, "pin_id": 1, "action": "closeup"}]})
    text = server.get("/metrics")[1]
    assert re.search(r'corkboard_refused_total\{[^}]*error="LimitOutOfRange"', text)
    assert re.search(r'corkboard_events_total\{[^}]*outcome="accepted"', text)
    assert re.search(r'corkboard_stage_seconds_count\{[^}]*stage="rank"', text)


def test_openapi_names_every_api_with_its_bounds(server: Server) -> None:
    api = json.loads(server.get("/docs.json")[1])
    paths = {"/homefeed", "/related", "/search", "/suggestions", "/events", "/users", "/pins"}
    assert paths <= api["paths"].keys()
    assert '"maximum": 200' in json.dumps(api) and '"maxLength": 2000' in json.dumps(api)
    assert {"FeedAnswer", "EventsAnswer"} <= {
        name.split("IODescriptor")[0] for name in api["components"]["schemas"]
    }


def test_the_front_door_leads_to_the_page(server: Server) -> None:
    status, text = server.get("/")
    assert status == 200 and "<title>Corkboard</title>" in text
    for asset in ("styles.css", "app.js", "favicon.svg"):
        assert server.get(f"/ui/{asset}")[0] == 200
    docs = server.get("/docs")[1]
    assert "swagger" in docs and "googletagmanager" not in docs
