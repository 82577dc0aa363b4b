"""The way back: the services' event log read into contract tables, and brought through the same door.

Reading starts where the last ingest ended (a byte offset a segment, kept beside the lake), so its cost follows
the new events. The offsets move after the ingest has finished; an ingest that is killed reads the same
records again, and `event_id` makes them count once.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from validation.events import SEGMENT_SUFFIX, AnyRecord, from_line, whole_lines
from validation.ids import IdForm, IdMap
from validation.ingest import Progress, alone, ingest, silent
from validation.lake import Lake
from validation.outcome import IngestReport
from validation.tables import ACTIONS, CANDIDATES, IMPRESSIONS, TIME, TIMESTAMP, Table

CURSORS = "events.json"
"""File in the lake: bytes of each segment that are already in the tables."""

LOCK = ".events.lock"
"""File in the lake, held from reading the log until its offsets have moved."""

UNREADABLE = "unreadable.jsonl"
"""Lines of the log that are no record, as they are, one a line."""

_BATCH = 200_000
"""Records held at once."""

_TABLES: dict[str, Table] = {"action": ACTIONS, "impression": IMPRESSIONS, "candidate": CANDIDATES}
"""The table of each kind of record; rankings stay in the log, for `corkboard replay` alone."""


@dataclass(frozen=True)
class EventTables:
    """What was read from the log."""

    folder: Path
    """Contract tables; empty where there was nothing new."""
    records: dict[str, int]
    """Records read by table."""
    unreadable: int
    """Whole lines that are no record; they are in `folder`/unreadable.jsonl."""
    cursors: dict[str, int]
    """Where each segment was read to, in bytes."""


def events_to_tables(
    events_dir: Path, out_dir: Path, ids: IdMap, *, since: Mapping[str, int] | None = None
) -> EventTables:
    """Reads the log's segments into folders of `out_dir`, one a table of _TABLES, with the data set's own ids.

    `since` gives the byte to begin at, by segment name. A last line without its newline is left for the next
    time. A lake id that was never given out becomes null, for the door to refuse.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    cursors = dict(since or {})
    writers = {spec.name: _Writer(spec, out_dir, ids) for spec in _TABLES.values()}
    unreadable = 0
    with (out_dir / UNREADABLE).open("wb") as rejected:
        for segment in sorted(events_dir.glob(f"*{SEGMENT_SUFFIX}")):
            for line, end in whole_lines(segment, cursors.get(segment.name, 0)):
                cursors[segment.name] = end
                try:
                    record = from_line(line)
                except ValidationError:
                    # A torn or foreign line must not keep the good ones out; it is kept and counted.
                    rejected.write(line)
                    unreadable += 1
                    continue
                if (table := _TABLES.get(record.kind)) is not None:
                    writers[table.name].add(record)
    if not unreadable:
        (out_dir / UNREADABLE).unlink()
    for writer in writers.values():
        writer.flush()
    return EventTables(
        folder=out_dir,
        records={name: w.written for name, w in writers.items() if w.written},
        unreadable=unreadable,
        cursors=cursors,
    )


def ingest_events(
    events_dir: Path,
    lake: Path,
    quarantine: Path,
    reports: Path,
    *,
    now: datetime | None = None,
    progress: Progress = silent,
    checkpoint: bool = True,
) -> IngestReport | None:
    """Brings what the log has gained since the last time into the lake; None where it gained nothing.

    Unreadable lines end in `quarantine`/events/<ingest>.jsonl. Raises LakeError where there is no lake yet,
    IngestBusy where another process is bringing the log in, and what `ingest` raises.
    """
    door = Lake(lake)
    door.contract()
    # A lock of its own: `ingest` takes the lake's, and the log is read and staged before that.
    with alone(door, LOCK):
        staged = door.path / ".events"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            progress("Reading the event log")
            tables = events_to_tables(events_dir, staged, door.id_map(), since=cursors(door))
            if not tables.records:
                _keep_unreadable(tables, quarantine, "unread")
                move_cursors(door, tables.cursors)
                return None
            report = ingest(
                staged, lake, quarantine, reports, now=now, progress=progress, checkpoint=checkpoint
            )
            _keep_unreadable(tables, quarantine, report.id)
            move_cursors(door, tables.cursors)
            return report
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@dataclass
class _Writer:
    """Records of one table on their way to Parquet, a file every _BATCH of them."""

    spec: Table
    out_dir: Path
    ids: IdMap
    written: int = 0
    _records: list[AnyRecord] = field(default_factory=list)

    def add(self, record: AnyRecord) -> None:
        self._records.append(record)
        if len(self._records) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        if not self._records:
            return
        folder = self.out_dir / self.spec.name
        folder.mkdir(exist_ok=True)
        first = self.written
        self.written += len(self._records)
        pq.write_table(self._table(), folder / f"{first:012d}.parquet")
        self._records.clear()

    def _table(self) -> pa.Table:
        columns: dict[str, pa.Array] = {}
        for name in self.spec.schema.names:
            wanted = self.spec.schema.field(name).type
            if name == TIMESTAMP:
                values = [r.timestamp_ms * 1000 for r in self._records]
                columns[name] = pa.array(values, pa.int64()).cast(TIME)
                continue
            values = [getattr(r, name) for r in self._records]
            if name in self.spec.ids:
                columns[name] = self._own_ids(name, values)
            else:
                columns[name] = pa.array(values, pa.string() if pa.types.is_int8(wanted) else wanted)
        return pa.table(columns)

    def _own_ids(self, name: str, values: list[int | None]) -> pa.Array:
        """The data set's ids of lake ids, nulls kept."""
        kind, present = self.spec.ids[name], [v for v in values if v is not None]
        decoded = iter(self.ids.decode_known(kind, present))
        # Typed, since a column of nulls alone would pass for integers.
        wanted = pa.string() if self.ids.form(kind) is IdForm.STRING else pa.int64()
        return pa.array([None if v is None else next(decoded) for v in values], wanted)


def cursors(lake: Lake) -> dict[str, int]:
    """Bytes of each segment that are already in the tables."""
    path = lake.path / CURSORS
    return json.loads(path.read_text()) if path.exists() else {}


def move_cursors(lake: Lake, cursors: dict[str, Any]) -> None:
    """Replace them, atomically."""
    staged = lake.path / f".{CURSORS}.{os.getpid()}.tmp"
    staged.write_text(json.dumps(cursors, indent=1))
    staged.replace(lake.path / CURSORS)


def _keep_unreadable(tables: EventTables, quarantine: Path, ingest_id: str) -> None:
    if tables.unreadable:
        target = quarantine / "events" / f"{ingest_id}.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab") as kept:
            kept.write((tables.folder / UNREADABLE).read_bytes())
