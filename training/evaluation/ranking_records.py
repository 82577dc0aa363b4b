"""Logged rankings as rows: what serving saw of each pin it showed, and the same rows as training joins them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_repo.history import MS_PER_DAY, ShownLog, midnight_ms
from feature_repo.schema import HISTORY_LENGTH
from feature_repo.sequence import SequenceLog
from training.context import Progress, silent
from training.data.feature_join import RowFeatures, unix_ms
from training.data.training_set import Block
from training.data.training_set_facts import KEYS
from validation.events import RankingRecord, readable
from validation.tables import PIN_ID, POSITION, QUERY, REQUEST_ID, SURFACE, TIMESTAMP, USER_ID

Floats = NDArray[np.float32]

STREAM = "rankings"

RELEASE = "release"

SEQUENCE = ("sequence_length", "sequence_age_s")
"""Facts of the user's sequence: its actions before the request, and the age of the newest in seconds."""


HISTORY = ("history_age_s", "history_length", "history_shown")
"""Facts of the user's history: how long before the request it was cut, its actions and its impressions."""


def logged(events_dir: Path, since: datetime | None = None, progress: Progress = silent) -> list[RankingRecord]:
    """Rankings in the log, oldest first, a request once; lines that cannot be read are counted."""
    since_ms = 0 if since is None else since.timestamp() * 1000
    found: dict[int, RankingRecord] = {}
    for record in readable(events_dir, STREAM, progress):
        if isinstance(record, RankingRecord) and record.timestamp_ms >= since_ms:
            found[record.request_id] = record
    return sorted(found.values(), key=lambda record: record.timestamp_ms)


def rows_of(records: Sequence[RankingRecord]) -> pd.DataFrame:
    """A row a pin shown, in the order of the records: the keys of a training set, release and query."""
    each = [len(record.pin_ids) for record in records]

    def repeated(values: Iterable[object], kind: type = np.int64) -> np.ndarray:
        return np.repeat(np.array(list(values), kind), each)

    rows = pd.DataFrame(
        {
            REQUEST_ID: repeated(r.request_id for r in records),
            USER_ID: repeated(r.user_id for r in records),
            PIN_ID: np.concatenate([np.array(r.pin_ids, np.int64) for r in records]),
            POSITION: np.concatenate([np.arange(n, dtype=np.int32) for n in each]),
            TIMESTAMP: pd.to_datetime(repeated(r.timestamp_ms for r in records), unit="ms", utc=True),
            SURFACE: repeated((r.surface for r in records), object),
            RELEASE: repeated(r.release or 0 for r in records),
            QUERY: repeated((r.query for r in records), object),
        }
    )
    return rows.reindex(columns=list(dict.fromkeys([*rows.columns, *KEYS])))


def block_of(rows: pd.DataFrame, features: RowFeatures) -> Block:
    """The rows as a training set would have them, if nothing had answered them."""
    n = len(rows)
    return Block(
        keys=rows,
        user_scalars=features.user_scalars,
        pin_scalars=features.pin_scalars,
        interactions=features.interactions,
        query=features.query,
        position=rows[POSITION].to_numpy(np.float32),
        label=np.zeros(n, np.int8),
        labels=np.zeros((n, 1), np.int8),
        weight=np.ones(n, np.float32),
    )


def seen(records: Sequence[RankingRecord]) -> Floats:
    """(n, F + 2): features and SEQUENCE of every row, as served. The records must name the same features."""
    return np.vstack([np.hstack([_matrix(r.values, r), _beside(r)]) for r in records])


def scored(records: Sequence[RankingRecord]) -> Floats:
    """(n, H): probabilities of every row, as served. The records must name the same heads."""
    return np.vstack([_matrix(r.scores, r) for r in records])


def sequences(rows: pd.DataFrame, history: SequenceLog) -> Floats:
    """(n, 2): SEQUENCE of every row, from all there was."""
    times = unix_ms(rows[TIMESTAMP])
    starts, ends = history.slice(rows[USER_ID].to_numpy(np.int64), times)
    ages, there = np.zeros(len(rows)), ends > starts
    ages[there] = (times[there] - history.timestamps_ms[ends[there] - 1]) / 1000
    return np.column_stack([ends - starts, ages]).astype(np.float32)


def histories_seen(records: Sequence[RankingRecord]) -> Floats:
    """(n, 3): HISTORY of every row, as served; zeros where the user had none."""
    there = [r.history_length + r.history_shown > 0 for r in records]
    found = [
        (r.timestamp_ms - r.history_as_of_ms) / 1000 * some for r, some in zip(records, there, strict=True)
    ]
    facts = [(age, r.history_length, r.history_shown) for age, r in zip(found, records, strict=True)]
    return np.repeat(np.array(facts, np.float32), [len(r.pin_ids) for r in records], axis=0)


def cut_at(records: Sequence[RankingRecord]) -> NDArray[np.int64]:
    """(n,) when every row's history was cut, as served: Unix ms; the last midnight where there was no batch."""
    at = [r.history_as_of_ms or r.timestamp_ms // MS_PER_DAY * MS_PER_DAY for r in records]
    return np.repeat(np.array(at, np.int64), [len(r.pin_ids) for r in records])


def histories(rows: pd.DataFrame, as_of_ms: NDArray[np.int64], history: SequenceLog, shown: ShownLog) -> Floats:
    """(n, 3): HISTORY of every row from all there was by `as_of_ms` (n,), as old as at the last midnight."""
    times, users = unix_ms(rows[TIMESTAMP]), rows[USER_ID].to_numpy(np.int64)
    starts, ends = history.slice(users, as_of_ms, HISTORY_LENGTH)
    seen = (shown.newest(users, as_of_ms) >= 0).sum(axis=1)
    there = (ends > starts) | (seen > 0)
    ages = np.where(there, (times - midnight_ms(times)) / 1000, 0)
    return np.column_stack([ages, ends - starts, seen]).astype(np.float32)


def _matrix(packed: bytes, record: RankingRecord) -> Floats:
    return np.frombuffer(packed, "<f4").reshape(len(record.pin_ids), -1).astype(np.float32)


def _beside(record: RankingRecord) -> Floats:
    newest = record.sequence_newest_ms
    age = (record.timestamp_ms - newest) / 1000 if newest else 0.0
    return np.tile(np.array([record.sequence_length, age], np.float32), (len(record.pin_ids), 1))
