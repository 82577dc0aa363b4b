"""From staged rows to the lake's files: what is new, what is known, and how a file is replaced."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from validation.fingerprint import key_of, row_hash
from validation.lake import EVENT_ORDER, Lake
from validation.settle import Status, contains, settle
from validation.staging import ROW, Staged, spool_name
from validation.tables import ACTIONS, EVENT_ID, TIMESTAMP, Table

_GROUP_ROWS = 100_000
"""Rows of one Parquet row group."""

ENTERING = (Status.NEW, Status.UPDATED)
"""Rows that will be written."""


@dataclass(frozen=True)
class Verdicts:
    """What becomes of every row of one staged table."""

    staged: Staged
    status: np.ndarray
    """(source rows,) int8 Status, by source row number."""
    replaced: np.ndarray
    """Sorted int64 keys of the lake rows that give way."""

    def count(self, status: Status) -> int:
        return int(np.count_nonzero(self.status == status))


def weigh(lake: Lake, staged: Staged) -> Verdicts:
    """Settles the staged rows among themselves and against the lake. Changes nothing."""
    spec = staged.source.spec
    known_keys, known_content = _known(lake, staged)
    settled = settle(
        staged.keys, staged.content, known_keys, known_content, first_stays=TIMESTAMP in spec.schema.names
    )
    status = np.full(staged.source.rows, Status.REFUSED, np.int8)
    status[staged.rows] = settled
    return Verdicts(staged, status, np.sort(staged.keys[settled == Status.UPDATED]))


def commit(lake: Lake, verdicts: Verdicts) -> None:
    """Writes what is new or updated; files that gain nothing are not touched."""
    spec = verdicts.staged.source.spec
    if not (verdicts.count(Status.NEW) or verdicts.count(Status.UPDATED)):
        return
    if spec.by_day:
        for day in verdicts.staged.days:
            _commit_day(lake, verdicts, day)
    else:
        _commit_whole(lake, verdicts)


def entering_sample(verdicts: Verdicts) -> pa.Table:
    """Those of the staged sample's rows that will enter, in lake form."""
    spec = verdicts.staged.source.spec
    if verdicts.staged.sample is None:
        return spec.schema.empty_table()
    return _select(verdicts.staged.sample, verdicts, ENTERING).select(spec.schema.names)


def conflicts(verdicts: Verdicts) -> Iterator[tuple[int, Path, pa.Table, np.ndarray]]:
    """(number of the first row, file, rows, places refused) for each batch that holds conflicting rows."""
    if not verdicts.count(Status.CONFLICT):
        return
    for first, path, batch in verdicts.staged.source.batches():
        here = verdicts.status[first : first + batch.num_rows]
        places = np.flatnonzero(here == Status.CONFLICT)
        if len(places):
            yield first, path, batch, places


def _known(lake: Lake, staged: Staged) -> tuple[np.ndarray, np.ndarray]:
    """Keys and fingerprints of the lake's rows that share a key with a staged row."""
    spec = staged.source.spec
    keys, content = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    files = _files_to_search(lake, staged)
    wanted = np.sort(staged.keys) if files else staged.keys
    for path in files:
        # The key columns alone first: most files of a large lake share no key with a small ingest.
        key = np.concatenate([key_of(rows, spec.key) for rows in _pieces(path, spec.key)])
        hit = contains(wanted, key)
        if hit.any():
            bodies = [row_hash(rows, spec.schema.names) for rows in _pieces(path, spec.schema.names)]
            keys.append(key[hit])
            content.append(np.concatenate(bodies)[hit])
    return np.concatenate(keys), np.concatenate(content)


def _pieces(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The file's rows with `columns`, in bounded pieces."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_GROUP_ROWS, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _files_to_search(lake: Lake, staged: Staged) -> list[Path]:
    """Files that may hold a staged key: every one, unless the key implies the day."""
    spec = staged.source.spec
    if spec.name == ACTIONS.name and EVENT_ID not in staged.source.columns:
        return [path for path in (lake.file(spec.name, day) for day in staged.days) if path.exists()]
    return lake.files(spec.name)


def _commit_day(lake: Lake, verdicts: Verdicts, day: date) -> None:
    spec = verdicts.staged.source.spec
    staged = verdicts.staged.spool.read(spool_name(spec.name, day))
    fresh = _select(staged, verdicts, ENTERING)
    if not fresh.num_rows:
        return
    path = lake.file(spec.name, day)
    parts = [_complete(fresh, spec)]
    if path.exists():
        with pq.ParquetFile(path) as file:
            parts.insert(0, _complete(file.read(), spec))
    rows = pa.concat_tables(parts).combine_chunks()
    order = np.lexsort([rows.column(c).to_numpy() for c in reversed(EVENT_ORDER[spec.name])])
    with _replacing(path, spec) as writer:
        writer.write_table(rows.take(pa.array(order)), row_group_size=_GROUP_ROWS)


def _commit_whole(lake: Lake, verdicts: Verdicts) -> None:
    """Lake rows that stay, then the staged ones, in batches: the table is never whole in memory."""
    spec = verdicts.staged.source.spec
    path = lake.file(spec.name)
    with _replacing(path, spec) as writer:
        if path.exists():
            for rows in _pieces(path, spec.schema.names):
                stays = ~contains(verdicts.replaced, key_of(rows, spec.key))
                _write(writer, spec, rows.filter(pa.array(stays)))
        for piece in verdicts.staged.spool.pieces(spool_name(spec.name, None)):
            _write(writer, spec, _select(piece, verdicts, ENTERING))


def _select(rows: pa.Table, verdicts: Verdicts, wanted: Iterable[Status]) -> pa.Table:
    status = verdicts.status[rows.column(ROW).to_numpy()]
    return rows.filter(pa.array(np.isin(status, list(wanted))))


def _write(writer: pq.ParquetWriter, spec: Table, rows: pa.Table) -> None:
    if rows.num_rows:
        writer.write_table(_complete(rows, spec))


def _complete(rows: pa.Table, spec: Table) -> pa.Table:
    """The rows in the table's own schema; a column that the contract gained after they were written is null."""
    for field in spec.schema:
        if field.name not in rows.schema.names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(spec.schema.names).cast(spec.schema)


@contextmanager
def _replacing(path: Path, spec: Table) -> Iterator[pq.ParquetWriter]:
    """A writer whose file takes the place of `path` when the block ends well, at once and durably."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with pq.ParquetWriter(staged, spec.schema, compression="zstd") as writer:
            yield writer
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
