"""Edges of the pin-board graph, read from a lake's log: positive actions, and the context of each.

Rows are streamed in time order, so memory follows the number of edges, not the number of actions.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from validation.lake import Lake
from validation.tables import (
    ACTION,
    ACTIONS,
    BOARD_ID,
    PIN_ID,
    REQUEST_ID,
    TIMESTAMP,
    USER_ID,
    Polarity,
)

Ids = NDArray[np.int64]

BATCH_ROWS = 1 << 20


class Context(StrEnum):
    """What stands at the other end of an edge."""

    BOARD = "board"
    REQUEST = "request"
    SESSION = "session"
    USER = "user"


def any_id(lake: Lake, column: str) -> bool:
    """Whether any positive action of the lake has an id in `column`."""
    positive = _positive_codes(lake)
    for file in lake.files(ACTIONS.name):
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=[ACTION, column]):
            ids = batch.column(column).fill_null(0).to_numpy(zero_copy_only=False)
            if ((ids > 0) & np.isin(batch.column(ACTION).to_numpy(), positive)).any():
                return True
    return False


def read_edges(
    lake: Lake, context: Context, end: datetime, pin_ids: Ids, *, session_gap_minutes: int
) -> tuple[NDArray[np.int32], Ids, int]:
    """Positive actions before `end` (UTC, exclusive), as edges in time order.

    Returns the row in `pin_ids` (ascending) of each edge's pin, its context's id, and the number of actions on
    unknown pins, which are left out as are those without a context. A session ends after `session_gap_minutes`
    without a positive action of its user.
    """
    columns = {Context.BOARD: BOARD_ID, Context.REQUEST: REQUEST_ID}
    sessions = _Sessions(session_gap_minutes * 60_000_000)
    pins: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
    contexts: list[Ids] = [np.empty(0, np.int64)]
    unknown = 0
    for rows in _positives(lake, end, columns.get(context)):
        if context is Context.SESSION:
            ids = sessions.of(rows[USER_ID], rows[TIMESTAMP])
        else:
            ids = rows[columns.get(context, USER_ID)]
        place = np.minimum(np.searchsorted(pin_ids, rows[PIN_ID]), len(pin_ids) - 1)
        known = pin_ids[place] == rows[PIN_ID]
        used = known & (ids > 0)
        unknown += int((~known & (ids > 0)).sum())
        pins.append(place[used].astype(np.int32))
        contexts.append(ids[used])
    return np.concatenate(pins), np.concatenate(contexts), unknown


def _positives(lake: Lake, end: datetime, column: str | None) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Positive actions before `end` in time order, in batches: nulls of `column` are 0, times Unix us."""
    positive = _positive_codes(lake)
    names = [USER_ID, PIN_ID, ACTION, TIMESTAMP, *([column] if column else [])]
    bound = (end.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for file, day in zip(lake.files(ACTIONS.name), lake.days(ACTIONS.name), strict=True):
        if day > end.astimezone(UTC).date():
            continue
        for batch in pq.ParquetFile(file).iter_batches(BATCH_ROWS, columns=names):
            times = batch.column(TIMESTAMP).cast("int64").to_numpy()
            used = (times < bound) & np.isin(batch.column(ACTION).to_numpy(), positive)
            rows = {
                name: batch.column(name).fill_null(0).to_numpy(zero_copy_only=False)[used]
                for name in names
                if name not in (ACTION, TIMESTAMP)
            }
            yield rows | {TIMESTAMP: times[used]}


class _Sessions:
    """Session ids of actions that arrive in time order, carried over batches and days."""

    def __init__(self, gap_us: int) -> None:
        self.gap_us = gap_us
        self._next = 1
        self._last = pd.DataFrame(
            {"time": [], "session": []}, index=pd.Index([], dtype=np.int64), dtype=np.int64
        )

    def of(self, users: Ids, times_us: Ids) -> Ids:
        """Session of each action, counted from 1."""
        if not len(users):
            return np.empty(0, np.int64)
        order = np.lexsort((times_us, users))
        user, time = users[order], times_us[order]
        starts = np.append(True, user[1:] != user[:-1])
        before = self._last.reindex(user[starts])
        gone = np.append(self.gap_us + 1, np.diff(time))
        previous = before["time"].to_numpy(np.float64)
        gone[starts] = np.where(np.isnan(previous), self.gap_us + 1, time[starts] - previous)
        new = gone > self.gap_us
        # the session of a row is its group's: one that starts here, or the one carried from an earlier batch
        group = np.cumsum(new | starts) - 1
        first = new[new | starts]
        carried = before["session"].to_numpy(np.float64)
        names = np.empty(len(first), np.int64)
        names[first] = self._next + np.arange(first.sum())
        names[~first] = carried[~new[starts]].astype(np.int64)
        self._next += int(first.sum())
        sessions = names[group]
        ends = np.append(starts[1:], True)
        latest = pd.DataFrame({"time": time[ends], "session": sessions[ends]}, index=user[ends])
        self._last = pd.concat([self._last[~self._last.index.isin(latest.index)], latest])
        out = np.empty(len(users), np.int64)
        out[order] = sessions
        return out


def _positive_codes(lake: Lake) -> NDArray[np.int8]:
    return np.array(lake.contract().vocabulary.codes(Polarity.POSITIVE), np.int8)
