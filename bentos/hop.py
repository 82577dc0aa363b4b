"""One call to a service in another process: its answer as our type, its refusal under its own name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel

from bentos.errors import RequestError
from bentos.hop_messages import HeldAnswer

A = TypeVar("A", bound=BaseModel)

HELD_DEADLINE_S = 2.0

AGAIN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Refusals that pass."""


class HopRefused(RequestError):
    """A refusal of the other service, with its name, sentence, status, and why."""

    def __init__(self, name: str, message: str, status: HTTPStatus, why: str | None = None) -> None:
        super().__init__(message)
        self._name, self._status, self.why = name, status, why
        if status in AGAIN:
            self.retry_after_s = 1

    @property
    def name(self) -> str:
        return self._name

    @property
    def http_status(self) -> HTTPStatus:
        return self._status


def speak_json(service: Any) -> None:
    """Have the proxy that `bentoml.depends` gives send JSON and ask for it. By itself it speaks pickle to
    services that one `bentoml serve` started. To be called before its first request."""
    service.to_async.media_type = "application/json"


async def hop(call: Awaitable[Any], answer: type[A]) -> A:
    """Await a call through `bentoml.depends`.

    Raises HopRefused where the other service refused, ConnectionError where it cannot be reached or dies under
    the call, TimeoutError where it does not answer.
    """
    try:
        got = await call
    except BentoMLException as error:
        raise refusal(str(error), HTTPStatus(error.error_code)) from error
    except TimeoutError:  # some are of the connection, too
        raise
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise ConnectionError(f"the service is not there: {error!r}") from error
    return got if isinstance(got, answer) else answer.model_validate(got, from_attributes=True)


async def holds(call: Awaitable[Any]) -> bool:
    """Whether a service that is asked for a release holds it; one that refuses or is not there does not."""
    try:
        await asyncio.wait_for(hop(call, HeldAnswer), HELD_DEADLINE_S)
    except (HopRefused, ConnectionError, TimeoutError):
        return False
    return True


def refusal(text: str, status: HTTPStatus) -> HopRefused:
    """The other service's error body as an exception."""
    try:
        told = json.loads(text)["error"]
        return HopRefused(told["name"], told["message"], status, told.get("why"))
    except (ValueError, KeyError, TypeError):  # not one of ours: a proxy's page, a dead process
        return HopRefused(status.phrase.replace(" ", ""), text[:500], status)
