"""A call to a service in another process: asked again where the line broke, named where nobody is there."""

from __future__ import annotations

from http import HTTPStatus

import aiohttp
import pytest
from bentoml.exceptions import BentoMLException

from bentos.engines import _twice
from bentos.errors import StoreUnavailable, body, refusal
from bentos.failing import why_missing
from bentos.hop import HopRefused, holds, hop
from bentos.hop_messages import HeldAnswer
from tests.bentos.conftest import run


class Refused(BentoMLException):
    error_code = HTTPStatus.CONFLICT


REFUSAL = Refused(body("ReleaseMismatch", "release 7 is not served here").decode())


class Service:
    """Answers, after it raised what it was given."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    async def call(self) -> dict[str, int]:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return {"release": 7}


@pytest.mark.parametrize("error", [aiohttp.ClientOSError(104, "reset"), aiohttp.ServerDisconnectedError()])
def test_a_line_that_breaks_once_costs_nothing(error: Exception) -> None:
    service = Service(error)
    assert run(_twice(lambda: hop(service.call(), HeldAnswer))) == HeldAnswer(release=7)
    assert service.asked == 2


def test_a_service_that_is_not_there_is_named_by_what_python_calls_it() -> None:
    gone = Service(aiohttp.ClientOSError(111, "refused"), aiohttp.ClientOSError(111, "refused"))
    with pytest.raises(ConnectionError, match="not there"):
        run(_twice(lambda: hop(gone.call(), HeldAnswer)))
    slow = Service(aiohttp.SocketTimeoutError("slow"))
    with pytest.raises(TimeoutError):
        run(_twice(lambda: hop(slow.call(), HeldAnswer)))
    assert slow.asked == 1, "who is slow is not asked again"


def test_a_refusal_keeps_its_name_and_is_not_repeated() -> None:
    service = Service(REFUSAL)
    with pytest.raises(HopRefused, match="not served here") as refused:
        run(_twice(lambda: hop(service.call(), HeldAnswer)))
    assert (refused.value.name, refused.value.http_status, service.asked) == ("ReleaseMismatch", 409, 1)


def test_a_part_that_is_missing_says_why_across_the_hop() -> None:
    slow = refusal(StoreUnavailable("light could not be read: deadline; try again", "deadline"))
    service = Service(Refused(bytes(slow.body).decode()))
    with pytest.raises(HopRefused) as refused:
        run(hop(service.call(), HeldAnswer))
    assert (refused.value.name, why_missing(refused.value)) == ("StoreUnavailable", "deadline")
    with pytest.raises(HopRefused) as refused:
        run(hop(Service(REFUSAL).call(), HeldAnswer))
    assert why_missing(refused.value) == "ReleaseMismatch"


@pytest.mark.parametrize(
    "error", [REFUSAL, aiohttp.ClientOSError(111, "refused"), aiohttp.SocketTimeoutError("slow")]
)
def test_who_refuses_or_is_not_there_does_not_hold_a_release(error: Exception) -> None:
    assert not run(holds(Service(error).call()))
    assert run(holds(Service().call()))
