"""Spent segments go, one at a time, and a crash at any step loses no row."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.validation.conftest import NOW, Door
from tests.validation.test_ingest_events import Log, action, impression
from validation.event_compaction import Compacted, compact_events, needed_from_ms, sequences_from_ms
from validation.events import segments_of, to_line
from validation.ingest_events import cursors

NOW_MS = int(NOW.timestamp() * 1000)
OLD_S = NOW.timestamp() - 40 * 86_400


class Killed(BaseException):
    """The process died here."""


@pytest.fixture
def log(door: Door) -> Log:
    """Three old segments and the open one of actions, two of impressions; all but the last lines are old."""
    door.open()
    made = Log(door)
    for number in (1, 2, 3, 4):
        made.append(f"actions-{number:08d}", action(number))
    made.append("impressions-00000001", impression(91))
    made.append("impressions-00000002", impression(92))
    for path in made.folder.iterdir():
        os.utime(path, (OLD_S, OLD_S))
    return made


def compact(log: Log, before_ms: int = NOW_MS, **steps: Callable) -> Compacted:  # type: ignore[type-arg]
    return compact_events(log.folder, log.door.home / "lake", before_ms=before_ms, **steps)


def names(log: Log) -> list[str]:
    return [s.stem for s in (*segments_of(log.folder, "actions"), *segments_of(log.folder, "impressions"))]


def logged_ids(log: Log) -> list[int]:
    """Of the lake's actions those that came by the log: the door's own have large ids."""
    return sorted(i for i in log.door.lake.read("actions")["event_id"] if i < 1_000)


OPEN = ["actions-00000004", "impressions-00000002"]


def test_what_is_not_in_the_lake_stays(log: Log) -> None:
    done = compact(log)
    assert done.removed == () and done.uningested == ("actions-00000001.jsonl", "impressions-00000001.jsonl")
    log.ingest()
    log.append("actions-00000002", action(20))
    os.utime(log.folder / "actions-00000002.jsonl", (OLD_S, OLD_S))
    done = compact(log)
    assert done.removed == ("actions-00000001.jsonl", "impressions-00000001.jsonl"), "no hole in the log"
    assert done.uningested == ("actions-00000002.jsonl",)


def test_sealed_old_and_ingested_segments_go_and_the_open_one_stays(log: Log) -> None:
    log.ingest()
    size = sum(len(to_line(action(n))) for n in (1, 2, 3)) + len(to_line(impression(91)))
    done = compact(log)
    assert names(log) == OPEN and done.freed_bytes == size and done.uningested == ()
    assert set(cursors(log.door.lake)) == {f"{name}.jsonl" for name in OPEN}
    assert compact(log).removed == ()
    log.append("actions-00000004", action(5))
    assert log.ingest().tables["actions"].new == 1
    assert logged_ids(log) == [1, 2, 3, 4, 5]


def test_what_a_service_still_reads_stays(log: Log) -> None:
    log.ingest()
    os.utime(log.folder / "actions-00000002.jsonl", (NOW.timestamp() - 60, NOW.timestamp() - 60))
    assert compact(log).removed[0] == "actions-00000001.jsonl"
    assert names(log)[0] == "actions-00000002"


def test_needed_from_is_the_oldest_reader(log: Log) -> None:
    log.ingest()
    lake = log.door.lake
    sequences = sequences_from_ms(lake, NOW)
    assert needed_from_ms(lake, NOW) <= sequences
    month_ago = NOW - timedelta(days=30)
    assert needed_from_ms(lake, NOW, month_ago) == int(month_ago.timestamp() * 1000)


@pytest.mark.parametrize("step", range(6))
def test_killed_at_any_step_the_next_run_finishes_and_nothing_is_lost(
    log: Log, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps: the flush, each of four removals, the cursors."""
    log.ingest()
    steps = iter(range(6))

    def dying(work: Callable) -> Callable:  # type: ignore[type-arg]
        def run(*args: object) -> None:
            if next(steps) == step:
                raise Killed
            work(*args)

        return run

    from validation import event_compaction

    with monkeypatch.context() as patched:
        patched.setattr(event_compaction, "move_cursors", dying(event_compaction.move_cursors))
        with pytest.raises(Killed):
            compact(log, flush=dying(lambda: None), remove=dying(Path.unlink))
    log.ingest()
    compact(log)
    assert names(log) == OPEN
    log.append("actions-00000004", action(5))
    log.ingest()
    assert logged_ids(log) == [1, 2, 3, 4, 5]
    assert sorted(log.door.lake.read("impressions")["pin_id"]) == [2]
