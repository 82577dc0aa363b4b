"""A walker walks the mapped graph and what was logged since, and goes on when it can take in no more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bentos.event_log import EventLog
from bentos.intake import STREAM
from bentos.walker import Walker
from tests.bentos.fakes import NOW_MS, PER_TOPIC, board_of, pin_of, planted_pixie, topic_of
from training.models.pin_board_overlay import FreshSaves
from training.models.pixie import ReleasedPixie, board_query, pin_query
from validation.events import ActionRecord
from validation.tables import DEFAULT_VOCABULARY

LONELY = pin_of(3, PER_TOPIC - 1)
"""A pin on no board."""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = EventLog.open(tmp_path / "events", STREAM)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def walker(tmp_path: Path, log: EventLog, clock: Clock) -> Walker:
    return walker_of(planted_pixie(), tmp_path, clock)


def walker_of(released: ReleasedPixie, folder: Path, clock: Clock) -> Walker:
    return Walker.open(released, DEFAULT_VOCABULARY, folder / "events", clock)


def save(log: EventLog, pin: int, board: int | None, event: int, **changes: object) -> None:
    fields = {
        "event_id": event,
        "user_id": 7,
        "pin_id": pin,
        "timestamp_ms": NOW_MS,
        "action": "save",
        "board_id": board,
    }
    log.append([ActionRecord.model_validate({**fields, **changes})]).result()


def related(walker: Walker, pin: int) -> list[int]:
    return walker.now().recommend(pin_query(pin), 100, seed=1).pin_ids.tolist()


def test_a_pin_saved_a_moment_ago_is_reached(walker: Walker, log: EventLog, clock: Clock) -> None:
    assert related(walker, LONELY) == []
    save(log, LONELY, board_of(3), event=1)
    clock.now += 60
    found = related(walker, LONELY)
    assert len(found) > 20 and {topic_of(p) for p in found} == {3}
    assert LONELY in walker.now().recommend(board_query(walker.now().graph, board_of(3, 1)), 100).pin_ids
    assert LONELY in related(walker, pin_of(3, 0)), "and it is reached from others"


def test_a_pin_new_to_the_catalogue_on_a_new_board(walker: Walker, log: EventLog, clock: Clock) -> None:
    fresh, board = 90_001, 5_000_000
    save(log, fresh, board, event=1)
    save(log, pin_of(2, 0), board, event=2)
    clock.now += 60
    assert related(walker, fresh)[0] == pin_of(2, 0)
    assert sorted(walker.pins_of_board(board)) == [pin_of(2, 0), fresh]
    assert len(walker.pins_of_board(board + 1)) == 0


def test_what_makes_no_edge_changes_nothing(walker: Walker, log: EventLog, clock: Clock) -> None:
    save(log, LONELY, None, event=1)
    save(log, LONELY, board_of(3), event=2, action="hide")
    save(log, LONELY, board_of(3), event=3, timestamp_ms=NOW_MS - 7_200_000)
    clock.now += 60
    assert related(walker, LONELY) == [] and walker.fresh == 0, (
        "no board, not liked, before the graph was built"
    )


def test_saves_of_an_earlier_process_are_there_from_the_start(
    tmp_path: Path, log: EventLog, clock: Clock
) -> None:
    save(log, LONELY, board_of(3), event=1)
    assert len(related(walker_of(planted_pixie(), tmp_path, clock), LONELY)) > 20


@pytest.mark.parametrize("context", ["request", "user", "session"])
def test_data_without_boards_names_its_context(
    tmp_path: Path, log: EventLog, clock: Clock, context: str
) -> None:
    released = planted_pixie()
    settings = released.settings.model_copy(update={"context": context})
    walker = walker_of(ReleasedPixie(settings, released.graph), tmp_path, clock)
    save(log, LONELY, None, event=1, request_id=55)
    save(log, pin_of(2, 0), None, event=2, request_id=55)
    save(log, pin_of(5, 0), None, event=3, request_id=56, user_id=8)
    clock.now += 60
    found = related(walker, LONELY)
    assert pin_of(2, 0) in found and pin_of(5, 0) not in found


def test_a_full_overlay_and_a_damaged_log_leave_the_walk_as_it_was(
    tmp_path: Path, walker: Walker, log: EventLog, clock: Clock
) -> None:
    walker._saves = FreshSaves(walker._saves.base, max_saves=1)
    save(log, LONELY, board_of(3), event=1)
    save(log, LONELY, board_of(4), event=2)
    clock.now += 60
    assert related(walker, LONELY) == [] and len(related(walker, pin_of(1, 0))) > 0

    again = walker_of(planted_pixie(), tmp_path, clock)
    first, second = (tmp_path / "events" / f"{STREAM}-{n:08d}.jsonl" for n in (1, 2))
    second.write_bytes(first.read_bytes())
    first.write_bytes(first.read_bytes()[:-20])
    assert related(again, LONELY) == [] and len(related(again, pin_of(1, 0))) > 0


def test_looks_are_spaced(walker: Walker, log: EventLog, clock: Clock) -> None:
    related(walker, LONELY)
    save(log, LONELY, board_of(3), event=1)
    assert related(walker, LONELY) == [], "the log was looked at this very instant"
    clock.now += 1
    assert len(related(walker, LONELY)) > 20


def test_warming_leaves_no_trace(walker: Walker) -> None:
    before = walker.now().recommend(pin_query(pin_of(1, 0)), 50, seed=3)
    walker.warm()
    after = walker.now().recommend(pin_query(pin_of(1, 0)), 50, seed=3)
    np.testing.assert_array_equal(before.pin_ids, after.pin_ids)
    assert walker.fresh == 0


def test_a_graph_of_sessions_knows_no_boards(tmp_path: Path, log: EventLog, clock: Clock) -> None:
    """Its edges lead to sessions, numbered from 1: a board of that number is none of them."""
    released = planted_pixie()
    settings = released.settings.model_copy(update={"context": "session"})
    walker = walker_of(ReleasedPixie(settings, released.graph), tmp_path, clock)
    assert len(walker.board_query(board_of(3), seed=1)) == 0 == len(walker.pins_of_board(board_of(3)))


def test_a_log_that_cannot_be_read_is_looked_at_again(
    walker: Walker, log: EventLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(log, LONELY, board_of(3), event=1)
    with monkeypatch.context() as patched:
        patched.setattr("bentos.log_segments.segments_of", lambda *_: (_ for _ in ()).throw(OSError("no")))
        assert related(walker, LONELY) == []
    clock.now += 60
    assert len(related(walker, LONELY)) > 20
