"""The batch side of the user's sequence: the last actions before a midnight, in `merge`'s order."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_repo.jobs.database import days_of, literal
from feature_repo.jobs.files import write
from feature_repo.schema import SEQUENCE_LENGTH
from feature_repo.sequence import SURFACE_CODES
from feature_repo.views import USER_SEQUENCE

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from validation.lake import Lake

LISTS = {
    "event_ids": "event_id",
    "pin_ids": "pin_id",
    "actions": "action",
    "surfaces": "surface",
    "timestamps_ms": "timestamps_ms",
    "durations_s": "duration_s",
}
"""Columns of the view by what they hold of each action."""


def sequences(db: duckdb.DuckDBPyConnection, lake: Lake, out: Path, as_of: datetime) -> int:
    """Writes `user_sequence` of every user with an action before `as_of`; returns the rows.

    A row's event time is its newest action, so that a pushed sequence, which knows at least as much, is never
    undone by a batch; its created time is the same, so that a push wins a tie.
    """
    days_of(db, lake, "actions", [day for day in lake.days("actions") if day < as_of.date()])
    surfaces = ", ".join(f"'{name}': {code}" for name, code in SURFACE_CODES.items())
    order = "user_id, timestamps_ms DESC, event_id DESC"
    newest = db.sql(
        f"""
        SELECT user_id, event_id, pin_id, action::INT AS action,
               coalesce(MAP {{{surfaces}}}[surface], 0)::INT AS surface,
               epoch_us(timestamp) // 1000 AS timestamps_ms, coalesce(duration_s, 0)::FLOAT AS duration_s
        FROM actions WHERE timestamp < {literal(as_of)}
        QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY {order}) <= {SEQUENCE_LENGTH}
        ORDER BY {order}
        """
    ).to_arrow_table()
    return write(out, USER_SEQUENCE, "latest", by_user(newest))


def by_user(newest: pa.Table) -> pa.Table:
    """One row a user of actions that stand user by user, newest first.

    DuckDB's ordered lists take tens of kilobytes each, whatever they hold: 100,000 users would fill its memory.
    """
    import pyarrow as pa

    users = newest["user_id"].to_numpy()
    starts = np.flatnonzero(np.diff(users, prepend=users[:1] - 1))
    ends = pa.array(np.append(starts, len(users)).astype(np.int32))
    newest_us = newest["timestamps_ms"].to_numpy()[starts] * 1000
    times = pa.array(newest_us, pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "user_id": users[starts],
            **{name: pa.ListArray.from_arrays(ends, newest[of].combine_chunks()) for name, of in LISTS.items()},
            "event_timestamp": times,
            "created": times,
        }
    )
