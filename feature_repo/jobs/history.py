"""The daily batch of users' histories, cut by the code that training uses (`feature_repo.history`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.history import ShownLog, kinds_of
from feature_repo.jobs.files import in_pieces, lists, part, times, write
from feature_repo.schema import HISTORY_LENGTH, SHOWN_DAYS
from feature_repo.sequence import SequenceLog, columns_of
from feature_repo.views import USER_HISTORY
from validation.surfaces import of_surfaces
from validation.tables import ACTIONS, IMPRESSIONS, PIN_ID, SURFACE, TIMESTAMP, USER_ID

if TYPE_CHECKING:
    from validation.lake import Lake

FILE = "latest"

_ACTIONS = ["user_id", "event_id", "pin_id", "action", "timestamp", "surface"]


def histories(lake: Lake, out: Path, as_of: datetime) -> int:
    """Writes `user_history` as of the midnight `as_of`, whole; returns the rows.

    A user who had a row in the last build and has no history any more (what they were shown is too long ago)
    gets an empty one, for what is online is replaced and never taken away.
    """
    log = SequenceLog.from_columns(_actions(lake, as_of))
    shown = read_shown(lake, log, as_of - timedelta(days=SHOWN_DAYS), as_of)
    users = np.union1d(np.union1d(log.users, shown.users), np.append(_written(out), 0))
    made = in_pieces(len(users), lambda some: _table(log, shown, users[some], as_of))
    return write(out, USER_HISTORY, FILE, made)


def _table(log: SequenceLog, shown: ShownLog, users: np.ndarray, as_of: datetime) -> pa.Table:
    """The rows of `users` (n,), in their order."""
    now_ms = int(as_of.timestamp() * 1000)
    at = np.full(len(users), now_ms)
    starts, ends = log.slice(users, at, HISTORY_LENGTH)
    acted = ends - starts
    offsets = np.concatenate([[0], np.cumsum(acted)])
    rows = np.repeat(ends - 1 + offsets[:-1], acted) - np.arange(offsets[-1])  # newest first
    seen = shown.newest(users, at)
    vain = seen[seen >= 0]
    seen_offsets = np.concatenate([[0], np.cumsum((seen >= 0).sum(axis=1))])

    def ages(times_ms: np.ndarray) -> np.ndarray:
        return (now_ms // 1000 - times_ms // 1000).astype(np.int32)

    return pa.table(
        {
            "user_id": users,
            "pin_ids": lists(offsets, log.pin_ids[rows]),
            "kinds": lists(offsets, kinds_of(log.actions[rows], log.surfaces[rows])),
            "ages_s": lists(offsets, ages(log.timestamps_ms[rows])),
            "shown_pin_ids": lists(seen_offsets, shown.pin_ids[vain]),
            "shown_ages_s": lists(seen_offsets, ages(shown.times_ms[vain])),
            **times(as_of, len(users)),
        }
    )


def read_shown(lake: Lake, log: SequenceLog, start: datetime, end: datetime) -> ShownLog:
    """The lake's impressions of [start, end), without those of ads, beside everyone's actions before `end`."""
    days = [day for day in lake.days(IMPRESSIONS.name) if start.date() <= day <= end.date()]
    pieces = [_shown(lake.file(IMPRESSIONS.name, day), start, end) for day in days]
    if not pieces:
        return ShownLog.none()
    return ShownLog.of(*(np.concatenate(column) for column in zip(*pieces, strict=True)), log)


def _shown(file: Path, start: datetime, end: datetime) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, pins and times in Unix ms of one day."""
    table = pq.ParquetFile(file).read([USER_ID, PIN_ID, TIMESTAMP, SURFACE])
    us = table[TIMESTAMP].cast(pa.timestamp("us", "UTC")).to_numpy().astype("datetime64[us]").view(np.int64)
    kept = (us >= start.timestamp() * 1e6) & (us < end.timestamp() * 1e6)
    kept &= of_surfaces(table[SURFACE], ads=False)
    return table[USER_ID].to_numpy()[kept], table[PIN_ID].to_numpy()[kept], us[kept] // 1000


def _actions(lake: Lake, as_of: datetime) -> Iterator[Mapping[str, np.ndarray]]:
    for day in lake.days(ACTIONS.name):
        if day < as_of.date():
            yield columns_of(pq.ParquetFile(lake.file(ACTIONS.name, day)).read(_ACTIONS).to_pandas())


def _written(out: Path) -> np.ndarray:
    """Users of the last build, int64."""
    file = part(out, USER_HISTORY, FILE)
    if not file.exists():
        return np.zeros(0, np.int64)
    return pq.read_table(file, columns=[USER_ID])[USER_ID].to_numpy()
