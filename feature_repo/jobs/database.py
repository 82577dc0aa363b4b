"""One DuckDB connection over the lake, with the views that every job reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from validation.tables import LEARNED_TABLES, TABLES, Polarity

if TYPE_CHECKING:
    import duckdb

    from validation.lake import Lake

MEMORY_LIMIT = "4GB"
"""DuckDB spills to disk beyond this."""


@contextmanager
def connect(lake: Lake, threads: int = 2) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose views are named as the lake's entity tables, empty where the lake has none; event
    tables are read a day at a time by `day_of`. Functions `is_positive(action)`, `is_negative(action)` follow
    the contract's vocabulary.
    """
    import duckdb

    vocabulary = lake.contract().vocabulary
    with TemporaryDirectory(prefix="corkboard-jobs-") as spill, duckdb.connect() as db:
        db.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET threads = {threads}; SET TimeZone = 'UTC'")
        db.execute(f"SET temp_directory = '{spill}'; SET preserve_insertion_order = false")
        for name in LEARNED_TABLES:
            if not TABLES[name].by_day:
                _view(db, name, lake.files(name))
        for macro, polarity in (("is_positive", Polarity.POSITIVE), ("is_negative", Polarity.NEGATIVE)):
            codes = ", ".join(map(str, vocabulary.codes(polarity))) or "-1"
            db.execute(f"CREATE MACRO {macro}(action) AS action IN ({codes})")
        yield db


def days_of(db: duckdb.DuckDBPyConnection, lake: Lake, table: str, days: list[date]) -> None:
    """Makes view `table` the rows of those UTC days that the lake holds; empty where it holds none."""
    files = [lake.file(table, day) for day in days]
    _view(db, table, [file for file in files if file.exists()])


def between(first: datetime, last: datetime) -> list[date]:
    """UTC days from the midnight `first` to the midnight `last`, exclusive."""
    return [(first + timedelta(days=i)).date() for i in range((last - first).days)]


def literal(time: datetime) -> str:
    """A time with zone as SQL."""
    return f"TIMESTAMPTZ '{time.isoformat()}'"


def _view(db: duckdb.DuckDBPyConnection, name: str, files: list[Path]) -> None:
    if files:
        listed = ", ".join(f"'{quote(file)}'" for file in files)
        db.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS FROM read_parquet([{listed}], hive_partitioning=false, "
            "union_by_name=true)"
        )
        return
    db.register(f"no_{name}", TABLES[name].schema.empty_table())
    db.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS FROM no_{name}")


def quote(path: Path) -> str:
    """A path inside a SQL string."""
    return str(path).replace("'", "''")
