"""The online sequences are what lake and log say, after any delivery, any loss, and any batching."""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.jobs.replay import LogWritten, replay_sequences
from feature_repo.schema import SEQUENCE_LENGTH
from feature_repo.sequence import Event, Sequence, merge
from tests.feature_repo.conftest import write_lake
from validation.events import ActionRecord, to_line
from validation.lake import Lake
from validation.tables import DEFAULT_VOCABULARY

SAVE = DEFAULT_VOCABULARY.code("save")
DAY_MS = 1_767_225_600_000  # 2026-01-01
ANN, BOB = 7, 9


class Store:
    """Whole rows a user; a row whose newest action is later stays, as in the real stores."""

    def __init__(self) -> None:
        self.kept: dict[int, Sequence] = {}

    def sequences(self, user_ids: list[int]) -> Mapping[int, Sequence]:
        return {user: self.kept.get(user, Sequence.empty()) for user in user_ids}

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None:
        for user, made in sequences.items():
            if made.newest_ms >= self.sequences([user])[user].newest_ms:
                self.kept[user] = made


def record(event_id: int, user: int = ANN) -> ActionRecord:
    return ActionRecord(
        event_id=event_id,
        user_id=user,
        pin_id=event_id % 50 + 1,
        action="save",
        timestamp_ms=DAY_MS + event_id * 7 % 13 * 1000,
    )


def event(event_id: int) -> Event:
    return Event(event_id, event_id % 50 + 1, SAVE, 0, DAY_MS + event_id * 7 % 13 * 1000)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Ann's events 1 to 60 and Bob's 61 to 63."""
    ids = list(range(1, 64))
    frame = pd.DataFrame(
        {
            "event_id": ids,
            "user_id": [ANN] * 60 + [BOB] * 3,
            "pin_id": [i % 50 + 1 for i in ids],
            "action": SAVE,
            "timestamp": [datetime.fromtimestamp(event(i).timestamp_ms / 1000, UTC) for i in ids],
        }
    )
    return write_lake(tmp_path_factory.mktemp("replayed"), {"actions": frame})


def write_log(folder: Path, *segments: list[ActionRecord], torn: bytes = b"") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(segments, start=1):
        content = b"".join(map(to_line, records)) + (torn if number == len(segments) else b"")
        (folder / f"actions-{number:08d}.jsonl").write_bytes(content)
    return folder


def test_a_lost_store_comes_back_whole(lake: Lake, tmp_path: Path) -> None:
    log = write_log(tmp_path, [record(5), record(100)], [record(101, BOB), record(100)], torn=b'{"half')
    store = Store()
    found = replay_sequences(lake, log, store, write=True)
    assert (found.users, found.events, set(found.differing), found.left) == (2, 4, {ANN, BOB}, ())
    assert store.kept[ANN] == Sequence.of(map(event, [*range(1, 61), 100]))
    assert store.kept[BOB] == Sequence.of(map(event, [61, 62, 63, 101]))
    again = replay_sequences(lake, log, store, write=False)
    assert again.differing == again.left == ()


def test_one_wrong_value_is_found_and_only_mended_when_asked(lake: Lake, tmp_path: Path) -> None:
    log, store = write_log(tmp_path, [record(100)]), Store()
    replay_sequences(lake, log, store, write=True)
    right = store.kept[BOB]
    first, *rest = right.events()
    store.kept[BOB] = Sequence.of([first._replace(pin_id=first.pin_id + 1), *rest])
    assert replay_sequences(lake, log, store, write=False).left == (BOB,)
    assert replay_sequences(lake, log, store, write=True).left == () and store.kept[BOB] == right


def test_what_only_the_store_knows_is_said(lake: Lake, tmp_path: Path) -> None:
    log, store = write_log(tmp_path, [record(100)]), Store()
    replay_sequences(lake, log, store, write=True)
    store.kept[ANN] = merge(store.kept[ANN], [Event(999, 1, SAVE, 0, DAY_MS + 10**6)])
    assert replay_sequences(lake, log, store, write=True).left == (ANN,)


def test_a_foreign_line_is_counted_and_not_shown(lake: Lake, tmp_path: Path) -> None:
    log, store, said = write_log(tmp_path, [record(100)], [record(101, BOB)]), Store(), []
    with (log / "actions-00000001.jsonl").open("ab") as segment:
        segment.write(b'{"kind": "secret"}\nnot JSON\n')
    found = replay_sequences(lake, log, store, write=True, progress=said.append)
    assert (found.events, found.left) == (2, ())
    assert said == ["2 unreadable lines of actions-00000001.jsonl"]


def test_no_replay_beside_a_writing_service(lake: Lake, tmp_path: Path) -> None:
    log = write_log(tmp_path, [record(100)])
    with (log / "actions.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LogWritten, match="corkboard down"):
            replay_sequences(lake, log, Store(), write=True)
        assert replay_sequences(lake, log, Store(), write=False).differing


deliveries = st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=200)


@given(deliveries, st.randoms(use_true_random=False), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_live_merges_in_any_order_and_batching_are_the_replay(
    lake: Lake,
    tmp_path_factory: pytest.TempPathFactory,
    given_events: list[tuple[int, bool]],
    random,
    size: int,
) -> None:
    """A store that took events live, repeated, shuffled and in batches, equals one sorted replay of the log."""
    logged = [number for number, _ in given_events]
    log = write_log(tmp_path_factory.mktemp("log"), [record(n) for n in logged])
    delivered = logged + [number for number, again in given_events if again]
    random.shuffle(delivered)
    live = Store()
    live.kept = {ANN: Sequence.of(map(event, range(1, 61))), BOB: Sequence.of(map(event, (61, 62, 63)))}
    for start in range(0, len(delivered), size):
        batch = [event(n) for n in delivered[start : start + size]]
        live.push_sequences({ANN: merge(live.kept[ANN], batch)})
    assert replay_sequences(lake, log, live, write=False).left == ()
    in_order = sorted({*range(1, 61), *logged}, key=lambda n: (event(n).timestamp_ms, n))
    assert live.kept[ANN].events() == [event(n) for n in reversed(in_order)][:SEQUENCE_LENGTH]
