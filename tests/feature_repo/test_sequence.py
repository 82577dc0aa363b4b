"""The sequence: one answer whatever the order of delivery, online and offline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.schema import SEQUENCE_LENGTH
from feature_repo.sequence import SURFACES, Event, Sequence, SequenceLog, merge, surface_code

# Few distinct times, so that ties are common; content follows from the id, as it does for real events.
events = st.lists(
    st.tuples(st.integers(1, 400), st.integers(1, 30)).map(
        lambda pair: Event(pair[0], pair[0] % 50 + 1, pair[0] % 7 + 1, pair[0] % 3, 1000 + pair[0] * 7 % 13 * 5)
    ),
    max_size=260,
)


def naive(deliveries: list[Event]) -> list[Event]:
    distinct = {event.event_id: event for event in reversed(deliveries)}
    newest = sorted(distinct.values(), key=lambda e: (e.timestamp_ms, e.event_id), reverse=True)
    return newest[:SEQUENCE_LENGTH]


def frame(user: int, deliveries: list[Event]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": user,
            "event_id": [e.event_id for e in deliveries],
            "pin_id": [e.pin_id for e in deliveries],
            "action": [e.action for e in deliveries],
            "surface": [SURFACES[e.surface - 1] if e.surface else None for e in deliveries],
            "timestamp": pd.to_datetime([e.timestamp_ms for e in deliveries], unit="ms", utc=True),
            "duration_s": 0.0,
        }
    )


@given(events, st.randoms())
@settings(max_examples=80, deadline=None)
def test_any_order_and_repetition_ends_in_the_same_sequence(deliveries, random) -> None:
    expected = naive(deliveries)
    shuffled = deliveries + deliveries[: len(deliveries) // 2]
    random.shuffle(shuffled)
    at_once = Sequence.of(shuffled)
    one_by_one = Sequence.empty()
    for event in shuffled:
        one_by_one = merge(one_by_one, [event])
    assert at_once.events() == expected
    assert one_by_one == at_once
    assert merge(at_once, shuffled) is at_once


@given(events, events)
@settings(max_examples=50, deadline=None)
def test_newest_time_never_falls(first, second) -> None:
    before = Sequence.of(first)
    assert merge(before, second).newest_ms >= before.newest_ms


@given(events, st.integers(990, 1070))
@settings(max_examples=80, deadline=None)
def test_the_log_and_the_replayed_merge_agree(deliveries, time_ms) -> None:
    log = SequenceLog.from_actions(pd.concat([frame(2, deliveries), frame(9, deliveries[::-1])]))
    replayed = Sequence.of(e for e in deliveries if e.timestamp_ms < time_ms)
    assert log.sequence(2, time_ms) == replayed
    assert log.sequence(9, time_ms) == replayed
    start, end = log.slice(np.array([9, 5, 2]), np.array([time_ms] * 3))
    assert start[1] == end[1], "an unknown user has no actions"
    assert log.pin_ids[start[0] : end[0]][::-1].tolist() == replayed.pin_ids.tolist()


def test_an_action_at_the_very_moment_is_not_yet_known() -> None:
    event = Event(5, 1, 1, 0, 1_000)
    log = SequenceLog.from_actions(frame(1, [event]))
    assert len(log.sequence(1, 1_000)) == 0
    assert log.sequence(1, 1_001).events() == [event]
    assert len(Sequence.of([event]).before(1_000)) == 0


def test_of_two_contents_of_one_event_the_first_stays() -> None:
    first, second = Event(1, 10, 1, 0, 500), Event(1, 20, 2, 0, 900)
    assert merge(Sequence.of([first]), [second]).events() == [first]


def test_a_late_event_takes_its_place_and_the_oldest_leaves() -> None:
    full = Sequence.of(Event(i, i, 1, 0, i * 10) for i in range(1, SEQUENCE_LENGTH + 1))
    late = merge(full, [Event(999, 7, 1, 0, 505)])
    assert len(late) == SEQUENCE_LENGTH
    assert 1 not in late.event_ids and 999 in late.event_ids
    assert late.timestamps_ms.tolist() == sorted(late.timestamps_ms.tolist(), reverse=True)
    assert merge(full, [Event(1000, 7, 1, 0, 5)]) == full, "older than all that is kept"


@pytest.mark.parametrize("event", [Event(0, 1, 1, 0, 1), Event(1, 0, 1, 0, 1), Event(1, 1, 1, 0, 0)])
def test_padding_cannot_enter(event: Event) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        merge(Sequence.empty(), [event])


def test_stored_arrays_are_checked() -> None:
    arrays = Sequence.of([Event(1, 1, 1, 0, 10), Event(2, 2, 1, 0, 20)]).arrays()
    assert Sequence.from_arrays(arrays).newest_ms == 20
    with pytest.raises(ValueError, match="newest first"):
        Sequence.from_arrays({name: column[::-1] for name, column in arrays.items()})
    with pytest.raises(ValueError, match="parallel"):
        Sequence.from_arrays({**arrays, "pin_ids": arrays["pin_ids"][:1]})


def test_the_log_keeps_microseconds_as_whole_milliseconds() -> None:
    rows = frame(1, [Event(1, 1, 1, 0, 1_000)])
    rows["timestamp"] = rows["timestamp"] + pd.Timedelta("900us")
    assert SequenceLog.from_actions(rows).timestamps_ms.tolist() == [1_000]


def test_surfaces_outside_the_list_are_zero() -> None:
    assert surface_code("homefeed") == 1
    assert surface_code("elsewhere") == surface_code(None) == surface_code("") == 0


def test_an_empty_log_answers() -> None:
    log = SequenceLog.from_columns([])
    assert len(log.sequence(1, 10**15)) == 0


@pytest.mark.parametrize("spread", [1, 10**9], ids=["ids counted in a table", "ids far apart"])
@pytest.mark.parametrize("asked", [3, 500], ids=["few requests", "more requests than users"])
def test_slices_are_those_of_a_plain_search(spread: int, asked: int) -> None:
    rng = np.random.default_rng(spread + asked)
    users, times = spread * rng.integers(1, 40, 900), np.sort(rng.integers(1000, 1400, 900))
    log = SequenceLog.from_columns(
        [
            {
                "user_ids": users,
                "event_ids": np.arange(1, 901),
                "pin_ids": np.arange(901, 1801),
                **{name: np.ones(900) for name in ("actions", "surfaces", "durations_s")},
                "timestamps_ms": times,
            }
        ]
    )
    who, when = spread * rng.integers(0, 43, asked), rng.integers(990, 1410, asked)
    start, end = log.slice(who, when, limit=7)
    for user, time, a, b in zip(who, when, start, end, strict=True):
        wanted = np.flatnonzero((users == user) & (times < time))[-7:]
        np.testing.assert_array_equal(log.pin_ids[a:b], wanted + 901)


def test_a_repeat_counts_once_and_other_users_may_share_its_id() -> None:
    log = SequenceLog.from_columns(
        [
            {
                "user_ids": np.array([7, 5, 7, 5]),
                "event_ids": np.array([2, 2, 1, 2]),
                "pin_ids": np.array([10, 20, 30, 40]),
                **{name: np.ones(4) for name in ("actions", "surfaces", "durations_s")},
                "timestamps_ms": np.array([100, 110, 120, 130]),
            }
        ]
    )
    assert log.users.tolist() == [5, 7]
    assert log.pin_ids.tolist() == [20, 10, 30]
