"""Errors of a request: each has a name, a status and a sentence that names the offending thing and the mend."""

from __future__ import annotations

import functools
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar

import orjson
from pydantic import ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.metrics import metrics


class RequestError(Exception):
    """A request that cannot be answered. Subclasses name themselves: the class is the error's name."""

    status: ClassVar[HTTPStatus] = HTTPStatus.BAD_REQUEST
    retry_after_s: int | None = None
    """Seconds after which the same request may be answered; None where it will not be."""
    why: str | None = None
    """What a feed that does without says in place of the name: `deadline`, `busy`."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def http_status(self) -> HTTPStatus:
        return self.status

    @property
    def message(self) -> str:
        return str(self.args[0])


class LimitOutOfRange(RequestError):
    """More items asked for, or sent, than one request may carry."""


class BadId(RequestError):
    """An id of the wrong kind: a name where the data set counts, zero, or a negative number."""


class UnknownAction(RequestError):
    """An action outside the data set's vocabulary."""


class FutureTimestamp(RequestError):
    """An event that claims to happen after now."""


class EventTooOld(RequestError):
    """An event older than the event door takes in."""


class UndeclaredIds(RequestError):
    """An id of a kind of which the data set has none: its form is the data set's to choose."""


class PinNotFound(RequestError):
    """A pin that the data set does not hold."""

    status = HTTPStatus.NOT_FOUND


class BoardNotFound(RequestError):
    """A board that the data set does not hold, or that holds no pins."""

    status = HTTPStatus.NOT_FOUND


class OneSubject(RequestError):
    """Related pins asked for nothing, or for a pin and a board at once."""


class EmptyQuery(RequestError):
    """A search for nothing."""


class QueryTooLong(RequestError):
    """A search for more than anybody types."""


class NoSearch(RequestError):
    """The release has nothing to search with."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class UserNotFound(RequestError):
    """A user that has neither features nor actions, where one is needed."""

    status = HTTPStatus.NOT_FOUND


class ReleaseMismatch(RequestError):
    """A request bound to a release that this process no longer, or not yet, serves."""

    status = HTTPStatus.CONFLICT


class NoRelease(RequestError):
    """No release is loaded yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 5


class StoreUnavailable(RequestError):
    """A store that this request cannot do without did not answer in time, or refused."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 1

    def __init__(self, message: str, why: str | None = None) -> None:
        super().__init__(message)
        self.why = why


class LogUnavailable(RequestError):
    """The event log cannot take records, or is out of reach; the message says what was kept."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 5


class TooManyEvents(RequestError):
    """Events come faster than they can be kept or applied; nothing of the request was kept."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    retry_after_s = 1


class Overloaded(RequestError):
    """More requests than can be answered in time, even with the least work."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after_s = 1


def body(name: str, message: str, **more: Any) -> bytes:
    """The JSON body of every refusal: `{"error": {"name": ..., "message": ...}}`, `why` where that is known."""
    return orjson.dumps({"error": {"name": name, "message": message, **more}})


def refusal(error: RequestError) -> Response:
    """The error as its answer: name, sentence, status, and when to come again."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    content = body(error.name, error.message, **({"why": error.why} if error.why else {}))
    return Response(content, error.http_status, headers, media_type="application/json")


F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


def named_errors(api: F) -> F:
    """Turn RequestError into its JSON answer, so that BentoML neither logs a traceback nor hides the name."""

    @functools.wraps(api)
    async def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            return await api(*args, **kwargs)
        except RequestError as error:
            metrics().refused.labels(api.__name__, error.name).inc()
            return refusal(error)

    # BentoML evaluates the annotations in the module of the function it is given.
    answered.__signature__ = inspect.signature(api)  # type: ignore[attr-defined]
    return answered  # type: ignore[return-value]


BODIES = frozenset({"", "application/json"})
"""Content types of a POST, wherever it comes from. BentoML would unpickle one of its own, and read any other as
a form, and a malformed form is a traceback."""


class NamedErrors:
    """ASGI middleware: give the framework's own refusals (bad JSON, no such path) the shape of ours.

    A POST whose content type is not one of BODIES is refused here, before the framework reads it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        logger = logging.getLogger("bentoml._internal.server.http_app")
        if not any(isinstance(given, _OneLine) for given in logger.filters):
            logger.addFilter(_OneLine())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        kind = _content_type(scope["headers"]) if scope["method"] == "POST" else ""
        if kind not in BODIES:
            told = f"the body is sent as {kind!r}; send JSON, with Content-Type: application/json"
            content = body("UnsupportedMediaType", told)
            answer = Response(content, HTTPStatus.UNSUPPORTED_MEDIA_TYPE, media_type="application/json")
            await answer(scope, receive, send)
            return
        start: Message | None = None
        chunks: list[bytes] = []

        async def reshaped(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_refusal(message):
                start = message
                return
            if start is None:
                await send(message)
                return
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                if start["status"] in ROUTING:
                    content = _no_such_route(start["status"], scope, b"".join(chunks))
                else:
                    content = _reshape(start["status"], b"".join(chunks))
                replaced = (b"content-length", b"content-type")
                headers = [(k, v) for k, v in start["headers"] if k.lower() not in replaced]
                headers.append((b"content-length", str(len(content)).encode()))
                headers.append((b"content-type", b"application/json"))
                await send({**start, "headers": headers})
                await send({"type": "http.response.body", "body": content})

        await self.app(scope, receive, reshaped)


MAX_LINE = 500
"""Characters that one malformed request may take of the log."""


class _OneLine(logging.Filter):
    """A client's malformed request is one line of the log, which names its path and what is wrong in it, and no
    traceback. Values are not told: they may be somebody's."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, ValidationError):
            told = _faults([_unnamed(each) for each in error.errors(include_url=False, include_input=False)])
            line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in told)
            asked = record.getMessage().removeprefix("Exception on ")
            record.msg, record.args = f"{asked} refused: {line[:MAX_LINE]}", None
            record.exc_info, record.levelno, record.levelname = None, logging.INFO, "INFO"
        return True


ROUTING = {HTTPStatus.NOT_FOUND: "NotFound", HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed"}
"""Refusals that the router answers in plain text."""


def _content_type(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The first one given, which is what the framework goes by."""
    for name, value in headers:
        if name.lower() == b"content-type":
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""


def _is_refusal(message: Message) -> bool:
    """JSON that says no, or the router's plain words."""
    status = message["status"]
    if status < HTTPStatus.BAD_REQUEST:
        return False
    kind = _content_type(message["headers"])
    return kind == "application/json" or (kind == "text/plain" and status in ROUTING)


def _no_such_route(status: int, scope: Scope, content: bytes) -> bytes:
    """The router's words as our body; JSON of the app itself keeps its own."""
    if content.lstrip()[:1] in (b"{", b"["):
        return _reshape(status, content)
    told = f"{scope['method']} {scope['path']}: {content.decode(errors='replace')}"
    return body(ROUTING[HTTPStatus(status)], f"{told}; /docs.json lists every path and its method")


def _reshape(status: int, content: bytes) -> bytes:
    """BentoML says `{"error": text, "detail": [...]}` or `[{"error": text}]`; ours pass through unchanged."""
    try:
        told = json.loads(content)
    except ValueError:
        return body(HTTPStatus(status).phrase.replace(" ", ""), content.decode(errors="replace"))
    if isinstance(told, list) and told:
        told = told[0]
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(error, dict):
        return content
    details = told.get("detail") if isinstance(told, dict) else None
    if details:
        name = LimitOutOfRange.__name__ if details[0].get("type") in COUNTS else "InvalidRequest"
        return body(name, _faults(details), count=len(details))
    return body(HTTPStatus(status).phrase.replace(" ", ""), str(error or told))


COUNTS = {"too_short", "too_long"}
"""Pydantic's names for a list of the wrong length, which is told before what is in it."""


def _unnamed(detail: Mapping[str, Any]) -> Mapping[str, Any]:
    """The error of a field that we do not know, without its name: what else could be a value."""
    return {**detail, "loc": detail["loc"][:-1]} if detail["type"] == "extra_forbidden" else detail


def _faults(details: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors: where each is, and what it says."""
    told = "; ".join(f"{'.'.join(map(str, d['loc'])) or 'body'}: {d['msg']}" for d in details[:5])
    return told.replace(" after validation", "")
