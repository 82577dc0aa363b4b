"""The online sequences made anew from what is on disk, the lake and the event log, and held against the store.

A sequence is a function of a user's events: the last actions of the lake, merged with those of the log, in any
order. So the store may be lost, and a store that is there can be proven right.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq

from feature_repo.schema import SEQUENCE_ARRAYS
from feature_repo.sequence import DTYPES, Event, Sequence, SequenceLog, columns_of, event_of, merge
from validation.events import ActionRecord, readable
from validation.ingest import Progress, silent
from validation.lake import Lake
from validation.tables import ACTIONS, Vocabulary

ACTIONS_STREAM = "actions"

COLUMNS = ["event_id", "user_id", "pin_id", "action", "timestamp", "surface", "duration_s"]

USERS = 200
"""Users of one read, and of one write."""

AFTER_ALL_MS = 2**62


class LogWritten(RuntimeError):
    """A service writes the log now, and with it the sequences."""


class SequenceStore(Protocol):
    """Where sequences are kept (`feature_repo.online.reader.OnlineFeatures`)."""

    def sequences(self, user_ids: list[int]) -> Mapping[int, Sequence]: ...

    def push_sequences(self, sequences: Mapping[int, Sequence]) -> None: ...


@dataclass(frozen=True)
class Replayed:
    """What a replay found."""

    users: int
    events: int
    """Events of the log that were merged."""
    differing: tuple[int, ...]
    """Users whose stored sequence was another one, as the store had it."""
    left: tuple[int, ...]
    """Of these, users whose sequence still is another one: the store knows events that are in neither lake nor
    log."""


def replay_sequences(
    lake: Lake, events_dir: Path, store: SequenceStore, *, write: bool, progress: Progress = silent
) -> Replayed:
    """Compares every user's stored sequence with the replay; with `write` puts the replayed one in its place.

    Raises LakeError, and with `write` LogWritten while a service has the log open.
    """
    vocabulary = lake.contract().vocabulary
    with _alone(events_dir) if write else nullcontext():
        logged = logged_events(events_dir, vocabulary, progress)
        batch = SequenceLog.from_columns(_days(lake))
        users = np.union1d(batch.users, np.array(sorted(logged), np.int64)).tolist()
        differing: list[int] = []
        left: list[int] = []
        for start in range(0, len(users), USERS):
            some = users[start : start + USERS]
            made = {u: merge(batch.sequence(u, AFTER_ALL_MS), logged.get(u, ())) for u in some}
            wrong = _differing(store, made)
            differing += wrong
            if write and wrong:
                store.push_sequences({user: made[user] for user in wrong})
                wrong = _differing(store, {user: made[user] for user in wrong})
            left += wrong
    return Replayed(len(users), sum(map(len, logged.values())), tuple(differing), tuple(left))


def logged_events(
    events_dir: Path, vocabulary: Vocabulary, progress: Progress = silent
) -> dict[int, list[Event]]:
    """Every action of the log by user, as a sequence keeps it; lines that cannot be read are counted."""
    events: dict[int, list[Event]] = {}
    for record in readable(events_dir, ACTIONS_STREAM, progress):
        if isinstance(record, ActionRecord):
            events.setdefault(record.user_id, []).append(event_of(record, vocabulary))
    return events


def logged_columns(
    lake: Lake, events_dir: Path, progress: Progress = silent
) -> Iterator[Mapping[str, np.ndarray]]:
    """Every action of lake and log as columns of a sequence log, in pieces; some are in both."""
    yield from _days(lake)
    for user, events in logged_events(events_dir, lake.contract().vocabulary, progress).items():
        arrays = zip(SEQUENCE_ARRAYS, zip(*events, strict=True), strict=True)
        owner = np.full(len(events), user, np.int64)
        yield {"user_ids": owner} | {name: np.array(values, DTYPES[name]) for name, values in arrays}


def _differing(store: SequenceStore, made: Mapping[int, Sequence]) -> list[int]:
    stored = store.sequences(list(made))
    return [user for user, sequence in made.items() if stored[user] != sequence]


def _days(lake: Lake) -> Iterator[Mapping[str, np.ndarray]]:
    """The lake's actions as columns of a sequence log, a day at a time."""
    for file in lake.files(ACTIONS.name):
        yield columns_of(pq.ParquetFile(file).read(COLUMNS).to_pandas())


@contextmanager
def _alone(events_dir: Path) -> Iterator[None]:
    """Holds the log as a service does, so that none merges beside."""
    events_dir.mkdir(parents=True, exist_ok=True)
    with (events_dir / f"{ACTIONS_STREAM}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LogWritten(
                f"a service writes the events of {events_dir}; stop it (`corkboard down`), or only compare"
                " (`--check`)"
            ) from error
        yield
