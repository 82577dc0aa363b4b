"""The lake: contract tables after the door, as Parquet with int64 ids.

    lake/contract.json                       what the data set declares about itself
    lake/ids.sqlite                          string ids and their numbers
    lake/<table>/day=YYYY-MM-DD/part.parquet event tables, one file a UTC day, in time order
    lake/<table>/part.parquet                every other table

Files are replaced whole and atomically, so a reader beside an ingest sees the old file or the new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from validation.ids import IdMap
from validation.tables import (
    ACTIONS,
    CANDIDATES,
    DAY,
    EVENT_ID,
    IMPRESSIONS,
    PADDING_ID,
    PIN_ID,
    POSITION,
    RANK,
    REQUEST_ID,
    SOURCE,
    TABLES,
    TIMESTAMP,
    Contract,
    Table,
)
from validation.whole_files import replace_text

PART = "part.parquet"

EVENT_ORDER = {
    ACTIONS.name: (TIMESTAMP, EVENT_ID),
    IMPRESSIONS.name: (TIMESTAMP, REQUEST_ID, POSITION, PIN_ID),
    CANDIDATES.name: (TIMESTAMP, REQUEST_ID, PIN_ID, RANK, SOURCE),
}
"""Columns by which a day of an event table is sorted; no two rows are equal in all of them."""

_DAYS = ds.partitioning(pa.schema([(DAY, pa.date32())]), flavor="hive")


class LakeError(RuntimeError):
    """Something was asked of the lake that it does not hold."""


class Lake:
    """The lake at `path`. Creating the object touches nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def exists(self) -> bool:
        """True once an ingest has finished."""
        return self._contract_file.exists()

    def contract(self) -> Contract:
        """What the data set declares about itself. Raises LakeError before the first ingest."""
        if not self.exists():
            raise LakeError(f"{self.path} holds no lake yet; run `corkboard ingest DIR` first")
        return Contract.model_validate_json(self._contract_file.read_text())

    def write_contract(self, contract: Contract) -> None:
        """Replaces contract.json atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_text(self._contract_file, contract.model_dump_json(indent=2))

    def has(self, table: str) -> bool:
        """True where the lake holds rows of `table`."""
        return bool(self.files(table))

    def files(self, table: str) -> list[Path]:
        """Parquet files of `table`, oldest day first; empty where the lake has none."""
        spec = _table(table)
        pattern = f"{DAY}=*/{PART}" if spec.by_day else PART
        return sorted((self.path / table).glob(pattern))

    def file(self, table: str, day: date | None = None) -> Path:
        """Where `table` (of `day`) is kept, whether or not it exists."""
        folder = self.path / _table(table).name
        return (folder if day is None else folder / f"{DAY}={day.isoformat()}") / PART

    def dataset(self, table: str) -> ds.Dataset:
        """The table as a dataset; event tables have `day` (date32) as a further, pruning column.

        Raises LakeError naming the table where the lake has none.
        """
        files = self.files(table)
        if not files:
            raise LakeError(f"the lake {self.path} has no {table} table")
        spec = _table(table)
        if not spec.by_day:
            return ds.dataset([str(f) for f in files], schema=spec.schema, format="parquet")
        schema = spec.schema.append(pa.field(DAY, pa.date32()))
        return ds.dataset(
            [str(f) for f in files],
            schema=schema,
            format="parquet",
            partitioning=_DAYS,
            partition_base_dir=str(self.path / table),
        )

    def scan(self, table: str, start: datetime | None = None, end: datetime | None = None) -> ds.Scanner:
        """The rows of [start, end) in bounded batches; raises as `read` does."""
        spec = _table(table)
        return self.dataset(table).scanner(columns=spec.schema.names, filter=_between(spec, start, end))

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pd.DataFrame:
        """Rows of `table` with `start` <= timestamp < `end` (zoned), in time order for event tables.

        Entity tables keep the order in which they came. An absent optional id is 0, so that every id is an
        int64 (as floats, pandas' own reading, request ids would lose their last digits). Raises LakeError for
        an absent table, and ValueError for bounds on a table without timestamps or bounds without a zone.
        """
        spec = _table(table)
        names = list(columns) if columns is not None else spec.schema.names
        rows = self.dataset(table).to_table(columns=names, filter=_between(spec, start, end))
        for place, name in enumerate(names):
            if pa.types.is_integer(rows.schema.field(name).type) and rows.column(name).null_count:
                rows = rows.set_column(place, name, pc.fill_null(rows.column(name), PADDING_ID))
        return rows.to_pandas()

    def glob(self, table: str) -> str:
        """Parquet glob of `table` for DuckDB's read_parquet."""
        return str(self.path / table / (f"{DAY}=*/{PART}" if _table(table).by_day else PART))

    def days(self, table: str) -> list[date]:
        """UTC days of an event table that hold rows, ascending; empty where the lake has none."""
        if not _table(table).by_day:
            raise ValueError(f"{table} is not kept by day")
        return [date.fromisoformat(f.parent.name.removeprefix(f"{DAY}=")) for f in self.files(table)]

    def interval(self) -> tuple[datetime, datetime]:
        """UTC midnights around the actions: the first action's day, and the day after the last (exclusive).

        Raises LakeError where the lake has no actions.
        """
        days = self.days(ACTIONS.name)
        if not days:
            raise LakeError(f"the lake {self.path} has no {ACTIONS.name} table")
        return _midnight(days[0]), _midnight(days[-1] + timedelta(days=1))

    def rows(self, table: str) -> int:
        """Row count of `table`, from the Parquet footers."""
        return sum(pq.read_metadata(f).num_rows for f in self.files(table))

    def digest(self, tables: Sequence[str] = tuple(TABLES)) -> str:
        """16 hex digits that change with the content of `tables` and with nothing else.

        Read from the Parquet footers (row counts, sizes, column statistics), so it costs milliseconds.
        """
        sha = hashlib.sha256()
        for table in tables:
            for path in self.files(table):
                sha.update(str(path.relative_to(self.path)).encode())
                sha.update(_footer(path))
        return sha.hexdigest()[:16]

    def id_map(self) -> IdMap:
        """The map between the data set's own ids and the lake's."""
        return IdMap(self.path / "ids.sqlite")

    @property
    def _contract_file(self) -> Path:
        return self.path / "contract.json"


def _table(name: str) -> Table:
    if name not in TABLES:
        raise LakeError(f"{name!r} is not a contract table; they are {', '.join(TABLES)}")
    return TABLES[name]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _between(spec: Table, start: datetime | None, end: datetime | None) -> ds.Expression | None:
    """The filter of a time interval, with the days that prune files."""
    if start is None and end is None:
        return None
    if TIMESTAMP not in spec.schema.names:
        raise ValueError(f"{spec.name} has no timestamp to filter by")
    wanted: ds.Expression | None = None
    for bound, is_start in ((start, True), (end, False)):
        if bound is None:
            continue
        if bound.tzinfo is None:
            raise ValueError(f"{bound} has no zone; give UTC times")
        value = pa.scalar(bound.astimezone(UTC), spec.schema.field(TIMESTAMP).type)
        clause = ds.field(TIMESTAMP) >= value if is_start else ds.field(TIMESTAMP) < value
        if spec.by_day:
            day = pa.scalar(bound.astimezone(UTC).date(), pa.date32())
            clause = clause & (ds.field(DAY) >= day if is_start else ds.field(DAY) <= day)
        wanted = clause if wanted is None else wanted & clause
    return wanted


def _footer(path: Path) -> bytes:
    """The file's Parquet footer, which states the place, size and statistics of every column chunk."""
    with path.open("rb") as f:
        f.seek(-8, os.SEEK_END)
        length = int.from_bytes(f.read(4), "little")
        f.seek(-8 - length, os.SEEK_END)
        return f.read(length)
