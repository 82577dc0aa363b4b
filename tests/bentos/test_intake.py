"""Events in: refused whole or kept whole, on disk before the answer, applied once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from bentos import intake as module
from bentos.errors import (
    BadId,
    EventTooOld,
    FutureTimestamp,
    LogUnavailable,
    PinNotFound,
    TooManyEvents,
    UndeclaredIds,
    UnknownAction,
)
from bentos.event_log import EventLog
from bentos.given import MAX_TEXT
from bentos.ids import Ids
from bentos.intake import MAX_AGE_DAYS, MS_PER_DAY, STREAM, EventIntake
from bentos.log_segments import read
from bentos.messages import MAX_DURATION_S, Event, EventsAnswer, EventsRequest
from bentos.metrics import metrics
from bentos.pool import Pool
from bentos.sequences import SequenceWriter
from bentos.tombstones import Tombstones
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, NOW_MS, PINS, FakeFeatures, planted_features
from validation.events import ActionRecord
from validation.forgotten import Forgotten, Person
from validation.ids import IdForm, IdMap, hash_id
from validation.queries import MAX_QUERY
from validation.tables import DEFAULT_VOCABULARY, EntityKind


class Door:
    """An intake over a fake store, and what it wrote."""

    def __init__(self, folder: Path, string_ids: frozenset[EntityKind] = frozenset()) -> None:
        """Tombstones are looked for in `folder`."""
        self.folder = folder
        self.features: FakeFeatures = planted_features()
        self.pool = Pool(4)
        self.log = EventLog.open(folder, STREAM)
        self.ids = IdMap(folder / "ids.sqlite")
        self.writer = SequenceWriter(self.features).start()
        ids = Ids(self.ids, string_ids, Tombstones(folder))
        self.intake = EventIntake(
            self.log, self.writer, self.features, ids, DEFAULT_VOCABULARY, self.pool, clock_ms=lambda: NOW_MS
        )

    def send(self, *events: dict, **changes: object) -> EventsAnswer:  # type: ignore[type-arg]
        request = EventsRequest(events=[Event(**e) for e in events])
        return run(self.intake.accept(request, **changes))  # type: ignore[arg-type]

    def logged(self) -> list[ActionRecord]:
        return [r for r in read(self.folder, STREAM) if isinstance(r, ActionRecord)]

    def drain(self) -> None:
        """Wait until the store has all that was acknowledged, a minute at most."""
        late = time.monotonic() + 60
        while self.writer.waiting and time.monotonic() < late:
            time.sleep(0.01)

    def close(self) -> None:
        self.intake.close()
        self.pool.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    made = Door(tmp_path)
    yield made
    made.close()


def save(pin: int = 1, **changes: object) -> dict:  # type: ignore[type-arg]
    return {"user_id": COOK, "pin_id": pin, "action": "save", **changes}


def test_an_event_is_logged_and_in_the_sequence(door: Door) -> None:
    sent = save(5, event_id=77, timestamp_ms=NOW_MS - 5, surface="homefeed", request_id=9, duration_s=1.5)
    assert door.send(sent, release=4) == EventsAnswer(accepted=1, duplicates=0, applied=True)
    assert door.logged() == [
        ActionRecord(
            event_id=77,
            user_id=COOK,
            pin_id=5,
            action="save",
            timestamp_ms=NOW_MS - 5,
            surface="homefeed",
            duration_s=1.5,
            request_id=9,
            release=4,
        )
    ]
    newest = door.features.stored[COOK].events()[0]
    assert (newest.event_id, newest.pin_id, newest.timestamp_ms) == (77, 5, NOW_MS - 5)


def test_a_repeat_changes_nothing(door: Door) -> None:
    door.send(save(5, event_id="tap-1"))
    once = door.features.stored[COOK]
    assert door.send(save(5, event_id="tap-1"), save(6)) == EventsAnswer(accepted=1, duplicates=1, applied=True)
    assert [r.pin_id for r in door.logged()] == [5, 6]
    assert door.logged()[0].event_id == hash_id("tap-1")
    assert len(door.features.stored[COOK]) == len(once) + 1


def test_events_without_an_id_are_all_new(door: Door) -> None:
    assert door.send(save(5), save(5)).accepted == 2
    assert len({r.event_id for r in door.logged()}) == 2


def test_a_late_event_takes_its_place_in_time(door: Door) -> None:
    door.send(save(5, timestamp_ms=NOW_MS))
    door.send(save(6, timestamp_ms=NOW_MS - 3_600_000 * 30))
    times = door.features.stored[COOK].timestamps_ms.tolist()
    assert times == sorted(times, reverse=True)
    assert door.features.stored[COOK].pin_ids[0] == 5


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (save(action="repinn"), UnknownAction, "event 1: unknown action 'repinn'; allowed: closeup, click"),
        (save(PINS + 1), PinNotFound, f"event 1: pin {PINS + 1} is not in the catalogue"),
        (save(0), BadId, "event 1: pin id 0"),
        (save(user_id=-1), BadId, "event 1: user id -1"),
        (save(user_id="ann"), BadId, "event 1: user id 'ann'"),
        (save(event_id=0), BadId, "event 1: event_id 0"),
        (save(event_id=""), BadId, "event 1: event_id ''"),
        (save(request_id=-1), BadId, "event 1: request_id -1"),
        (save(request_id=""), BadId, "event 1: request_id ''"),
        (save(timestamp_ms=NOW_MS + 3_600_000), FutureTimestamp, "event 1: timestamp_ms"),
        (save(timestamp_ms=-5), FutureTimestamp, "event 1: timestamp_ms -5"),
        (save(timestamp_ms=1), EventTooOld, "event 1: timestamp_ms 1 is more than 30 days old"),
        (save(board_id=7), UndeclaredIds, "event 1: board_id 7, but the data set has no boards"),
        (save(board_id="oak"), UndeclaredIds, "event 1: board_id 'oak'"),
        (save(user_id="9" * 500), BadId, "event 1: user id of 500 digits"),
        (save(event_id="9" * 500), BadId, "event 1: event_id of 500 digits"),
    ],
)
def test_one_bad_event_and_nothing_is_kept(door: Door, bad: dict, error: type, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(error, match=words):
        door.send(save(5), bad)
    assert door.logged() == [] and COOK not in door.features.stored


def test_the_oldest_event_taken_in(door: Door) -> None:
    oldest = NOW_MS - MAX_AGE_DAYS * MS_PER_DAY
    assert door.send(save(timestamp_ms=oldest)).accepted == 1
    with pytest.raises(EventTooOld, match=f"from {oldest} on"):
        door.send(save(timestamp_ms=oldest - 1))


def test_a_board_id_follows_the_form_that_the_data_set_chose(door: Door) -> None:
    with pytest.raises(UndeclaredIds):
        door.send(save(board_id=7))
    assert door.ids.form(EntityKind.BOARD) is None, "the data set may still bring either form"
    door.ids.fix_form(EntityKind.BOARD, IdForm.INTEGER)
    door.send(save(board_id=7))
    assert door.logged()[0].board_id == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration_s": float("inf")},
        {"duration_s": float("nan")},
        {"duration_s": MAX_DURATION_S + 1},
        {"duration_s": 1e39},
        {"user_id": "9" * 5_000},
        {"event_id": "x" * (MAX_TEXT + 1)},
        {"query": "x" * (MAX_QUERY + 1)},
        {"timestamp_ms": 2**63},
    ],
)
def test_values_that_no_store_holds_are_the_clients_error(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValidationError):
        Event(**save(**wrong))
    assert Event(**save(duration_s=MAX_DURATION_S)).duration_s == MAX_DURATION_S


def test_a_clock_that_runs_a_little_ahead_is_allowed(door: Door) -> None:
    assert door.send(save(timestamp_ms=NOW_MS + 60_000)).accepted == 1


def test_a_store_that_is_down_delays_and_the_answer_says_so(door: Door) -> None:
    door.features.broken.add("push_sequences")
    assert door.send(save(5, event_id=900)) == EventsAnswer(accepted=1, duplicates=0, applied=False)
    assert [r.pin_id for r in door.logged()] == [5]
    door.features.broken.clear()
    assert door.send(save(6)).applied
    assert {5, 6} <= set(door.features.stored[COOK].pin_ids.tolist()), "what waited went in with the next"


def test_a_slow_store_does_not_hold_the_answer(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPLY_DEADLINE_S", 0.05)
    door.features.slow_s["push_sequences"] = 0.6
    assert door.send(save(5)) == EventsAnswer(accepted=1, duplicates=0, applied=False)


@pytest.mark.parametrize("line", ["log", "store"])
def test_a_burst_is_refused_before_it_is_acknowledged_never_after(
    door: Door, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    """Ten times what the line holds comes in; what was acknowledged is kept, the rest told to come again."""
    monkeypatch.setattr(module, "MAX_WAITING", 40)
    monkeypatch.setattr(module, "APPLY_DEADLINE_S", 0.01)
    stuck = threading.Event()
    if line == "store":
        real = door.features.push_sequences
        monkeypatch.setattr(door.features, "push_sequences", lambda s: (stuck.wait(20), real(s)))
    else:
        sync = door.log._sync
        monkeypatch.setattr(door.log, "_sync", lambda handle: (stuck.wait(20), sync(handle)))

    async def burst() -> list[EventsAnswer | BaseException]:
        sending = []
        for turn in range(80):
            events = [Event(**save(1 + i, event_id=1 + turn * 5 + i)) for i in range(5)]
            sending.append(asyncio.ensure_future(door.intake.accept(EventsRequest(events=events))))
            if line == "store":
                await asyncio.wait(sending[-1:])  # the log keeps up, whatever the disk
            elif turn % 8 == 7:
                await asyncio.sleep(0.05)
        stuck.set()
        return await asyncio.gather(*sending, return_exceptions=True)

    answers = run(burst())
    refused = [a for a in answers if isinstance(a, TooManyEvents)]
    kept = {1 + t * 5 + i for t, a in enumerate(answers) if isinstance(a, EventsAnswer) for i in range(5)}
    assert len(refused) >= 20 and len(refused) + len(kept) / 5 == 80
    assert f"wait for the {line}" in str(refused[0]) and TooManyEvents.retry_after_s == 1
    assert {r.event_id for r in door.logged()} == kept
    door.drain()
    monkeypatch.setattr(module, "APPLY_DEADLINE_S", 10)
    late = [save(1, event_id=n) for n in range(1, 401) if n not in kept]
    assert door.send(*late).applied, "sent again later, they are taken"
    assert len(door.logged()) == 400


def test_a_log_that_fails_refuses_by_name(door: Door) -> None:
    door.log.close()
    with pytest.raises(LogUnavailable, match="nothing was kept"):
        door.send(save(5))
    assert COOK not in door.features.stored


def test_a_full_disk_is_told_to_senders_and_once_to_the_log(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("bentos.event_log.os.write", full)
        for _ in range(2):
            with pytest.raises(
                LogUnavailable, match=r"nothing was kept: .*No space left on device; send it again"
            ):
                door.send(save(5))
    assert [r.message for r in caplog.records if r.name == "corkboard.events"] == [
        "the event log 'actions' keeps nothing: [Errno 28] No space left on device"
    ]
    assert door.send(save(5)).accepted == 1, "taken as soon as there is space"


def test_what_a_disk_may_have_kept_is_not_said_to_be_lost(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(door.log, "_sync", broken)
    with pytest.raises(LogUnavailable, match=r"may be kept or not: .*same event ids"):
        door.send(save(5))
    with pytest.raises(LogUnavailable, match=r"nothing was kept: .*restart the service"):
        door.send(save(6))


def test_concurrent_requests_of_one_user_lose_nothing(door: Door) -> None:
    async def many() -> list[EventsAnswer]:
        requests = [EventsRequest(events=[Event(**save(1 + i % PINS, event_id=100 + i))]) for i in range(60)]
        return await asyncio.gather(*(door.intake.accept(r) for r in requests))

    answers = run(many())
    assert all(a.accepted == 1 and a.applied for a in answers)
    assert {100 + i for i in range(60)} <= set(door.features.stored[COOK].event_ids.tolist())
    assert len(door.logged()) == 60


def test_string_ids_get_numbers_as_they_come(tmp_path: Path) -> None:
    door = Door(tmp_path, frozenset({EntityKind.USER, EntityKind.PIN}))
    door.ids.encode(EntityKind.PIN, ["oak", "elm"])
    answer = door.send({"user_id": "new here", "pin_id": "elm", "action": "save"})
    assert answer.accepted == 1
    assert [(r.user_id, r.pin_id) for r in door.logged()] == [(1, 2)]
    with pytest.raises(PinNotFound, match="'ash'"):
        door.send({"user_id": "new here", "pin_id": "ash", "action": "save"})
    door.close()


def forget(folder: Path, own_id: str) -> Forgotten:
    forgotten = Forgotten.of(folder).begun(Person(own_id=own_id, lake_id=0))
    forgotten.save(folder)
    return forgotten


def counted_forgotten() -> float:
    return metrics().events.labels("forgotten")._value.get()


def test_events_of_a_forgotten_user_are_acknowledged_and_dropped(door: Door) -> None:
    before = counted_forgotten()
    other = COOK + 1
    assert door.send(save(5)).accepted == 1
    kept = door.features.stored[COOK]
    gone = forget(door.folder, str(COOK))
    dropped = EventsAnswer(accepted=0, duplicates=0, applied=True)
    assert door.send(save(6), save(6, user_id=f"0{COOK}")) == dropped
    assert door.send(save(6), save(7, user_id=other)).accepted == 1
    assert [(r.user_id, r.pin_id) for r in door.logged()] == [(COOK, 5), (other, 7)]
    assert door.features.stored[COOK] == kept and counted_forgotten() == before + 3
    with pytest.raises(PinNotFound, match="event 1"):
        door.send(save(6), save(PINS + 1, user_id=other))
    gone.allowed(str(COOK)).save(door.folder)
    assert door.send(save(6)).accepted == 1, "allowed again"


def test_a_forgotten_name_gets_no_number(tmp_path: Path) -> None:
    door = Door(tmp_path, frozenset({EntityKind.USER}))
    forget(tmp_path, "ann")
    assert door.send(save(user_id="ann"), save(user_id="ben")).accepted == 1
    assert door.ids.lookup(EntityKind.USER, "ann") is None and door.ids.count(EntityKind.USER) == 1
    door.close()
