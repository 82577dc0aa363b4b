"""Promotions and rollbacks under mixed requests over HTTP: no error, and no answer of two releases."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.bentos import fakes
from tests.bentos.clients import Clients, kept_once
from tests.bentos.servers import Server, bentoml, serving
from tests.bentos.swapping_service import BY_VECTORS, CHAMPION, mixed
from tests.bentos.swaps import swap_under_load
from validation.lease import leased, leases_of

pytestmark = [pytest.mark.slow, pytest.mark.load]

MOVES = 20
FLAT_MB = 40.0
"""Growth over ten moves that is put down to the allocator."""


def point_at(home: Path, version: int) -> None:
    staged = home / f"{CHAMPION}.tmp"
    staged.write_text(str(version))
    staged.replace(home / CHAMPION)


def move_to(server: Server, version: int) -> None:
    """Move the alias; return once the service follows."""
    point_at(server.home, version)
    end = time.monotonic() + 120
    while server.post("/homefeed", {"user_id": fakes.STRANGER, "limit": 1})[1].get("release") != version:
        assert time.monotonic() < end, f"release {version} is not served: {server.log.read_text()[-2000:]}"


def until_held(home: Path, versions: set[int], *, alone: bool) -> None:
    """Processes that were behind when the last release came take a moment; what makers held before may be an
    older one, which they keep."""
    end = time.monotonic() + 60
    while not (set(held := leased(leases_of(home))) >= versions and (len(held) == len(versions) or not alone)):
        assert time.monotonic() < end, f"{leased(leases_of(home))} are held"
        time.sleep(0.05)


def promoted(moves: int) -> list[int]:
    """The champion after each move: a promotion, a rollback, two promotions, a rollback, and so on."""
    line, versions = [1], []
    for move in range(moves):
        if move % 3 == 1:
            line.pop()
        else:
            line.append(max([*line, *versions]) + 1)
        versions.append(line[-1])
    return versions


def asking(server: Server, seen: set[int]) -> Callable[[int], str | None]:
    """Home feeds, related pins and events in turns, each answer looked through."""

    def ask(number: int) -> str | None:
        user = (fakes.COOK, fakes.GARDENER, fakes.FOLLOWER, fakes.STRANGER)[number % 4]
        if number % 5 == 0:
            event = {"user_id": 50 + number % 7, "pin_id": 1 + number % fakes.PINS, "action": "click"}
            status, answer = server.post("/events", {"events": [event]})
            assert status == 200 and answer["accepted"] == 1, answer
            return None
        if number % 5 < 3:
            path, body = "/homefeed", {"user_id": user, "limit": 10}
        else:
            path, body = (
                "/related",
                {"pin_id": fakes.pin_of(1 + number % fakes.TOPICS, number % 4), "limit": 10},
            )
        status, answer = server.post(path, body)
        assert status == 200, answer
        seen.add(answer["release"])
        return mixed(answer, is_ranked=path == "/homefeed")

    return ask


def killed_in_front_of_makers(server: Server, service: psutil.Process) -> None:
    """kill -9 of the process that hears clients: its makers end with it, and another answers as it did."""
    makers = service.children(recursive=True)
    with Clients(server, 10_000) as clients:
        clients.keeps_events()
        before = len(clients.missing)
        service.kill()
        assert psutil.wait_procs(makers, 30)[1] == [], "makers end with their service, however it ends"
        clients.wait_for(lambda: len(clients.missing) > before + 10)
        clients.keeps_events()
    answers = [answer for status, answer in clients.feeds if status == 200]
    assert [wrong for answer in answers if (wrong := mixed(answer, is_ranked=True))] == []
    assert {len(answer["pins"]) for answer in answers} == {10}
    assert {status for status, _ in clients.feeds} <= {200, 0, 503}
    assert kept_once(server, clients.promised)


@pytest.mark.parametrize("profile", ["composed", "separate", "makers"])
def test_swaps_under_load(tmp_path: Path, profile: str) -> None:
    """Also where retrieval and ranking are processes of their own, which see each move later, and where makers
    load one after the other."""
    home = tmp_path / "home"
    home.mkdir()
    point_at(home, 1)
    command = ("serve", "tests.bentos.swapping_service:Homefeed", "--host", "127.0.0.1", "--port", "{port}")
    versions = promoted(MOVES)
    given = {"CORKBOARD_MAKERS": "2"} if profile == "makers" else {"CORKBOARD_PROFILE": profile}
    with serving(bentoml(*command), home, **given) as server:
        service = psutil.Process(int((home / "service.pid").read_text()))
        seen: set[int] = set()
        report = swap_under_load(
            asking(server, seen),
            [partial(move_to, server, version) for version in versions],
            lambda: service.memory_info().rss / 1e6,
            steady_answers=10 * len(versions),
        )
        print(f"\n{report}")
        until_held(home, set(versions[-2:]), alone=profile != "makers")  # the one before stays in memory
        if profile == "makers":
            killed_in_front_of_makers(server, service)
    assert report.errors == () and report.mixed == ()
    assert seen == {1, *versions}
    assert report.rss_growth_mb < FLAT_MB
    assert leased(leases_of(home)) == {}


def test_an_answer_of_two_releases_is_found_out() -> None:
    pin = {"pin_id": 7, "source": BY_VECTORS[0], "score": 0.1}
    answer = {
        "release": 3,
        "spaces": ["content@1"],
        "missing": [],
        "fallback": None,
        "utility": {"ranker": "pinnability_lr@3"},
        "pins": [pin],
    }
    assert mixed(answer, is_ranked=True) is None
    for change in (
        {"spaces": ["content@1", "content@2"]},
        {"utility": {"ranker": "pinnability_lr@2"}},
        {"pins": [pin | {"pin_id": 8}]},
        {"pins": [pin | {"score": 0.9}]},
        {"missing": ["pinnersage: VectorShapeError"]},
    ):
        assert mixed(answer | change, is_ranked=True) is not None
    slow = {"missing": ["rank: deadline"], "utility": None}
    assert mixed(answer | slow, is_ranked=True) is None, "a busy machine misses deadlines, and says so"
    assert mixed(answer | {"utility": None}, is_ranked=True) is not None
    assert mixed(answer | {"utility": None}, is_ranked=False) is None
