"""Requests made from each service's own OpenAPI, right and wrong: answered or refused by name, never a 500.

Right ones speak of the planted world: whatever id, action or time the schema made is mapped onto one that is
there, so that requests reach past the door.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from prometheus_client import REGISTRY
from schemathesis import GenerationMode
from starlette.testclient import TestClient

from bentos import events, homefeed, ranking, retrieval
from tests.bentos import planted_processes
from tests.bentos.fakes import NOW_MS, PINS, TOPICS, board_of
from tests.bentos.preview import planted_parts
from tests.bentos.test_related_ads import RUNNING, PlantedAds, campaigns
from validation.tables import DEFAULT_VOCABULARY

pytestmark = pytest.mark.slow

EXAMPLES = 8
HOUR_MS = 3_600_000

SLOW = "StoreUnavailable"
"""What a busy machine may answer: a part that the request cannot do without missed its deadline."""

SERVICES = {
    "homefeed": (
        *("/homefeed", "/related", "/related_ads", "/pins", "/users", "/events", "/search", "/suggestions"),
    ),
    "retrieval": ("/retrieve", "/held"),
    "ranking": ("/light", "/rank", "/ads", "/held"),
    "events": ("/events",),
}
"""Every path of each."""


@pytest.fixture(scope="module", params=SERVICES)
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, TestClient]]:
    """A service over the planted stack in this process, with its name."""
    folder = tmp_path_factory.mktemp(request.param)
    running = campaigns(folder, RUNNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CORKBOARD_HOME", str(folder))
        patch.setattr(
            homefeed,
            "open_homefeed",
            lambda *_, **__: planted_parts(folder, learned=True, ads=PlantedAds(), campaigns=running),
        )
        for module, parts in (
            (retrieval, planted_processes.retrieval_parts),
            (ranking, partial(planted_processes.ranking_parts, ads=PlantedAds(), campaigns=running)),
            (events, partial(planted_processes.events_parts, log=folder / "events")),
        ):
            patch.setattr(module, "open_parts", lambda settings, parts=parts: parts(folder))
        served = {
            "homefeed": homefeed.Homefeed,
            "retrieval": retrieval.Retrieval,
            "ranking": ranking.Ranking,
            "events": events.Events,
        }[request.param]
        for collector, names in list(REGISTRY._collector_to_names.items()):
            if names[0].startswith("bentoml_"):  # of the service before: an app registers its own anew
                REGISTRY.unregister(collector)
        with TestClient(served.to_asgi(is_main=True)) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)
            yield request.param, client


def test_no_request_that_an_openapi_allows_or_forbids_is_a_500(
    service: tuple[str, TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    name, client = service
    schema = schemathesis.openapi.from_dict(client.get("/docs.json").json())
    paths = {path for path, methods in schema.raw_schema["paths"].items() if "post" in methods}
    assert paths >= set(SERVICES[name])
    for path in SERVICES[name]:
        assert any(fuzzed(schema, client, path, GenerationMode.POSITIVE)), f"{path} answers none"
        fuzzed(schema, client, path, GenerationMode.NEGATIVE)
    assert "Traceback" not in caplog.text


def fuzzed(schema: schemathesis.BaseSchema, client: TestClient, path: str, mode: GenerationMode) -> list[bool]:
    """Whether each request of that path was answered, the same requests at every run; none may be a 500."""
    answered: list[bool] = []

    @given(case=schema[path]["POST"].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def fuzz(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = known(case.body)
        answer = client.request(**case.as_transport_kwargs(base_url=str(client.base_url)))
        told = f"{case.as_curl_command()} -> {answer.status_code} {answer.text}"
        assert answer.status_code < 500 or SLOW in answer.text, told
        if answer.status_code >= 400:
            assert answer.json()["error"].keys() >= {"name", "message"}
        answered.append(answer.status_code == 200)

    fuzz()
    return answered


def known(body: dict[str, Any]) -> dict[str, Any]:
    """The body with its ids, actions, release and times among the planted ones."""
    made = {
        key: KNOWN[key](value) if key in KNOWN and value is not None else value for key, value in body.items()
    }
    if made.get("pin_id") and made.get("board_id"):  # related pins are of one of them
        del made["board_id"]
    if "scores" in made:  # parallel to its pins
        made["scores"] = [1.0] * len(made["pin_ids"])
    return made


def one_of(count: int, value: object) -> int:
    """A whole number from 1 to `count` that stands for `value`."""
    return 1 + zlib.crc32(repr(value).encode()) % count


KNOWN: dict[str, Callable[[Any], Any]] = {
    "user_id": partial(one_of, 3),
    "pin_id": partial(one_of, PINS),
    "anchor": partial(one_of, PINS),
    "board_id": lambda value: board_of(one_of(TOPICS, value)),
    "pin_ids": lambda values: [one_of(PINS, value) for value in values] or [1],
    "exclude": lambda values: [one_of(PINS, value) for value in values],
    "action": lambda value: list(DEFAULT_VOCABULARY.actions)[
        one_of(len(DEFAULT_VOCABULARY.actions), value) - 1
    ],
    "timestamp_ms": lambda value: NOW_MS - one_of(HOUR_MS, value),
    "now_ms": lambda value: NOW_MS,
    "release": lambda value: 1,
    "events": lambda values: [known(value) for value in values],
    "brought": lambda values: [known(value) for value in values],
}
"""What stands for a generated value, by the name of its field."""
