"""What locust's users see of a service that answers as told: every answer counted, every fault by its name."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.benchmarks.serving_load import Asked, Client, Kind, Load, Named, Refused, foreign, loaded

RELEASES = {3: Named(spaces=frozenset({"content@1", "dcm@1"}), ranker="transact@2")}
GOOD = {
    "release": 3,
    "spaces": ["content@1"],
    "utility": {"ranker": "transact@2"},
    "stages": [{"name": "rank", "ms": 2.5}],
    "missing": [],
    "quality": 1.0,
}
Answer = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]


@pytest.fixture
def planted() -> Iterator[tuple[str, list[Answer]]]:
    """A service's address, and the list whose only element answers it."""
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, told = answers[0](self.path, body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()


def load(url: str, kind: Kind, clients: int, seconds: float | None, rate: float | None = None) -> Load:
    asked = Asked(users=[1, "b"], pins=[7, 8], action="save", queries=["soup"])
    return Load(
        url=url,
        pid=os.getpid(),
        kind=kind,
        clients=clients,
        seconds=seconds,
        rate=rate,
        asked=asked,
        releases=RELEASES,
    )


def test_arrivals_come_when_they_are_due_and_their_time_counts_from_then(
    planted: tuple[str, list[Answer]],
) -> None:
    url, answers = planted
    came: list[float] = []

    def slow(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        came.append(time.perf_counter())
        time.sleep(0.1)
        return 200, GOOD

    answers.append(slow)
    seen = loaded(load(url, Kind.OPEN, 64, 1.0, rate=40.0))
    assert len(seen.ms) == 40 and not seen.errors and seen.stages["rank"] == 100.0
    assert came[-1] - came[0] > 0.5 and min(seen.ms) >= 100, "spread over the second, none before it was due"
    seen = loaded(load(url, Kind.OPEN, 2, 1.0, rate=40.0))
    assert max(seen.ms) > 500, "where only two may be under way, what waits for them waits in its time"


def test_what_goes_wrong_with_an_answer_is_an_error_by_name(planted: tuple[str, list[Answer]]) -> None:
    url, answers = planted
    answers.append(lambda path, body: (200, {"no": "release"}))
    assert set(loaded(load(url, Kind.CLOSED, 2, 0.3)).errors) == {"KeyError"}
    with pytest.raises(Refused, match="Overloaded"):
        answers[0] = lambda path, body: (503, {"error": {"name": "Overloaded", "message": "again"}})
        Client(url).post("/homefeed", {})


def test_mixed_requests_last_as_long_as_something_else_and_every_fault_is_counted(
    planted: tuple[str, list[Answer]],
) -> None:
    url, answers = planted
    asked: set[str] = set()

    def by_path(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked.add(path)
        if path == "/events":
            return 200, {"accepted": len(body["events"])}
        if path == "/related":
            return 503, {"error": {"name": "Overloaded", "message": "again"}}
        return 200, GOOD | {"spaces": ["content@2"]} if path == "/search" else GOOD

    def until_all() -> None:
        end = time.monotonic() + 30
        while len(asked) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)

    answers.append(by_path)
    seen = loaded(load(url, Kind.MIXED, 2, None), during=until_all)
    assert asked == {"/homefeed", "/related", "/search", "/events"}
    assert set(seen.errors) == {"Overloaded"} and seen.accepted > 0
    assert set(seen.mixed) == {"release 3 answers with spaces ['content@2']"}


def test_a_service_that_is_not_there_is_an_error_of_each_request() -> None:
    seen = loaded(load("http://127.0.0.1:9", Kind.CLOSED, 2, 0.3))
    assert seen.ms == [] and set(seen.errors) == {"ConnectionRefusedError"}


def test_what_is_of_another_release_is_told() -> None:
    assert foreign(GOOD, RELEASES) is None
    assert foreign(GOOD | {"release": 4}, RELEASES) == "release 4 is none of [3]"
    assert (
        foreign(GOOD | {"utility": {"ranker": "transact@1"}}, RELEASES) == "release 3 is ranked by transact@1"
    )
    assert foreign(GOOD | {"utility": None}, RELEASES) is None
