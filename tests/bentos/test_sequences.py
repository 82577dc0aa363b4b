"""Sequences follow the log: merged once, in any order, through failures of the store."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from bentos.sequences import SequenceWriter, by_user, event_of, replay
from feature_repo.sequence import Event, merge, surface_code
from tests.bentos.fakes import COOK, NOW_MS, SAVE, FakeFeatures, pin_of, planted_features
from validation.events import ActionRecord
from validation.tables import DEFAULT_VOCABULARY


@pytest.fixture
def store() -> FakeFeatures:
    return planted_features()


def event(number: int, pin: int | None = None) -> Event:
    return Event(10_000 + number, pin or pin_of(1, number % 50), SAVE, 1, NOW_MS + number)


def record(number: int, user: int) -> ActionRecord:
    return ActionRecord(
        event_id=10_000 + number,
        user_id=user,
        pin_id=pin_of(1, number % 50),
        action="save",
        timestamp_ms=NOW_MS + number,
        surface="homefeed",
    )


def test_stored_sequences_grow_by_the_events(store: FakeFeatures) -> None:
    before = store.user(COOK, None).sequence
    writer = SequenceWriter(store).start()
    writer.submit({COOK: [event(1), event(2)], 55: [event(3)]}).result(5)
    writer.close()
    assert store.stored[COOK] == merge(before, [event(1), event(2)])
    assert store.stored[55].event_ids.tolist() == [10_003]


def test_many_callers_at_once_lose_no_update(store: FakeFeatures) -> None:
    """What Feast's own read-modify-write does not promise."""
    writer = SequenceWriter(store).start()
    events = [event(i) for i in range(80)]
    random.Random(3).shuffle(events)
    threads = [
        threading.Thread(
            target=lambda part: [writer.submit({7: [e]}).result(20) for e in part], args=(events[i::4],)
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(store.stored[7].event_ids.tolist()) == sorted(e.event_id for e in events)


def test_a_store_that_is_down_only_delays(store: FakeFeatures) -> None:
    store.broken.add("push_sequences")
    writer = SequenceWriter(store).start()
    with pytest.raises(ConnectionError):
        writer.submit({COOK: [event(1)]}).result(5)
    store.broken.clear()
    writer.submit({COOK: [event(2)]}).result(10)
    writer.close()
    assert {10_001, 10_002} <= set(store.stored[COOK].event_ids.tolist())


def test_replaying_changes_nothing_the_second_time(store: FakeFeatures) -> None:
    writer = SequenceWriter(store).start()
    records = [record(i, user) for user in (COOK, 55, 56) for i in range(5)]
    assert replay(writer, records, DEFAULT_VOCABULARY) == 15
    once = dict(store.stored)
    assert replay(writer, reversed(records), DEFAULT_VOCABULARY) == 15
    writer.close()
    assert store.stored == once


def test_a_record_becomes_the_event_that_training_would_make(tmp_path: Path) -> None:
    made = event_of(record(1, COOK), DEFAULT_VOCABULARY)
    assert made == Event(10_001, pin_of(1, 1), SAVE, surface_code("homefeed"), NOW_MS + 1, 0.0)
    assert by_user([record(1, 5), record(2, 5), record(3, 6)], DEFAULT_VOCABULARY).keys() == {5, 6}
