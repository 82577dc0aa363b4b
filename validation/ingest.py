"""The door: a folder of contract tables in, the lake, the quarantine and a report out.

An ingest stages everything first (row checks, `rows.py`), settles it against the lake (`settle.py`), runs
the checkpoint, and only then writes: an ingest that is refused leaves the lake as it was. One that is killed
while writing leaves whole files of one state or the other, and the same ingest again completes it.

Memory: one batch of rows, three numbers (24 bytes) for every staged row while duplicates are settled,
and one UTC day of one table while it is written.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from itertools import chain, count
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from validation import report
from validation.column_rules import CLOCK_SKEW, UNKNOWN_ACTION, Rules
from validation.errors import BadContractFile, CheckpointFailed, EmptyTable, IngestBusy, MissingTable, MixedIds
from validation.forgotten import Forgotten
from validation.frames import Flow, Inspection, Known, frame
from validation.ids import IdForm, IdFormError, IdMap
from validation.lake import Lake
from validation.merge import Verdicts, commit, conflicts, entering_sample, weigh
from validation.outcome import CheckpointOutcome, IngestReport, TableOutcome
from validation.quarantine import Quarantine
from validation.rows import vector_dims
from validation.settle import Status
from validation.source import CONTRACT_FILE, Source, SourceTable, open_source
from validation.staging import Spool, Staged, stage
from validation.tables import (
    ACTION,
    ACTIONS,
    BOARDS,
    PIN_REFERENCES,
    PINS,
    REQUIRED_TABLES,
    TABLES,
    TIMESTAMP,
    TOPICS,
    USERS,
    Contract,
    Vocabulary,
)

Progress = Callable[[str], None]

DATA_DOCS = "data_docs"
"""Folder of the Data Docs inside the reports folder."""


MIX_DAYS = 7
"""Days of the lake with which the mix of incoming actions is compared."""


def silent(line: str) -> None:
    """Progress that goes nowhere."""


def ingest(
    source: Path,
    lake: Path,
    quarantine: Path,
    reports: Path,
    *,
    now: datetime | None = None,
    progress: Progress = silent,
    checkpoint: bool = True,
) -> IngestReport:
    """Brings the tables of `source` into `lake`; again with new rows adds just those.

    Killed at any step it leaves a lake that can be read, each file of it whole, as before or as after; run
    again on the same source, it leaves what an undisturbed run would have left.

    Parameters
    ----------
    source: folder of `<table>.parquet` files or `<table>/` folders, with an optional `contract.yaml`.
    now: zoned; timestamps more than five minutes after it are the future. The clock's time by default.
    progress: called with one line of text at a time.
    checkpoint: False leaves out Great Expectations (and its seven seconds of import); the row checks remain.

    Raises
    ------
    ContractError
        One of its subclasses, where the source as a whole is refused; nothing has entered then. Rows that are
        refused one by one raise nothing: they are in `quarantine` with their reason, and counted.
    """
    started = datetime.now(UTC)
    clock = time.monotonic()
    now = (now or started).astimezone(UTC)
    door = Lake(lake)
    opened = open_source(Path(source))
    with alone(door), _staging(door) as spool:
        name = _name(started, Path(reports))
        _present(door, opened)
        contract = _contract(door, opened)
        ids = door.id_map()
        ids.hold_forms()
        with Quarantine(Path(quarantine), name) as refused:
            staged = _stage(door, opened, contract, now, ids, spool, refused, progress)
            verdicts = {table: weigh(door, s) for table, s in staged.items()}
            for verdict in verdicts.values():
                _refuse_conflicts(verdict, refused)
            _not_empty(door, opened, verdicts, refused, contract)
            outcome = None
            if checkpoint:
                progress("Checking what is about to enter")
                outcome = _checkpoint(door, verdicts, contract, now, Path(reports) / DATA_DOCS)
            # Before the first row: an ingest killed while writing has rows of these forms in the lake.
            _settle_forms(ids)
            for table, verdict in verdicts.items():
                progress(f"Writing {table}: {verdict.count(Status.NEW):,} new rows")
                commit(door, verdict)
            door.write_contract(contract)
    answer = IngestReport(
        id=name,
        source=Path(source).resolve(),
        lake=door.path,
        started_at=started,
        seconds=round(time.monotonic() - clock, 3),
        tables={table: _outcome(door, verdict, refused) for table, verdict in verdicts.items()},
        absent=tuple(t for t in TABLES if t not in verdicts and not door.has(t)),
        unknown=opened.unknown,
        checkpoint=outcome,
        actions_by_day=_actions_by_day(door),
        page=Path(reports) / f"ingest-{name}.html",
    )
    report.write(answer, refused.examples)
    return answer


@contextmanager
def alone(lake: Lake, lock_file: str = ".lock") -> Iterator[None]:
    """Holds a lock of the lake; raises IngestBusy where another process does."""
    lake.path.mkdir(parents=True, exist_ok=True)
    with (lake.path / lock_file).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IngestBusy(f"another ingest is writing to {lake.path}; try again when it is done") from error
        yield


@contextmanager
def _staging(lake: Lake) -> Iterator[Spool]:
    """An empty spool on the lake's own disk, gone afterwards; what a killed ingest left goes first."""
    folder = lake.path / ".staging"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield Spool(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name(started: datetime, reports: Path) -> str:
    """A name no earlier ingest has: the second it started, and a number where that is taken."""
    stem = started.strftime("%Y%m%dT%H%M%SZ")
    names = chain([stem], (f"{stem}-{n}" for n in count(2)))
    return next(n for n in names if not (reports / f"ingest-{n}.html").exists())


def _contract(lake: Lake, source: Source) -> Contract:
    """What holds for this ingest and from then on: the lake's contract, and what the source adds to it.

    Raises BadContractFile where the source's vocabulary is not the lake's, or that with more actions after
    it, and MixedIds where ids come in another form than the lake has them in.
    """
    known = lake.contract() if lake.exists() else Contract()
    ids = lake.id_map()
    for kind, form in source.forms.items():
        if ids.form(kind) not in (None, form):
            raise MixedIds(
                f"{source.folder}: {kind.value} ids are {form.value}s, the lake has them as "
                f"{ids.form(kind)}s; bring them in that form"
            )
    declared = source.contract or known
    if lake.exists():
        before, after = (list(c.vocabulary.actions.items()) for c in (known, declared))
        if after[: len(before)] != before:
            raise BadContractFile(
                f"{source.folder}: the vocabulary ({_words(after)}) does not begin with the lake's "
                f"({_words(before)}); new actions may only be appended"
            )
    strings = {kind for kind, form in source.forms.items() if form is IdForm.STRING}
    return declared.model_copy(
        update={
            "string_ids": known.string_ids | strings,
            "vector_dims": {**_source_dims(source), **known.vector_dims},
        }
    )


def _words(actions: list) -> str:
    return ", ".join(f"{name} {polarity}" for name, polarity in actions)


def _source_dims(source: Source) -> dict[str, int]:
    """Dimension of the source's vector columns, by its first batch of pins that has any."""
    dims: dict[str, int] = {}
    if PINS.name in source.tables:
        for _, _, batch in source.tables[PINS.name].batches():
            for name, dim in vector_dims(batch).items():
                dims.setdefault(name, dim)
            if dims:
                break
    return dims


def _stage(
    lake: Lake,
    source: Source,
    contract: Contract,
    now: datetime,
    ids: IdMap,
    spool: Spool,
    quarantine: Quarantine,
    progress: Progress,
) -> dict[str, Staged]:
    """Every table of the source after its row checks, in the order of the door."""
    pins = np.zeros(0, np.int64)
    staged: dict[str, Staged] = {}
    for name, table in source.tables.items():
        progress(f"Reading {name}: {table.rows:,} rows")
        if name in PIN_REFERENCES and not len(pins):
            pins = _all_keys(lake, staged, PINS.name)
        rules = Rules(
            contract.vocabulary,
            latest=now + CLOCK_SKEW,
            ids=ids,
            pins=pins,
            dims=contract.vector_dims,
            earliest=contract.earliest,
            forgotten=Forgotten.of(lake.path),
        )
        try:
            staged[name] = stage(table, rules, spool, quarantine)
        except IdFormError as error:
            raise MixedIds(f"{name}: {error}") from error
        if staged[name].forgotten:
            progress(f"{name}: {staged[name].forgotten:,} rows of forgotten users are dropped")
    return staged


def _settle_forms(ids: IdMap) -> None:
    try:
        ids.settle_forms()
    except IdFormError as error:
        raise MixedIds(f"nothing entered: {error}") from error


def _present(lake: Lake, source: Source) -> None:
    for name in REQUIRED_TABLES:
        table = source.tables.get(name)
        if table is None and not lake.has(name):
            raise MissingTable(
                f"{source.folder} has no {name}; every data set needs {' and '.join(REQUIRED_TABLES)}"
            )
        if table is not None and table.rows == 0:
            raise EmptyTable(f"{source.folder}: {name} has no rows; leave the table out or fill it")


def _not_empty(
    lake: Lake, source: Source, verdicts: dict[str, Verdicts], quarantine: Quarantine, contract: Contract
) -> None:
    """A needed table of which every row was refused is refused as a whole, unless the lake has one."""
    for name in REQUIRED_TABLES:
        if name in verdicts and not lake.has(name) and not verdicts[name].count(Status.NEW):
            reasons = quarantine.counts[name].most_common(3)
            why = ", ".join(f"{reason} ({n})" for reason, n in reasons)
            hints = "".join(_hint(reason, source.tables[name], contract) for reason, _ in reasons)
            raise EmptyTable(
                f"{source.folder}: all {source.tables[name].rows} rows of {name} are refused: {why}{hints}"
            )


def _hint(reason: str, table: SourceTable, contract: Contract) -> str:
    """How to mend a reason that contract.yaml decides; empty for the others."""
    if reason == UNKNOWN_ACTION:
        allowed = contract.vocabulary.names
        found = _unknown_actions(table, allowed)
        return (
            f"; found {', '.join(map(repr, found))}, allowed are {', '.join(allowed)}: "
            f"name the data set's own actions under vocabulary.actions in {CONTRACT_FILE}"
        )
    if reason.startswith(f"{TIMESTAMP} before"):
        return f"; set `earliest` in {CONTRACT_FILE} where the data is truly that old"
    return ""


def _unknown_actions(table: SourceTable, allowed: tuple[str, ...], most: int = 5) -> list[str]:
    """The first few names outside the vocabulary, in order of appearance."""
    found: dict[str, None] = {}
    for _, _, batch in table.batches():
        names = pc.unique(batch.column(ACTION)).to_pylist()
        found.update(dict.fromkeys(n for n in names if n is not None and n not in allowed))
        if len(found) >= most:
            break
    return list(found)[:most]


def _all_keys(lake: Lake, staged: dict[str, Staged], table: str) -> np.ndarray:
    """(n,) int64, sorted: ids of an entity table in the lake and on their way in."""
    spec = TABLES[table]
    parts = [pq.read_table(f, columns=list(spec.key)).column(0).to_numpy() for f in lake.files(table)]
    if table in staged:
        parts.append(staged[table].keys)
    # Sorted with repeats: numpy's unique is ten times dearer and nothing here minds them.
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


def _checkpoint(
    lake: Lake, verdicts: dict[str, Verdicts], contract: Contract, now: datetime, docs: Path
) -> CheckpointOutcome:
    """Runs the suites over samples of what is about to enter. Raises CheckpointFailed naming what failed."""
    from validation.checkpoint import run

    staged = {name: v.staged for name, v in verdicts.items()}
    known = Known(
        **{
            field: _all_keys(lake, staged, table)
            for field, table in (("topics", TOPICS.name), ("boards", BOARDS.name), ("users", USERS.name))
            if table in staged or lake.has(table)
        }
    )
    samples = {}
    for name, verdict in verdicts.items():
        rows = entering_sample(verdict)
        if rows.num_rows:
            key = TABLES[name].key[0] if len(TABLES[name].key) == 1 else None
            samples[name] = frame(rows, contract.vocabulary, known, key)
    flows = {name: _flow(verdict) for name, verdict in verdicts.items()}
    mix = _action_mix(lake, contract.vocabulary)
    outcome = run(Inspection(samples, flows, mix), contract, now, docs)
    if outcome.stopping:
        failed = "; ".join(
            f"{e.sentence()}, found {e.exception or e.observed or f'{e.unexpected_percent} % unexpected'}"
            for e in outcome.stopping
        )
        raise CheckpointFailed(f"nothing entered: {failed}; see {outcome.docs}")
    return outcome


def _refuse_conflicts(verdict: Verdicts, quarantine: Quarantine) -> None:
    """Sends rows that share a key with a row that stays to quarantine, as they came."""
    reason = f"duplicate {' + '.join(verdict.staged.source.spec.key)}"
    for first, path, batch, places in conflicts(verdict):
        quarantine.add(verdict.staged.source, path, batch, first, places, [reason] * len(places))


def _flow(verdict: Verdicts) -> Flow:
    entering = verdict.count(Status.NEW) + verdict.count(Status.UPDATED)
    duplicate = verdict.count(Status.DUPLICATE)
    read = len(verdict.status)
    return Flow(read=read, entering=entering, duplicate=duplicate, refused=read - entering - duplicate)


def _outcome(lake: Lake, verdict: Verdicts, quarantine: Quarantine) -> TableOutcome:
    table = verdict.staged.source
    name = table.spec.name
    reasons = quarantine.counts.get(name)
    return TableOutcome(
        read=table.rows,
        new=verdict.count(Status.NEW),
        updated=verdict.count(Status.UPDATED),
        duplicate=verdict.count(Status.DUPLICATE),
        quarantined=dict(reasons.most_common()) if reasons else {},
        quarantine=quarantine.path(name) if reasons else None,
        unused_columns=table.unused,
        lake_rows=lake.rows(name),
    )


def _action_mix(lake: Lake, vocabulary: Vocabulary) -> dict[str, float]:
    """Share of each action over the lake's last days."""
    files = lake.files(ACTIONS.name)[-MIX_DAYS:]
    codes = [pq.read_table(f, columns=[ACTION]).column(0).to_numpy() for f in files]
    counts = np.bincount(np.concatenate(codes)) if codes else np.zeros(0, np.int64)
    return {vocabulary.name(c): float(counts[c] / counts.sum()) for c in np.flatnonzero(counts)}


def _actions_by_day(lake: Lake) -> dict[date, int]:
    name = ACTIONS.name
    return {day: pq.read_metadata(lake.file(name, day)).num_rows for day in lake.days(name)}
