"""Writing a view's Parquet files: typed, atomic, one file a job run."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.views import VIEWS, View


def part(out: Path, view: View, name: str) -> Path:
    """Where file `name` of `view` lies below the features folder `out`."""
    return out / view.name / f"{name}.parquet"


def write(out: Path, view: View, name: str, table: pa.Table) -> int:
    """Replaces file `name` of `view` by `table`, cast to the view's schema; returns its rows.

    Raises pyarrow.ArrowInvalid, naming the view, where a value does not fit or a key or time is null.
    """
    schema = VIEWS[view.name].schema
    try:
        typed = table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, KeyError) as error:
        raise pa.ArrowInvalid(f"rows of view {view.name} do not fit its schema: {error}") from error
    for column in schema:
        nulls = typed.column(column.name).null_count
        if nulls and not column.nullable:
            raise pa.ArrowInvalid(f"view {view.name}: {nulls} rows have no {column.name}")
    path = part(out, view, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(typed, staged, compression="zstd")
    staged.replace(path)
    return typed.num_rows


def times(event: datetime, rows: int) -> dict[str, pa.Array]:
    """The two time columns of `rows` rows that are true, and written, from `event` on. `event` has a zone."""
    if event.tzinfo is None:
        raise ValueError(f"{event} has no zone; give UTC times")
    column = pa.repeat(pa.scalar(event, pa.timestamp("us", tz="UTC")), rows)
    return {"event_timestamp": column, "created": column}
