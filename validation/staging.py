"""Rows on their way in: checked, kept beside the lake in bounded pieces, and not yet part of it.

Nothing of a source is visible in the lake until all of it is staged and its checkpoint has passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.column_rules import Rules
from validation.fingerprint import key_of, row_hash
from validation.quarantine import Quarantine
from validation.rows import check
from validation.source import SourceTable
from validation.tables import TIMESTAMP, USER_ID

ROW = "_row"
"""Number of a staged row in its source table."""

SAMPLE_ROWS = 50_000
"""Rows of each table that the expectation suites look at, evenly spaced over the source."""

_EPOCH = date(1970, 1, 1).toordinal()


class Spool:
    """Append-only Arrow streams in a folder, one file a name, compressed; no file stays open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, name: str, rows: pa.Table) -> None:
        path = self.folder / f"{name}.arrows"
        path.parent.mkdir(parents=True, exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with path.open("ab") as file, pa.ipc.new_stream(file, rows.schema, options=options) as stream:
            stream.write_table(rows)

    def pieces(self, name: str) -> Iterator[pa.Table]:
        """What was appended under `name`, piece by piece, in order."""
        path = self.folder / f"{name}.arrows"
        if not path.exists():
            return
        with path.open("rb") as file:
            size = path.stat().st_size
            while file.tell() < size:
                with pa.ipc.open_stream(file) as stream:
                    yield stream.read_all()

    def read(self, name: str) -> pa.Table:
        return pa.concat_tables(self.pieces(name))


@dataclass
class Staged:
    """One table of a source after the row checks."""

    source: SourceTable
    spool: Spool
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(kept,) int64: source row numbers of the rows that passed, ascending."""
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(kept,) int64 key of each."""
    content: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """(kept,) uint64 fingerprint of each."""
    days: tuple[date, ...] = ()
    """UTC days that the rows of an event table fall on."""
    forgotten: int = 0
    """Rows of forgotten users, which went nowhere."""
    sample: pa.Table | None = None
    """At most SAMPLE_ROWS rows in lake form, and ROW; None where no row passed."""


def spool_name(table: str, day: date | None) -> str:
    """Where the spool keeps `table`, or one day of it."""
    return table if day is None else f"{table}/{day.isoformat()}"


def stage(source: SourceTable, rules: Rules, spool: Spool, quarantine: Quarantine) -> Staged:
    """Checks every row of `source`; those that pass go to `spool`, the others to `quarantine`.

    Rows of forgotten users go nowhere.
    """
    spec = source.spec
    by_name: dict[str, list] = {"rows": [], "keys": [], "content": [], "sample": []}
    days: set[date] = set()
    forgotten = 0
    stride = max(1, -(-source.rows // SAMPLE_ROWS))
    for first, path, batch in source.batches():
        stays = _not_forgotten(batch, rules)
        forgotten += batch.num_rows - len(stays)
        checked = check(spec, batch if len(stays) == batch.num_rows else batch.take(pa.array(stays)), rules)
        quarantine.add(source, path, batch, first, stays[checked.refused], checked.reasons)
        if not len(checked.passed):
            continue
        numbers = stays[checked.passed] + first
        by_name["rows"].append(numbers)
        by_name["keys"].append(key_of(checked.rows, spec.key))
        by_name["content"].append(row_hash(checked.rows, spec.schema.names))
        rows = checked.rows.append_column(ROW, pa.array(numbers))
        by_name["sample"].append(rows.filter(pa.array(numbers % stride == 0)))
        if spec.by_day:
            for day, piece in _by_day(rows):
                spool.append(spool_name(spec.name, day), piece)
                days.add(day)
        else:
            spool.append(spec.name, rows)
    if not by_name["rows"]:
        return Staged(source, spool, forgotten=forgotten)
    return Staged(
        source,
        spool,
        rows=np.concatenate(by_name["rows"]),
        keys=np.concatenate(by_name["keys"]),
        content=np.concatenate(by_name["content"]),
        days=tuple(sorted(days)),
        forgotten=forgotten,
        sample=pa.concat_tables(by_name["sample"]),
    )


def _not_forgotten(batch: pa.Table, rules: Rules) -> np.ndarray:
    """Places of the rows that are of no forgotten user, (kept,) int64."""
    if USER_ID not in batch.schema.names:
        return np.arange(batch.num_rows)
    return np.flatnonzero(~rules.forgotten.places(batch.column(USER_ID)))


def _by_day(rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """The rows split by UTC day of their timestamp, each part in the order it had."""
    number = pc.cast(rows.column(TIMESTAMP), pa.date32()).cast(pa.int32()).to_numpy()
    order = np.argsort(number, kind="stable")
    days, starts = np.unique(number[order], return_index=True)
    for day, part in zip(days, np.split(order, starts[1:]), strict=True):
        yield date.fromordinal(_EPOCH + int(day)), rows.take(pa.array(part))
