"""Where refused rows are kept, as they came, with the reason."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from validation.source import SourceTable, plain

REASON, FILE, ROW = "reason", "source_file", "source_row"
"""Columns added to a refused row; a source column of the same name gains a trailing underscore."""

EXAMPLES = 3
"""Refused rows shown in the report for each reason."""


class Quarantine:
    """The refused rows of one ingest: quarantine/<table>/<ingest>.parquet, written as they are found.

    A context manager; the files appear when it ends well, and none does when it ends with an error.
    """

    def __init__(self, folder: Path, ingest: str) -> None:
        self.folder = folder
        self.ingest = ingest
        self.counts: dict[str, Counter[str]] = {}
        self.examples: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}

    def path(self, table: str) -> Path:
        return self.folder / table / f"{self.ingest}.parquet"

    def add(
        self,
        source: SourceTable,
        file: Path,
        batch: pa.Table,
        first: int,
        refused: np.ndarray,
        reasons: list[str],
    ) -> None:
        """Keeps the rows of `batch` at places `refused`, for one of `reasons` each.

        `first` is the number of the batch's first row in the whole table.
        """
        if not len(refused):
            return
        rows = batch.take(pa.array(refused))
        rows = _original(source, rows)
        extra = {
            REASON: pa.array(reasons),
            FILE: pa.array([file.name] * len(refused)),
            ROW: pa.array(refused + first, pa.int64()),
        }
        for name, column in extra.items():
            rows = rows.append_column(name, column)
        name = source.spec.name
        self._writer(name, rows.schema).write_table(rows)
        self.counts.setdefault(name, Counter()).update(reasons)
        self._remember(name, rows, reasons)

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for table, writer in self._writers.items():
            writer.close()
            staged = self._staged(table)
            if kind is None:
                staged.replace(self.path(table))
            else:
                staged.unlink()

    def _writer(self, table: str, schema: pa.Schema) -> pq.ParquetWriter:
        if table not in self._writers:
            self.path(table).parent.mkdir(parents=True, exist_ok=True)
            self._writers[table] = pq.ParquetWriter(self._staged(table), schema)
        return self._writers[table]

    def _staged(self, table: str) -> Path:
        return self.path(table).with_suffix(f".{os.getpid()}.tmp")

    def _remember(self, table: str, rows: pa.Table, reasons: list[str]) -> None:
        for place in sorted(_first_places(reasons, EXAMPLES)):
            kept = self.examples.setdefault((table, reasons[place]), [])
            if len(kept) < EXAMPLES:
                kept.append(rows.slice(place, 1).to_pylist()[0])


def _first_places(reasons: list[str], count: int) -> list[int]:
    """Places of the first `count` rows of every reason."""
    seen: Counter[str] = Counter()
    places = []
    for place, reason in enumerate(reasons):
        seen[reason] += 1
        if seen[reason] <= count:
            places.append(place)
    return places


def _original(source: SourceTable, rows: pa.Table) -> pa.Table:
    """`rows` with the columns of every file of the table, so that one Parquet schema holds them all."""
    arrays, fields = [], []
    for f in source.schema:
        if f.name in rows.schema.names:
            column = rows.column(f.name)
            column = column.cast(plain(column.type)).cast(f.type)
        else:
            column = pa.nulls(rows.num_rows, f.type)
        name = f"{f.name}_" if f.name in (REASON, FILE, ROW) else f.name
        arrays.append(column)
        fields.append(pa.field(name, f.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
