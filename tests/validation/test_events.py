"""One line of the event log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from validation.events import (
    ActionRecord,
    AnyRecord,
    CandidateRecord,
    ImpressionRecord,
    Reached,
    from_line,
    to_line,
)

IDS = st.integers(1, 2**63 - 1)
ACTIONS = st.builds(
    ActionRecord,
    event_id=IDS,
    user_id=IDS,
    pin_id=IDS,
    timestamp_ms=st.integers(0, 4 * 10**12),
    action=st.text(max_size=8),
    duration_s=st.one_of(st.none(), st.floats(0, 1e6)),
    board_id=st.one_of(st.none(), IDS),
    query=st.one_of(st.none(), st.text(max_size=8)),
    request_id=st.one_of(st.none(), IDS),
)
IMPRESSIONS = st.builds(
    ImpressionRecord,
    event_id=IDS,
    user_id=IDS,
    pin_id=IDS,
    timestamp_ms=st.integers(0, 4 * 10**12),
    request_id=IDS,
    position=st.integers(0, 2**31 - 1),
    propensity=st.one_of(st.none(), st.floats(0, 1, exclude_min=True)),
)
CANDIDATES = st.builds(
    CandidateRecord,
    event_id=IDS,
    user_id=IDS,
    pin_id=IDS,
    timestamp_ms=st.integers(0, 4 * 10**12),
    request_id=IDS,
    source=st.text(max_size=8),
    rank=st.integers(0, 2**31 - 1),
    score=st.one_of(st.none(), st.floats(-1e6, 1e6)),
    stage=st.sampled_from(Reached),
    logged=st.floats(0, 1, exclude_min=True),
)


@settings(deadline=None)
@given(st.one_of(ACTIONS, IMPRESSIONS, CANDIDATES))
def test_a_record_is_one_line_and_comes_back_whole(record: AnyRecord) -> None:
    line = to_line(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert from_line(line) == record


GOOD = '{"kind":"action","event_id":1,"user_id":2,"pin_id":3,"timestamp_ms":4,"action":"save"}'


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (GOOD.replace('"user_id":2', '"user_id":0'), "user_id"),
        (GOOD.replace('"event_id":1', f'"event_id":{2**63}'), "event_id"),
        (GOOD.replace('"pin_id":3,', ""), "pin_id"),
        (GOOD.replace('"timestamp_ms":4', '"timestamp_ms":-1'), "timestamp_ms"),
        (GOOD.replace('"kind":"action"', '"kind":"thought"'), "kind"),
        (GOOD.replace('"action":"save"', '"action":"save","mood":"good"'), "mood"),
        (GOOD[:40], "JSON"),
    ],
)
def test_a_wrong_record_names_its_field(line: str, field: str) -> None:
    assert from_line(GOOD)
    with pytest.raises(ValidationError, match=field):
        from_line(line)
