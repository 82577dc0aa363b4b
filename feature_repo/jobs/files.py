"""Writing a view's Parquet files: typed, atomic, one file a job run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.views import VIEWS, View

AT_ONCE = 100_000
"""Rows with lists that are made at once. A list column of one table counts its values in 32 bits: so many lists
of 20,000 values stay within; histories of 2,000 actions take 2 GB."""


def part(out: Path, view: View, name: str) -> Path:
    """Where file `name` of `view` lies below the features folder `out`."""
    return out / view.name / f"{name}.parquet"


def write(out: Path, view: View, name: str, tables: pa.Table | Iterable[pa.Table]) -> int:
    """Replaces file `name` of `view` by a table, or by several in turn, cast to the view's schema; returns its
    rows.

    Of several one is in memory at once. Raises pyarrow.ArrowInvalid, naming the view, where a value does not
    fit or a key or time is null; the file that was there stays.
    """
    path = part(out, view, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged, rows = path.with_suffix(f".{os.getpid()}.tmp"), 0
    try:
        with pq.ParquetWriter(staged, VIEWS[view.name].schema, compression="zstd") as file:
            for table in [tables] if isinstance(tables, pa.Table) else tables:
                file.write_table(typed := _typed(view, table))
                rows += typed.num_rows
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return rows


def _typed(view: View, table: pa.Table) -> pa.Table:
    schema = VIEWS[view.name].schema
    try:
        typed = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, KeyError) as error:
        raise pa.ArrowInvalid(f"rows of view {view.name} do not fit its schema: {error}") from error
    for column in schema:
        nulls = typed.column(column.name).null_count
        if nulls and not column.nullable:
            raise pa.ArrowInvalid(f"view {view.name}: {nulls} rows have no {column.name}")
    return typed


def in_pieces(rows: int, table: Callable[[slice], pa.Table]) -> Iterator[pa.Table]:
    """Tables of AT_ONCE rows and what is left, as `table` makes them of the places of their rows."""
    return (table(slice(first, first + AT_ONCE)) for first in range(0, rows, AT_ONCE))


def lists(ends: np.ndarray, values: np.ndarray) -> pa.ListArray:
    """Lists one after another in `values`; `ends` (n + 1,) is where each begins, and the last one ends. Raises
    pyarrow.ArrowInvalid past 2^31 values."""
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values))


def times(event: datetime, rows: int) -> dict[str, pa.Array]:
    """The two time columns of `rows` rows that are true, and written, from `event` on. `event` has a zone."""
    if event.tzinfo is None:
        raise ValueError(f"{event} has no zone; give UTC times")
    column = pa.repeat(pa.scalar(event, pa.timestamp("us", tz="UTC")), rows)
    return {"event_timestamp": column, "created": column}
