"""Who may ask what, how often and how much: bearer tokens with scopes, rates by client, bounded bodies.

Tokens come from the environment alone: `CORKBOARD_TOKENS`, or the file that `CORKBOARD_TOKENS_FILE` names, has
a line a token, its SHA-256 and its scopes. A token is 256 random bits, so that its bare hash is as good as a
salted one. Without either variable every request may pass; with one that does not parse, nothing starts.

    python -m bentos.access read events      a new token, and the line that lets it in
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import os
import re
import secrets
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.errors import RequestError, refusal
from bentos.metrics import metrics
from bentos.settings import SettingsError

TOKENS, TOKENS_FILE, RATE = "CORKBOARD_TOKENS", "CORKBOARD_TOKENS_FILE", "CORKBOARD_RATE"

MAX_BODY = 8 << 20
"""Bytes of one request: MAX_EVENTS events with every field as long as it may be."""

BODY_DEADLINE_S = 15.0
"""How long a client may take to send its body."""

CLIENTS = 10_000
"""Clients whose rate is known; the one seen longest ago is forgotten."""


class Unauthorized(RequestError):
    """No token, or one that was not given out."""

    status = HTTPStatus.UNAUTHORIZED


class Forbidden(RequestError):
    """A token without the scope that the path needs."""

    status = HTTPStatus.FORBIDDEN


class RateLimited(RequestError):
    """More requests of one client than its rate allows."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, per_s: float, wait_s: float) -> None:
        self.retry_after_s = math.ceil(wait_s)
        super().__init__(f"more than {per_s:g} requests a second; ask again in {self.retry_after_s} s")


class RequestTooLarge(RequestError):
    """A body longer than MAX_BODY."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class RequestTimeout(RequestError):
    """A body that did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT


class Grant(StrEnum):
    """What a token may do. `admin` may do everything."""

    READ = "read"
    EVENTS = "events"
    ADMIN = "admin"


OPEN = ("/livez/", "/readyz/", "/healthz/", "/ui/", "/docs/", "/docs.json/", "/static_content/")
"""Health, and files that hold no data: these paths, and those below them."""


def needed_for(path: str) -> Grant | None:
    """The scope of a path; None where anyone may ask."""
    if path == "/" or f"{path}/".startswith(OPEN):
        return None
    if path == "/events":
        return Grant.EVENTS
    return Grant.ADMIN if path == "/metrics" else Grant.READ


@dataclass(frozen=True)
class Tokens:
    """SHA-256 of each token, and its scopes."""

    scopes: Mapping[str, frozenset[Grant]]

    @classmethod
    def parse(cls, text: str) -> Tokens:
        """Lines of `<sha256> scope[,scope]`; `#` begins a comment. Raises SettingsError naming the line."""
        found: dict[str, frozenset[Grant]] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.partition("#")[0].replace(",", " ").split()
            if not words:
                continue
            if not re.fullmatch("[0-9a-f]{64}", words[0]) or not words[1:] or set(words[1:]) - set(Grant):
                raise SettingsError(
                    f"line {number} of the tokens is not `<64 hex digits> scope[,scope]` with scopes of"
                    f" {', '.join(Grant)}; make one by `python -m bentos.access read`"
                )
            found[words[0]] = frozenset(map(Grant, words[1:]))
        if not found:
            raise SettingsError(f"{TOKENS} or {TOKENS_FILE} is set and holds no token; unset it to let all in")
        return cls(found)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Tokens | None:
        """None where neither variable is set. Raises SettingsError."""
        if TOKENS in environment:
            return cls.parse(environment[TOKENS])
        if TOKENS_FILE not in environment:
            return None
        try:
            return cls.parse(Path(environment[TOKENS_FILE]).read_text())
        except OSError as error:
            raise SettingsError(f"{TOKENS_FILE} cannot be read: {error.strerror}") from error

    def check(self, given: str | None, needed: Grant, path: str) -> str:
        """The hash of the given token, which may do what is needed. Raises Unauthorized, Forbidden.

        Every stored hash is compared, in constant time each: how long it takes says nothing.
        """
        if given is None:
            raise Unauthorized("send a token: `Authorization: Bearer ...`")
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).hexdigest()
        scopes: frozenset[Grant] | None = None
        for known, allowed in self.scopes.items():
            if hmac.compare_digest(known, digest):
                scopes = allowed
        if scopes is None:
            raise Unauthorized("the token was not given out here, or was taken back")
        if not scopes & {needed, Grant.ADMIN}:
            raise Forbidden(f"{path} needs the scope {needed}; the token has {', '.join(sorted(scopes))}")
        return digest


@dataclass
class Rates:
    """A token bucket a client: `per_s` requests a second, `burst` at once. Thread-safe; `clock` gives s."""

    per_s: float
    burst: float
    clients: int = CLIENTS
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _door: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Rates | None:
        """`CORKBOARD_RATE`, requests a second, twice as many at once; None without. Raises SettingsError."""
        given = environment.get(RATE)
        if not given:
            return None
        try:
            per_s = float(given)
        except ValueError:
            per_s = 0.0
        if not 0 < per_s < float("inf"):
            raise SettingsError(f"{RATE} is {given!r}; give requests a second, above 0")
        return cls(per_s, max(1.0, 2 * per_s))

    def take(self, client: str) -> None:
        """Count a request of a client. Raises RateLimited."""
        now = self.clock()
        with self._door:
            left, seen = self._buckets.get(client, (self.burst, now))
            left = min(self.burst, left + (now - seen) * self.per_s)
            allowed = left >= 1
            self._buckets[client] = (left - 1 if allowed else left, now)
            self._buckets.move_to_end(client)
            while len(self._buckets) > self.clients:
                self._buckets.popitem(last=False)
        if not allowed:
            raise RateLimited(self.per_s, (1 - left) / self.per_s)


def guarded(environment: Mapping[str, str] | None = None) -> type[FrontDoor]:
    """`FrontDoor`, once the environment's tokens and rate are known to parse. Raises SettingsError.

    Middlewares are made at the first request: a service asks for its door where its module is imported, so
    that one with a broken door never starts.
    """
    env = os.environ if environment is None else environment
    Tokens.from_environment(env)
    Rates.from_environment(env)
    return FrontDoor


def of_this_machine(scope: Scope) -> bool:
    """Whether a request came over a Unix socket: neither end has a port."""
    server = scope.get("server")
    return scope.get("client") is None and not (server and isinstance(server[1], int))


class FrontDoor:
    """ASGI middleware: tokens, rates and body sizes, before anything else reads the request.

    A call over a Unix socket is of the machine's own services, which speak so among themselves: it needs no
    token.
    """

    def __init__(self, app: ASGIApp, environment: Mapping[str, str] | None = None) -> None:
        env = os.environ if environment is None else environment
        self.app = app
        self.tokens, self.rates = Tokens.from_environment(env), Rates.from_environment(env)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # no service has one
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            if not of_this_machine(scope):
                self._admit(scope)
            receive = await _bounded(scope, receive)
        except RequestError as error:
            metrics().refused.labels("door", error.name).inc()
            answer = refusal(error)
            if isinstance(error, Unauthorized):
                answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        needed = needed_for(scope["path"])
        if needed is None:
            return
        client = (scope.get("client") or ("unknown", 0))[0]
        if self.tokens is not None:
            client = self.tokens.check(_bearer(scope["headers"]), needed, scope["path"])
        if self.rates is not None:
            self.rates.take(client)


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    given = dict(headers).get(b"authorization", b"").decode("latin-1")
    kind, _, token = given.partition(" ")
    return token.strip() if kind.lower() == "bearer" and token.strip() else None


async def _bounded(scope: Scope, receive: Receive) -> Receive:
    """`receive` with the whole body read already. Raises RequestTooLarge, RequestTimeout."""
    stated = dict(scope["headers"]).get(b"content-length", b"0")
    if stated.isdigit() and int(stated) > MAX_BODY:
        raise RequestTooLarge(f"the body has {int(stated)} bytes; send at most {MAX_BODY}")
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return receive
    body, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    break
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > MAX_BODY:
                    raise RequestTooLarge(f"the body has more than {MAX_BODY} bytes; send less at a time")
    except TimeoutError as error:
        raise RequestTimeout(f"the body did not come within {BODY_DEADLINE_S:g} s") from error
    given: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return given.pop() if given else await receive()

    return again


def main(scopes: list[str]) -> None:
    """Print a new token with the line of its hash."""
    if not scopes or set(scopes) - set(Grant):
        raise SystemExit(f"usage: python -m bentos.access SCOPE...   scopes: {', '.join(Grant)}")
    token = secrets.token_urlsafe(32)
    print(f"token   {token}\nline    {hashlib.sha256(token.encode()).hexdigest()} {','.join(scopes)}")


if __name__ == "__main__":
    main(sys.argv[1:])
