"""The batch side of the user's sequence: the last actions before a midnight, in `merge`'s order."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.jobs.database import days_of, literal
from feature_repo.jobs.files import write
from feature_repo.schema import SEQUENCE_LENGTH
from feature_repo.sequence import SURFACE_CODES
from feature_repo.views import USER_SEQUENCE

if TYPE_CHECKING:
    import duckdb

    from validation.lake import Lake


def sequences(db: duckdb.DuckDBPyConnection, lake: Lake, out: Path, as_of: datetime) -> int:
    """Writes `user_sequence` of every user with an action before `as_of`; returns the rows.

    A row's event time is its newest action, so that a pushed sequence, which knows at least as much, is never
    undone by a batch; its created time is the same, so that a push wins a tie.
    """
    days_of(db, lake, "actions", [day for day in lake.days("actions") if day < as_of.date()])
    surfaces = ", ".join(f"'{name}': {code}" for name, code in SURFACE_CODES.items())
    order = "timestamps_ms DESC, event_id DESC"
    table = db.sql(
        f"""
        WITH recent AS (
            SELECT user_id, event_id, pin_id, action::INT AS action,
                   coalesce(MAP {{{surfaces}}}[surface], 0)::INT AS surface,
                   epoch_us(timestamp) // 1000 AS timestamps_ms, coalesce(duration_s, 0)::FLOAT AS duration_s
            FROM actions WHERE timestamp < {literal(as_of)}
            QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY {order}) <= {SEQUENCE_LENGTH}
        )
        SELECT user_id, list(event_id ORDER BY {order}) AS event_ids, list(pin_id ORDER BY {order}) AS pin_ids,
               list(action ORDER BY {order}) AS actions, list(surface ORDER BY {order}) AS surfaces,
               list(timestamps_ms ORDER BY {order}) AS timestamps_ms,
               list(duration_s ORDER BY {order}) AS durations_s,
               make_timestamptz(max(timestamps_ms) * 1000) AS event_timestamp,
               make_timestamptz(max(timestamps_ms) * 1000) AS created
        FROM recent GROUP BY user_id ORDER BY user_id
        """
    ).to_arrow_table()
    return write(out, USER_SEQUENCE, "latest", table)
