"""The point-in-time join as DuckDB's ASOF join: what was known of a key at a row's time.

Feast's own DuckDB join pairs every row with every earlier row of its key and then throws all but one away: a
year of daily rows makes it hundreds of pairs a training row. This one merges two sorted sides, and gives the
same answer: of the feature rows with event time (and created time, when asked) at or before the row's time,
the one with the latest event time, then the latest created time; nothing when that one is older than the TTL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

MEMORY_LIMIT = "4GB"
"""DuckDB spills to disk beyond this."""

ROW = "__place"


@dataclass(frozen=True)
class Side:
    """One feature view in the join."""

    relation: str | pa.Table
    """Glob of its Parquet files, or its rows."""
    keys: dict[str, str]
    """Its join keys, each with the column of the rows that it equals."""
    columns: dict[str, str]
    """Its features, each with its name in the answer."""
    event: str
    created: str | None
    ttl: timedelta | None


def join(rows: pa.Table, time: str, sides: Sequence[Side], *, by_created: bool, threads: int = 2) -> pa.Table:
    """`rows` with the features of `sides` as known at column `time`, in the rows' order and number."""
    placed = rows.append_column(ROW, pa.array(range(rows.num_rows), pa.int64()))
    with TemporaryDirectory(prefix="corkboard-join-") as spill, duckdb.connect() as db:
        db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET threads = {threads}; SET TimeZone = 'UTC'")
        db.execute(f"SET temp_directory = '{spill}'")
        # DuckDB takes a registered Arrow table for a short one and would loop over the history for every row.
        db.execute("SET asof_loop_join_threshold = 0")
        db.register("asked", placed)
        selected, joins, known = [f"asked.{_name(c)}" for c in rows.column_names], [], []
        for i, side in enumerate(sides):
            known.append(_known(db, side, i, by_created))
            keys = " AND ".join(f"asked.{_name(row)} = k{i}.{_name(key)}" for key, row in side.keys.items())
            joins.append(f"ASOF LEFT JOIN k{i} ON {keys} AND asked.{_name(time)} >= k{i}.__known")
            for column, wanted in side.columns.items():
                value = f"k{i}.{_name(column)}"
                if side.ttl:
                    end = f"k{i}.__event + to_seconds({int(side.ttl.total_seconds())})"
                    value = f"CASE WHEN {end} >= asked.{_name(time)} THEN {value} END"
                selected.append(f"{value} AS {_name(wanted)}")
        query = (
            f"WITH {', '.join(known)} " if known else ""
        ) + f"SELECT {', '.join(selected)} FROM asked {' '.join(joins)} ORDER BY asked.{ROW}"
        return db.sql(query).to_arrow_table()


def _known(db: duckdb.DuckDBPyConnection, side: Side, i: int, by_created: bool) -> str:
    """Common table `k<i>`: the side's rows with `__known`, the time from which each is the answer.

    A row known late (a backfill) is the answer from then on only if nothing newer was known before: rows that
    are overtaken before they are known are left out, and the ASOF join may then look at `__known` alone.
    """
    if isinstance(side.relation, str):
        path = side.relation.replace("'", "''")
        source = f"read_parquet('{path}', hive_partitioning=false, union_by_name=true)"
    else:
        source = f"side_{i}"
        db.register(source, side.relation)
    keys = ", ".join(_name(key) for key in side.keys)
    event, created = _name(side.event), _name(side.created or side.event)
    since = f"greatest({event}, {created})" if by_created else event
    matches = " AND ".join(f"s.{_name(key)} = asked.{_name(row)}" for key, row in side.keys.items())
    columns = ", ".join(_name(column) for column in side.columns)
    return f"""
        c{i} AS (
            SELECT {keys}, {columns}, {event}::TIMESTAMPTZ AS __event, {created}::TIMESTAMPTZ AS __created,
                   ({since})::TIMESTAMPTZ AS __known
            FROM {source} s WHERE EXISTS (SELECT 1 FROM asked WHERE {matches})
            QUALIFY row_number() OVER (PARTITION BY {keys}, __known ORDER BY __event DESC, __created DESC) = 1
        ),
        k{i} AS (
            SELECT * FROM c{i}
            QUALIFY __event >= max(__event) OVER (
                PARTITION BY {keys} ORDER BY __known ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )"""


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
