"""Opening a home again after a crash: what was logged is in the sequences, what was shown is remembered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.answer_logs import open_logs
from bentos.event_log import EventLog, LogInUse
from bentos.log_segments import read
from bentos.messages import Event, EventsRequest
from bentos.parts import open_intake
from bentos.pool import Pool
from bentos.sequences import by_user
from bentos.settings import Settings
from feature_repo.sequence import Sequence, merge
from tests.bentos.conftest import run
from tests.bentos.fakes import COOK, NOW_MS, FakeFeatures, planted_features
from validation.event_compaction import SHOWN_DAYS
from validation.events import ActionRecord, ImpressionRecord
from validation.lake import Lake, LakeError
from validation.tables import ACTIONS, DEFAULT_VOCABULARY, Contract

MIDNIGHT_MS = NOW_MS - NOW_MS % 86_400_000
"""The lake's last day ended here; the log goes on from it."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home whose lake holds yesterday's actions."""
    lake = Lake(tmp_path / "lake")
    lake.write_contract(Contract(name="planted"))
    yesterday = datetime.fromtimestamp(MIDNIGHT_MS / 1000 - 3_600, UTC)
    path = lake.file(ACTIONS.name, yesterday.date())
    path.parent.mkdir(parents=True)
    row = {"event_id": 1, "user_id": COOK, "pin_id": 21, "action": 4, "timestamp": yesterday}
    pq.write_table(pa.Table.from_pylist([row], schema=ACTIONS.schema), path)
    return Settings(home=tmp_path, mlflow_uri="sqlite:///none")


def action(event_id: int, timestamp_ms: int) -> ActionRecord:
    return ActionRecord(event_id=event_id, user_id=COOK, pin_id=5, action="save", timestamp_ms=timestamp_ms)


def test_what_was_logged_but_not_stored_comes_back(settings: Settings) -> None:
    log = EventLog.open(settings.events, "actions")
    long_ago = MIDNIGHT_MS - 2 * 86_400_000
    log.append([action(700, MIDNIGHT_MS + 5), action(701, MIDNIGHT_MS + 9), action(9, long_ago)]).result(5)
    log.close()
    features, pool = planted_features(), Pool(4)
    before = features.user(COOK, None).sequence
    intake = open_intake(settings, features, Lake(settings.lake), pool)
    stored = features.stored[COOK]
    assert stored.event_ids[:2].tolist() == [701, 700] and len(stored) == len(before) + 2
    assert 9 not in stored.event_ids, "what the lake already holds is the batch job's"
    event = Event(user_id=COOK, pin_id=6, action="save", event_id=700)
    answer = run(intake.accept(EventsRequest(events=[event])))
    assert answer.duplicates == 1 and features.stored[COOK] == merge(stored, [])
    intake.close()
    pool.close()


def test_a_lake_that_holds_actions_of_today_is_no_end_of_the_batch_sequences(settings: Settings) -> None:
    """It ends at a midnight still to come; what training has not seen of today is in the log alone."""
    now = datetime.fromtimestamp(NOW_MS / 1000, UTC)
    lake = Lake(settings.lake)
    path = lake.file(ACTIONS.name, now.date())
    path.parent.mkdir(parents=True)
    row = {"event_id": 2, "user_id": COOK, "pin_id": 21, "action": 4, "timestamp": now}
    pq.write_table(pa.Table.from_pylist([row], schema=ACTIONS.schema), path)
    assert lake.interval()[1] > now
    log = EventLog.open(settings.events, "actions")
    log.append([action(700, MIDNIGHT_MS + 5), action(699, MIDNIGHT_MS - 5)]).result(5)
    log.close()
    features, pool = planted_features(), Pool(4)
    intake = open_intake(settings, features, lake, pool, now=now)
    assert {699, 700} <= set(features.stored[COOK].event_ids.tolist())
    intake.close()
    pool.close()


def test_a_batch_row_that_wrote_over_newer_events_is_mended_on_opening(settings: Settings) -> None:
    """Materializing after training puts the lake's older sequence back; the log still knows the rest."""
    features, pool = planted_features(), Pool(4)
    intake = open_intake(settings, features, Lake(settings.lake), pool)
    run(intake.accept(EventsRequest(events=[Event(user_id=COOK, pin_id=6, action="save", event_id=800)])))
    fresh = features.stored[COOK]
    intake.close()
    features.stored.clear()  # back to the batch row
    intake = open_intake(settings, features, Lake(settings.lake), pool)
    assert features.stored[COOK] == fresh
    intake.close()
    pool.close()


def test_shown_pins_are_remembered_for_some_days(settings: Settings) -> None:
    def shown(pin_id: int, timestamp_ms: int, surface: str = "homefeed") -> ImpressionRecord:
        return ImpressionRecord(
            event_id=pin_id,
            user_id=COOK,
            pin_id=pin_id,
            timestamp_ms=timestamp_ms,
            surface=surface,
            request_id=1,
            position=0,
        )

    long_ago = MIDNIGHT_MS - (SHOWN_DAYS + 1) * 86_400_000
    log = EventLog.open(settings.events, "impressions")
    log.append([shown(1, long_ago), shown(2, NOW_MS), shown(3, NOW_MS, "related"), shown(4, NOW_MS)]).result(5)
    log.close()
    logs = open_logs(settings, Lake(settings.lake))
    assert logs.impressions.served(COOK).tolist() == [2, 4]
    with pytest.raises(LogInUse):
        open_logs(settings, Lake(settings.lake))
    logs.close()
    open_logs(settings, Lake(settings.lake)).close()


def test_a_home_without_a_lake_says_what_to_run(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_uri="sqlite:///none")
    with pytest.raises(LakeError, match="corkboard ingest"):
        open_intake(settings, planted_features(), Lake(settings.lake), Pool(1))
    assert not (tmp_path / "events" / "actions-00000001.jsonl").exists()


def test_a_failed_opening_lets_go_of_the_log(settings: Settings) -> None:
    features, pool = planted_features(), Pool(4)
    log = EventLog.open(settings.events, "actions")
    log.append([action(700, MIDNIGHT_MS + 5)]).result(5)
    log.close()
    features.broken.add("sequences")
    with pytest.raises(ConnectionError):
        open_intake(settings, features, Lake(settings.lake), pool)
    features.broken.clear()
    open_intake(settings, features, Lake(settings.lake), pool).close()
    assert 700 in features.stored[COOK].event_ids
    pool.close()


class DurableFeatures(FakeFeatures):
    """The planted store, whose sequences outlive the process: a file a user, replaced at once."""

    @classmethod
    def at(cls, folder: Path) -> DurableFeatures:
        folder.mkdir(exist_ok=True)
        base = planted_features()
        made = cls(base.matrix, base.users, base.board_pins)
        for path in folder.glob("*.json"):
            arrays = json.loads(path.read_text())
            made.stored[int(path.stem)] = Sequence.from_arrays(arrays)
        made.folder = folder  # type: ignore[attr-defined]
        return made

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None:
        super().push_sequences(sequences)
        for user, sequence in sequences.items():
            staged = self.folder / f"{user}.tmp"  # type: ignore[attr-defined]
            staged.write_text(json.dumps({n: a.tolist() for n, a in sequence.arrays().items()}))
            staged.replace(staged.with_suffix(".json"))


USERS_OF_BURST = (COOK, 55, 56, 57)


def _burst_until_killed(home: str, told: Connection) -> None:
    """An events process in the middle of a burst: eight clients, some of whom send everything twice."""
    settings = Settings(home=Path(home), mlflow_uri="sqlite:///none")
    intake = open_intake(settings, DurableFeatures.at(settings.home / "store"), Lake(settings.lake), Pool(4))
    now_ms = int(time.time() * 1000)

    async def client(number: int) -> None:
        for turn in itertools.count():
            ids = [1_000 + number * 1_000_000 + turn * 5 + i for i in range(5)]
            user = USERS_OF_BURST[number % len(USERS_OF_BURST)]
            late = (turn % 7) * 1_000  # what comes later did not always happen later
            events = [
                Event(
                    user_id=user,
                    pin_id=i % 300 + 1,
                    action="save",
                    event_id=i,
                    timestamp_ms=now_ms + i % 5_000 - late,
                )
                for i in ids
            ]
            for _ in range(1 + number % 2):
                await intake.accept(EventsRequest(events=events))
            told.send(ids)

    async def everyone() -> None:
        await asyncio.gather(*(client(number) for number in range(8)))

    asyncio.run(everyone())


@pytest.mark.slow
@pytest.mark.parametrize("answers", [3, 80])
def test_killed_in_a_burst_no_acknowledged_event_is_lost_or_doubled(settings: Settings, answers: int) -> None:
    """And the online sequence is the replay of the log, once the process is there again."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_burst_until_killed, args=(str(settings.home), there))
    child.start()
    there.close()
    promised: set[int] = set()
    for _ in range(answers):
        assert here.poll(60), "the service acknowledged nothing"
        promised.update(here.recv())
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with contextlib.suppress(EOFError):
        while here.poll(0):
            promised.update(here.recv())
    features, pool = DurableFeatures.at(settings.home / "store"), Pool(4)
    intake = open_intake(settings, features, Lake(settings.lake), pool)
    logged = [r for r in read(settings.events, "actions") if isinstance(r, ActionRecord)]
    ids = [record.event_id for record in logged]
    assert promised <= set(ids) and len(ids) == len(set(ids))
    base = planted_features()
    for user, events in by_user(logged, DEFAULT_VOCABULARY).items():
        assert features.stored[user] == merge(base.user(user, None).sequence, events)
    intake.close()
    pool.close()
