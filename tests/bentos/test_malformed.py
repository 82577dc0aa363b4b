"""Requests that do not parse: what they are answered, and the one line that the log gets."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError, model_validator

from bentos.errors import _OneLine, _reshape
from bentos.given import MAX_TEXT
from bentos.messages import MAX_EVENTS, Event, EventsRequest, FeedRequest, PinsRequest

EVENT = {"user_id": 1, "pin_id": 2, "action": "save"}


def refused(model: type, request: object) -> dict[str, object]:
    """The body that a service answers to `request`, as the framework and NamedErrors make it."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(request))
    detail = caught.value.errors(include_context=False, include_input=False)
    return json.loads(_reshape(400, json.dumps({"error": "", "detail": detail}).encode()))["error"]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (3.5, "a fraction"),
        ([1], "a list"),
        ({"id": 1}, "an object"),
        ("x" * (MAX_TEXT + 1), "text of 513 characters"),
    ],
)
def test_an_id_of_the_wrong_kind_is_one_sentence(given: object, kind: str) -> None:
    wanted = f"must be a whole number or text of at most 512 characters, not {kind}"
    assert refused(FeedRequest, {"user_id": given}) == {
        "name": "InvalidRequest",
        "message": f"user_id: {wanted}",
        "count": 1,
    }
    assert refused(PinsRequest, {"pin_ids": [7, given]})["message"] == f"pin_ids.1: {wanted}"


def test_both_forms_of_an_id_are_taken_and_shown() -> None:
    assert PinsRequest.model_validate_json('{"pin_ids": [7, "seven"]}').pin_ids == [7, "seven"]
    assert Event.model_validate_json(json.dumps({**EVENT, "event_id": None})).event_id is None
    form = [{"type": "integer"}, {"maxLength": MAX_TEXT, "type": "string"}]
    assert FeedRequest.model_json_schema()["properties"]["user_id"]["anyOf"] == form


@pytest.mark.parametrize(("count", "bound"), [(0, "at least 1 item"), (100_001, "at most 1000 items")])
def test_a_wrong_number_of_events_is_refused_by_it_alone(count: int, bound: str) -> None:
    error = refused(EventsRequest, {"events": [EVENT] * count})
    assert (error["name"], error["count"]) == ("LimitOutOfRange", 1)
    assert error["message"] == f"events: List should have {bound}, not {count}"
    assert refused(EventsRequest, {"events": [EVENT, None]})["name"] == "InvalidRequest"


def test_events_past_the_most_are_not_looked_at() -> None:
    looked: list[object] = []

    class Counted(Event):
        @model_validator(mode="before")
        @classmethod
        def _looked_at(cls, value: object) -> object:
            looked.append(value)
            return value

    class Many(EventsRequest):
        events: list[Counted] = EventsRequest.model_fields["events"]

    with pytest.raises(ValidationError):
        Many.model_validate_json(json.dumps({"events": [EVENT] * 5_000}))
    assert len(looked) <= MAX_EVENTS + 1


def test_the_log_gets_the_path_and_what_is_wrong_on_one_line() -> None:
    line = logged('{"events": [{"user_id": 77, "a\\nb": [88]}]}')
    assert line.startswith("/events [POST] refused: events.0.pin_id: Field required; events.0.action: Field")
    assert "\n" not in line and "77" not in line and "88" not in line
    assert "ann@example.org" not in logged('{"events": [{"ann@example.org": 1}]}')
    assert len(logged(json.dumps({"x" * 9_000: 1}))) < 600


def logged(request: str) -> str:
    """What the log says of a request of /events, as the framework tells it."""
    try:
        EventsRequest.model_validate_json(request)
    except ValidationError as error:
        told = (type(error), error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "", 1, "Exception on %s [%s]", ("/events", "POST"), told)
    assert _OneLine().filter(record) and record.levelno == logging.INFO
    return logging.Formatter().format(record)
