"""Tokens, rates and sizes at the door; hostile ids behind it; and nothing personal in the log."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bentos import access
from bentos.access import CLIENTS, MAX_BODY, FrontDoor, RateLimited, Rates, Tokens, main
from bentos.errors import NamedErrors, RequestError
from bentos.given import MAX_TEXT
from bentos.messages import MAX_EVENTS, Event, EventsRequest, FeedRequest, PinsRequest, RelatedRequest
from bentos.settings import SettingsError
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, PINS, Stack
from tests.bentos.test_intake import Door
from validation.queries import MAX_QUERY
from validation.tables import EntityKind

READER, SENDER, CHIEF = "reader's token", "sender's token", "chief's token"


def line(token: str, scopes: str) -> str:
    return f"{hashlib.sha256(token.encode()).hexdigest()} {scopes}"


TOKENS = "\n".join(
    ("# who", line(READER, "read"), "", line(SENDER, "read,events  # the app"), line(CHIEF, "admin"))
)
TCP = {"client": ("10.0.0.9", 4711), "server": ("127.0.0.1", 3000)}
UNIX = {"client": None, "server": ("/run/service.sock", None)}


def ask(
    door: Any,
    path: str = "/homefeed",
    token: str | None = None,
    body: list[bytes] | None = None,
    method: str = "POST",
    peers: dict[str, Any] = TCP,
    **headers: str,
) -> tuple[int, dict[str, Any], dict[bytes, bytes]]:
    """Status, JSON and headers of a request through a middleware."""
    parts = list(body if body is not None else [b"{}"])
    sent: list[dict[str, Any]] = []
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        given["authorization"] = f"Bearer {token}"

    async def receive() -> dict[str, Any]:
        content = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": content, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode("latin-1")) for k, v in given.items()],
        **peers,
    }
    run(door(scope, receive, send))
    content = b"".join(m.get("body", b"") for m in sent[1:])
    return sent[0]["status"], json.loads(content or b"{}"), dict(sent[0]["headers"])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps({"read": len(message["body"])}).encode()})


@pytest.fixture
def door() -> FrontDoor:
    return FrontDoor(echo, {"CORKBOARD_TOKENS": TOKENS})


@pytest.mark.parametrize(
    ("token", "path", "status"),
    [
        (None, "/homefeed", 401),
        ("a guess", "/homefeed", 401),
        ("", "/homefeed", 401),
        (READER, "/homefeed", 200),
        (READER, "/events", 403),
        (READER, "/metrics", 403),
        (SENDER, "/events", 200),
        (SENDER, "/related", 200),
        (CHIEF, "/events", 200),
        (CHIEF, "/metrics", 200),
        (None, "/metrics", 401),
        (None, "/readyz", 200),
        (None, "/ui/app.js", 200),
        (None, "/", 200),
        (None, "/uix", 401),
        (None, "/nowhere", 401),
    ],
)
def test_a_path_needs_its_scope(door: FrontDoor, token: str | None, path: str, status: int) -> None:
    got, answer, headers = ask(door, path, token)
    assert got == status
    if status == 401:
        assert answer["error"]["name"] == "Unauthorized" and headers[b"www-authenticate"] == b"Bearer"
    if status == 403:
        assert answer["error"]["name"] == "Forbidden" and "the token has read" in answer["error"]["message"]


def test_without_tokens_every_request_passes_and_with_bad_ones_nothing_starts(tmp_path: Path) -> None:
    assert ask(FrontDoor(echo, {}))[0] == 200
    for bad in ("", "# none", READER + " read", line(READER, "write"), line(READER, "")):
        with pytest.raises(SettingsError):
            FrontDoor(echo, {"CORKBOARD_TOKENS": bad})
        with pytest.raises(SettingsError, match=r"^(?!.*reader's)"):
            FrontDoor(echo, {"CORKBOARD_TOKENS": bad})
    with pytest.raises(SettingsError, match="CORKBOARD_TOKENS_FILE cannot be read"):
        FrontDoor(echo, {"CORKBOARD_TOKENS_FILE": str(tmp_path / "none")})
    file = tmp_path / "tokens"
    file.write_text(TOKENS)
    assert ask(FrontDoor(echo, {"CORKBOARD_TOKENS_FILE": str(file)}), token=READER)[0] == 200


@pytest.mark.parametrize("variable", [{"CORKBOARD_TOKENS": "garbage"}, {"CORKBOARD_RATE": "many"}])
def test_a_service_with_a_broken_door_cannot_be_imported(variable: dict[str, str]) -> None:
    tried = subprocess.run(
        [sys.executable, "-c", "import bentos.events"],
        env={**os.environ, **variable},
        capture_output=True,
        text=True,
    )
    assert tried.returncode != 0
    assert "SettingsError: " in tried.stderr


def test_every_hash_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    real = access.hmac.compare_digest
    monkeypatch.setattr(access.hmac, "compare_digest", lambda a, b: (compared.append(a), real(a, b))[1])
    tokens = Tokens.parse(TOKENS)
    tokens.check(READER, access.Grant.READ, "/homefeed")
    assert compared == list(tokens.scopes), "the first one fits, and the others are compared all the same"


def test_a_new_token_opens_what_its_line_says(capsys: pytest.CaptureFixture[str]) -> None:
    main(["read", "events"])
    token, made = (row.split(maxsplit=1)[1] for row in capsys.readouterr().out.splitlines())
    assert token not in made and ask(FrontDoor(echo, {"CORKBOARD_TOKENS": made}), "/events", token)[0] == 200
    with pytest.raises(SystemExit, match="usage"):
        main(["root"])


def test_services_of_one_machine_need_no_token(door: FrontDoor) -> None:
    assert ask(door, "/retrieve", peers=UNIX)[0] == 200
    assert ask(door, "/retrieve", peers={"client": None, "server": ("127.0.0.1", 3000)})[0] == 401


@pytest.mark.parametrize("peers", [TCP, UNIX])
def test_a_pickle_is_refused_wherever_it_comes_from(peers: dict[str, Any]) -> None:
    pickle = "application/vnd.bentoml+pickle"
    for kinds, status in (((pickle,), 415), ((pickle, "application/json"), 415), (("application/json",), 200)):
        given = {"headers": [(b"content-type", kind.encode()) for kind in kinds]}
        assert ask(NamedErrors(echo), "/retrieve", peers=peers | given)[0] == status


def test_bodies_are_bounded_whether_they_say_their_length_or_not() -> None:
    open_door = FrontDoor(echo, {})
    assert ask(open_door, body=[b"x" * 1_000] * 3)[1] == {"read": 3_000}
    status, answer, _ = ask(open_door, content_length=str(MAX_BODY + 1))
    assert status == 413 and answer["error"]["name"] == "RequestTooLarge"
    assert ask(open_door, body=[b"x" * (1 << 20)] * 9)[0] == 413
    assert ask(open_door, body=[b"x" * MAX_BODY])[1] == {"read": MAX_BODY}


def test_the_largest_request_that_is_allowed_fits() -> None:
    """As many events as may be, every text as long as it may be."""
    texts = ("user_id", "pin_id", "action", "event_id", "surface", "board_id", "request_id")
    event = Event(**dict.fromkeys(texts, "x" * MAX_TEXT), query="x" * MAX_QUERY)
    whole = EventsRequest(events=[event] * MAX_EVENTS).model_dump_json()
    assert len(whole) < MAX_BODY


def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.setattr(access, "BODY_DEADLINE_S", 0.02)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(30)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    run(
        FrontDoor(echo, {})(
            {"type": "http", "method": "POST", "path": "/events", "headers": [], **TCP}, receive, send
        )
    )
    assert sent[0]["status"] == 408


def test_rates_are_a_clients_own_and_come_back() -> None:
    now = [0.0]
    rates = Rates(per_s=2, burst=3, clients=2, clock=lambda: now[0])
    for _ in range(3):
        rates.take("ann")
    with pytest.raises(RateLimited, match="2 requests a second"):
        rates.take("ann")
    rates.take("bob")
    now[0] += 0.5
    rates.take("ann")
    with pytest.raises(RateLimited):
        rates.take("ann")
    for client in range(CLIENTS // 1_000):
        rates.take(f"passer-by {client}")
    assert len(rates._buckets) == 2, "bounded, whoever comes"


def test_a_client_past_its_rate_is_told_when_to_come_again() -> None:
    limited = FrontDoor(echo, {"CORKBOARD_RATE": "0.5"})
    assert ask(limited)[0] == 200
    status, answer, headers = ask(limited)
    assert status == 429 and answer["error"]["name"] == "RateLimited" and headers[b"retry-after"] == b"2"
    assert ask(limited, "/readyz")[0] == 200 and ask(limited, peers=UNIX)[0] == 200
    other = {**TCP, "client": ("10.0.0.10", 1)}
    assert ask(limited, peers=other)[0] == 200
    for bad in ("-1", "nan", "fast", "inf", "0"):
        with pytest.raises(SettingsError, match="CORKBOARD_RATE"):
            FrontDoor(echo, {"CORKBOARD_RATE": bad})


def test_behind_a_proxy_that_uvicorn_knows_each_client_has_a_rate_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.9")
    config = uvicorn.Config(FrontDoor(echo, {"CORKBOARD_RATE": "0.5"}))
    config.load()
    door = config.loaded_app
    assert [ask(door, x_forwarded_for=client)[0] for client in ("1.1.1.1", "2.2.2.2", "1.1.1.1")] == [
        200,
        200,
        429,
    ]
    stranger = {**TCP, "client": ("10.0.0.66", 1)}
    claims = [ask(door, peers=stranger, x_forwarded_for=client)[0] for client in ("3.3.3.3", "4.4.4.4")]
    assert claims == [200, 429], "what anybody else claims to forward counts as theirs"


HOSTILE = (
    "'; DROP TABLE user; --",
    '" OR ""="',
    "1 OR 1=1",
    "pin_id in [1,2] || true",
    "../../../../etc/passwd",
    "%s%n{0}${HOME}$(id)`id`",
    "\x00\n\r\t",
    "‮ǝɯ ɥɔʇɐɔ 🜏",
    "user/content@1",
    "*",
    "x" * 512,
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_ids_are_ids_and_nothing_else(
    stack_of: Callable[..., Stack], tmp_path: Path, hostile: str
) -> None:
    kinds = frozenset({EntityKind.USER, EntityKind.PIN})
    stack = stack_of(string_ids=kinds)
    id_map = stack.release.ids._map
    id_map.encode(EntityKind.PIN, [f"pin-{i}" for i in range(1, PINS)] + [hostile])
    answer = run(stack.service.homefeed(FeedRequest(user_id=hostile, limit=5, exclude=[hostile])))
    assert len(answer.pins) == 5 and answer.user_id == hostile
    slow = ("deadline", "breaker open")  # of a busy machine; anything else would be the id's doing
    assert [part for part in answer.missing if not part.endswith(slow)] == []
    assert run(stack.service.pins(PinsRequest(pin_ids=[hostile]))).pins[0].pin_id == hostile
    assert run(stack.service.related(RelatedRequest(pin_id=hostile, limit=5))).pins
    door = Door(tmp_path, kinds)
    door.ids.encode(EntityKind.PIN, [hostile])
    event = {"user_id": hostile, "pin_id": hostile, "action": "save", "event_id": hostile, "query": hostile}
    assert door.send(event).accepted == 1 and door.logged()[0].query == hostile
    assert (
        door.ids.decode(EntityKind.USER, [1]) == [hostile] and len(id_map.decode(EntityKind.PIN, [PINS])) == 1
    )
    door.close()


def test_nothing_personal_is_in_the_log(stack: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With every store failing, so that every line is written."""
    caplog.set_level(logging.DEBUG)
    user, query = 918_273_645, "rash on my left arm"
    door = Door(tmp_path)
    broken = {"user", "pins", "popular", "boards", "cards", "push_sequences", "sequences"}
    door.features.broken |= broken
    door.send({"user_id": user, "pin_id": 5, "action": "save", "query": query, "event_id": 77_665_544})
    stack.features.broken |= broken
    run(stack.service.homefeed(FeedRequest(user_id=user, limit=5)))
    for wrong in (lambda: door.send({"user_id": user, "pin_id": 0, "action": "save"}),):
        with pytest.raises(RequestError):
            wrong()
    door.close()
    text = caplog.text
    assert "goes on without user" in text and "sequences of 1 users wait" in text
    assert str(user) not in text and query not in text and COOK == 1
