"""The expectation suites over what stands in the lake, on the days that a release was made of.

The door asks the same of rows that enter. Here everything is asked again of the whole: entity tables as they
are by now, events of every day, and the mix of actions of the newest days against that of the days before.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from validation.frames import Inspection, Known, frame
from validation.lake import Lake
from validation.manifest import DataChecks
from validation.staging import SAMPLE_ROWS
from validation.tables import ACTION, ACTIONS, BOARDS, TABLES, TIMESTAMP, TOPICS, USERS, Table, Vocabulary

NEWEST_DAYS = 7
"""Days whose mix of actions is held against that of the days before."""


def check_lake(lake: Lake, start: datetime, end: datetime) -> DataChecks:
    """Every expectation on the rows of [start, end), at most `SAMPLE_ROWS` of a table, evenly spaced.

    Imports Great Expectations, which takes seconds. Failed expectations are part of the answer, not errors;
    what lies outside the interval is not looked at. Raises LakeError before the first ingest.
    """
    from validation.checkpoint import run

    contract = lake.contract()
    known = Known(
        **{
            field: _keys(lake, table)
            for field, table in (("topics", TOPICS), ("boards", BOARDS), ("users", USERS))
            if lake.has(table.name)
        }
    )
    samples = {}
    for name in filter(lake.has, TABLES):
        spec = TABLES[name]
        rows = _sample(lake, spec, start, end)
        if rows.num_rows:
            key = spec.key[0] if len(spec.key) == 1 else None
            samples[name] = frame(rows, contract.vocabulary, known, key)
    outcome = run(Inspection(samples), contract, end, None)
    newest = max(start, end - timedelta(days=NEWEST_DAYS))
    before = _mix(lake, contract.vocabulary, start, newest)
    recent = _sample(lake, ACTIONS, newest, end)
    expectations = list(outcome.expectations)
    if before and recent.num_rows:
        of_late = {ACTIONS.name: frame(recent, contract.vocabulary, known)}
        again = run(Inspection(of_late, action_mix=before, mix_stops=True), contract, end, None).expectations
        expectations += [e for e in again if "divergence" in e.expectation]
    return DataChecks(
        expectations=len(expectations),
        rows=outcome.rows,
        failed=tuple(e.sentence() for e in expectations if e.stops),
        warnings=tuple(e.sentence() for e in expectations if not e.success and not e.stops),
    )


def _sample(lake: Lake, spec: Table, start: datetime, end: datetime) -> pa.Table:
    """Every so manieth row of the table, of an event table those inside the interval."""
    scanner = lake.scan(spec.name, *((start, end) if spec.by_day else (None, None)))
    stride = max(1, -(-lake.rows(spec.name) // SAMPLE_ROWS))
    taken, first = [], 0
    for batch in scanner.to_batches():
        places = np.arange(-first % stride, batch.num_rows, stride)
        taken.append(batch.take(pa.array(places)))
        first += batch.num_rows
    return pa.Table.from_batches(taken, schema=scanner.projected_schema)


def _keys(lake: Lake, spec: Table) -> np.ndarray:
    """(n,) int64 sorted ids of an entity table."""
    columns = [pq.read_table(f, columns=[spec.key[0]]).column(0).to_numpy() for f in lake.files(spec.name)]
    return np.sort(np.concatenate(columns))


def _mix(lake: Lake, vocabulary: Vocabulary, start: datetime, end: datetime) -> dict[str, float]:
    """Share of each action in the interval; empty where it has none."""
    codes = lake.read(ACTIONS.name, [ACTION, TIMESTAMP], start, end)[ACTION].to_numpy()
    counts = np.bincount(codes)
    return {vocabulary.name(c): float(counts[c] / counts.sum()) for c in np.flatnonzero(counts)}
