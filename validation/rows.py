"""What each row must be: the checks that put a row through the door or into quarantine, and its lake form.

A row is refused for the first reason found. Three lenient readings are part of the contract: 0 in an optional
id is no id, NaN in an optional number is no number, and zeros in a topic list are its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.events import Reached
from validation.fingerprint import row_hash
from validation.forgotten import Forgotten
from validation.ids import MAX_ID, IdMap, hash_ids
from validation.queries import MAX_QUERY, normal
from validation.settle import contains
from validation.source import LABELS, plain
from validation.tables import (
    ACTION,
    ADS,
    BID,
    BOARD_ID,
    CANDIDATES,
    EARLIEST,
    ENDS_AT,
    EVENT_ID,
    LOGGED,
    PIN_ID,
    PIN_REFERENCES,
    PREDICTED,
    PROPENSITY,
    QUERY,
    QUERY_JUDGEMENTS,
    RELEVANCE,
    REQUEST_ID,
    SCORE,
    STAGE,
    STARTS_AT,
    TIMESTAMP,
    TOPIC_ID,
    USER_ID,
    EntityKind,
    Table,
    Vocabulary,
)

CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead of our clock a timestamp may be."""

IDENTITY = (USER_ID, PIN_ID, ACTION, TIMESTAMP, BOARD_ID, REQUEST_ID)
"""What makes an action without an event_id the same action again; its fingerprint becomes the event_id."""

UNKNOWN_ACTION = "unknown action"

_YEAR_10000 = 253_402_300_800_000_000
"""Unix microseconds."""

VECTORS = ("visual_embedding", "text_embedding")


@dataclass(frozen=True)
class Rules:
    """What the rows of one ingest are measured against."""

    vocabulary: Vocabulary
    latest: datetime
    """The last instant that is not the future."""
    ids: IdMap
    pins: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) int64, sorted: every pin an event may point at."""
    dims: Mapping[str, int] = field(default_factory=dict)
    """Dimension of each vector column."""
    earliest: datetime = EARLIEST
    """The first instant that an action, an impression or a follow may have."""
    forgotten: Forgotten = field(default_factory=Forgotten)
    """Users whose rows stay out, unread."""


@dataclass(frozen=True)
class Checked:
    """One batch after the checks."""

    rows: pa.Table
    """Rows that pass, in lake form and in order."""
    passed: np.ndarray
    """(kept,) int64: their places in the batch."""
    refused: np.ndarray
    """(refused,) int64: places in the batch of the others."""
    reasons: list[str]
    """Why, one for each of `refused`."""


class _Verdict:
    """The first reason against each row of a batch."""

    def __init__(self, rows: int) -> None:
        self._code = np.zeros(rows, np.int16)
        self._reasons: list[str] = []

    def refuse(self, rows: np.ndarray, reason: str) -> None:
        """Refuses the rows where the (n,) bool mask holds, unless they were refused before."""
        if rows.any():
            self._reasons.append(reason)
            self._code[rows & (self._code == 0)] = len(self._reasons)

    def passed(self) -> np.ndarray:
        return np.flatnonzero(self._code == 0)

    def refused(self) -> tuple[np.ndarray, list[str]]:
        places = np.flatnonzero(self._code)
        return places, [self._reasons[c - 1] for c in self._code[places]]


def check(spec: Table, batch: pa.Table, rules: Rules) -> Checked:
    """Puts every row of `batch` (source types, checked by `validation.source`) into one of the two piles.

    New string ids are numbered only for rows that pass.
    """
    verdict = _Verdict(batch.num_rows)
    lake: dict[str, pa.Array] = {}
    for name in (n for n in spec.schema.names if n in batch.schema.names):
        column = _decoded(batch.column(name), spec, name)
        required = name in spec.required
        if required:
            verdict.refuse(_mask(column.is_null()), f"null {name}")
        lake[name] = _checker(spec, name)(verdict, column, name, rules)
    _check_together(spec, verdict, lake)
    passed = verdict.passed()
    take = pa.array(passed)
    if len(passed) < batch.num_rows:
        lake = {name: column.take(take) for name, column in lake.items()}
    refused, reasons = verdict.refused()
    return Checked(_lake_form(spec, lake, len(passed), rules), passed, refused, reasons)


def vector_dims(batch: pa.Table) -> dict[str, int]:
    """The most common length of each vector column in `batch`, shortest first among equals.

    The most common rather than the first: one row too short must not refuse all the others.
    """
    dims: dict[str, int] = {}
    for name in (n for n in VECTORS if n in batch.schema.names):
        column = batch.column(name)
        if pa.types.is_null(column.type):
            continue
        lengths = pc.drop_null(pc.list_value_length(column)).to_numpy()
        counts = np.bincount(lengths[lengths > 0])
        if counts.any():
            dims[name] = int(counts.argmax())
    return dims


_Check = Callable[[_Verdict, pa.Array, str, Rules], pa.Array]


def _checker(spec: Table, name: str) -> _Check:
    """The check of one column, which answers with the column as far as it can be brought before filtering."""
    required = name in spec.required
    if name == "topics":
        return _topics
    if name in VECTORS:
        return _vector
    if name in spec.ids or name in LABELS:
        if _points_at_pins(spec, name):
            return _known_pin
        return _required_id if required else _optional_id
    if name == ACTION:
        return _action
    if name in (STARTS_AT, ENDS_AT):
        return _campaign_time
    if pa.types.is_timestamp(spec.schema.field(name).type):
        return _time
    if pa.types.is_int32(spec.schema.field(name).type):
        return _count
    if name in (PROPENSITY, LOGGED):
        return _chance
    if name == PREDICTED:
        return _probability
    if name in (BID, "daily_budget"):
        return _money
    if name == SCORE:
        return _finite
    if name == RELEVANCE:
        return _grade
    if name == QUERY and spec.name == QUERY_JUDGEMENTS.name:
        return _query
    if name == STAGE and spec.name == CANDIDATES.name:
        return _stage
    if pa.types.is_floating(spec.schema.field(name).type):
        return _not_negative
    return _text


def _points_at_pins(spec: Table, name: str) -> bool:
    """True for pins that must exist, which are looked up while they are checked."""
    return spec.name in PIN_REFERENCES and name == PIN_ID


def _required_id(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    if _is_text(column):
        verdict.refuse(_mask(pc.equal(column, "")), f"empty {name}")
        return column
    column = _to_int64(verdict, column, name)
    verdict.refuse(_mask(pc.less_equal(column, 0)), f"{name} below 1")
    return column


def _optional_id(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    if _is_text(column):
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    column = _to_int64(verdict, column, name)
    verdict.refuse(_mask(pc.less(column, 0)), f"{name} below 1")
    return pc.if_else(pc.equal(column, 0), pa.scalar(None, pa.int64()), column)


def _known_pin(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Pins of events, as lake ids: they point at pins that exist, so none is numbered here."""
    column = _required_id(verdict, column, name, rules)
    if _is_text(column):
        ids = rules.ids.encode(EntityKind.PIN, pc.fill_null(column, ""), assign=False)
    else:
        ids = pc.fill_null(column, 0).to_numpy()
    verdict.refuse(~contains(rules.pins, ids), "unknown pin")
    return pa.array(ids)


def _action(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    places = pc.index_in(column, pa.array(rules.vocabulary.names, column.type))
    verdict.refuse(_mask(places.is_null()), UNKNOWN_ACTION)
    return pc.add(pc.fill_null(places, -1), 1).cast(pa.int8())


def _time(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    # A unit too coarse to fit int64 microseconds wraps around and then fails one of the two bounds.
    column = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    verdict.refuse(micros > int(rules.latest.timestamp() * 1_000_000), f"{name} in the future")
    if name == TIMESTAMP:
        early = micros < int(rules.earliest.timestamp() * 1_000_000)
        verdict.refuse(early, f"{name} before {rules.earliest.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
    else:
        verdict.refuse(micros < 0, f"{name} before 1970")
    return column


def _campaign_time(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """A time that may well lie ahead: campaigns are booked."""
    column = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    verdict.refuse((micros < 0) | (micros >= _YEAR_10000), f"{name} outside 1970 to 9999")
    return column


def _count(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    column = _to_int64(verdict, column, name)
    values = pc.fill_null(column, 0).to_numpy()
    bad = (values < 0) | (values >= 2**31)
    verdict.refuse(bad, f"{name} outside 0 to 2**31 - 1")
    return pa.array(np.where(bad, 0, values).astype(np.int32), mask=_mask(column.is_null()))


def _chance(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = _floats(column)
    verdict.refuse((values <= 0) | (values > 1), f"{name} outside (0, 1]")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _probability(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = _floats(column)
    verdict.refuse((values < 0) | (values > 1), f"{name} outside [0, 1]")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _money(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Micro-currency, kept as float64. NaN is no amount, and not the absence of one either."""
    values = _floats(column)
    given = _mask(column.is_valid())
    verdict.refuse(given & ~np.isfinite(values), f"{name} is not a finite number")
    verdict.refuse(values < 0, f"negative {name}")
    return pa.array(values, mask=~given)


def _not_negative(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = _floats(column)
    verdict.refuse(values < 0, f"negative {name}")
    verdict.refuse(np.isinf(values), f"infinite {name}")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _finite(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = _floats(column)
    verdict.refuse(np.isinf(values), f"infinite {name}")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _grade(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """A required number from 0; NaN is no grade."""
    values = _floats(column)
    given = _mask(column.is_valid())
    verdict.refuse(given & ~np.isfinite(values), f"{name} is not a finite number")
    verdict.refuse(values < 0, f"negative {name}")
    return pa.array(values.astype(np.float32), mask=~given)


def _query(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    typed = column.cast(pa.string())
    encoded = typed.dictionary_encode()
    words = pa.array([None if q is None else normal(q) for q in encoded.dictionary.to_pylist()], pa.string())
    text = words.take(encoded.indices)
    verdict.refuse(_mask(pc.equal(text, "")), f"blank {name}")
    longer = [_mask(pc.greater(pc.utf8_length(form), MAX_QUERY)) for form in (typed, text)]
    verdict.refuse(longer[0] | longer[1], f"{name} longer than {MAX_QUERY} characters")
    return text


def _stage(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    column = column.cast(pa.string())
    known = pc.is_in(column, pa.array([stage.value for stage in Reached]))
    verdict.refuse(~_mask(known), f"unknown {name}")
    return column


def _text(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    return column.cast(pa.string())


def _topics(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Topic lists without their zero padding; a null list stays null."""
    values, parents = _flat(column)
    if _is_text(values):
        bad = _mask(pc.fill_null(pc.equal(values, ""), True))
        padding = np.zeros(len(values), bool)
    else:
        values = _to_int64(None, values, name)
        numbers = pc.fill_null(values, -1).to_numpy()
        bad, padding = numbers < 0, numbers == 0
    rows = np.zeros(len(column), bool)
    rows[parents[bad]] = True
    verdict.refuse(rows, f"{name} holds an id below 1, null or empty")
    keep = ~(bad | padding)
    return _relist(values.take(pa.array(np.flatnonzero(keep))), parents[keep], column)


def _vector(verdict: _Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    lengths = pc.list_value_length(column)
    if name in rules.dims:
        wrong = _mask(pc.not_equal(lengths, rules.dims[name]))
        verdict.refuse(wrong, f"{name} is not of dimension {rules.dims[name]}")
    values, parents = _flat(column)
    numbers = pc.fill_null(values.cast(pa.float32(), safe=False), np.nan).to_numpy()
    rows = np.zeros(len(column), bool)
    rows[parents[~np.isfinite(numbers)]] = True
    verdict.refuse(rows, f"{name} holds NaN or infinity")
    return _relist(pa.array(numbers), parents, column)


def _check_together(spec: Table, verdict: _Verdict, lake: dict[str, pa.Array]) -> None:
    """Checks over several columns."""
    if spec.name == "follows":
        absent = [_mask(lake[c].is_null()) for c in (TOPIC_ID, BOARD_ID) if c in lake]
        if absent:
            verdict.refuse(np.logical_and.reduce(absent), "neither topic_id nor board_id")
    if spec.name == ADS.name:
        verdict.refuse(_mask(pc.less(lake[ENDS_AT], lake[STARTS_AT])), "ended before it began")


def _lake_form(spec: Table, columns: dict[str, pa.Array], rows: int, rules: Rules) -> pa.Table:
    """Rows that passed with every lake column: ids as int64, absent columns null, events named."""
    arrays = []
    for field_ in spec.schema:
        column = columns.get(field_.name)
        if column is None:
            column = pa.nulls(rows, field_.type)
        elif field_.name in spec.ids and not _points_at_pins(spec, field_.name):
            column = _encoded(column, spec.ids[field_.name], rules.ids)
        elif field_.name in LABELS and _is_text(column):
            column = _hashed(column)
        arrays.append(column.cast(field_.type))
    # Nullable for now: event ids are filled in below.
    table = pa.Table.from_arrays(arrays, schema=pa.schema([f.with_nullable(True) for f in spec.schema]))
    if EVENT_ID in spec.schema.names:
        own = pa.array(np.maximum((row_hash(table, IDENTITY) >> np.uint64(1)).astype(np.int64), 1))
        named = pc.coalesce(table.column(EVENT_ID), own)
        table = table.set_column(table.schema.get_field_index(EVENT_ID), EVENT_ID, named)
    return table.cast(spec.schema)


def _encoded(column: pa.Array, kind: EntityKind, ids: IdMap) -> pa.Array:
    """Ids of the data set -> lake ids, nulls and lists kept."""
    if pa.types.is_list(column.type):
        values, parents = _flat(column)
        return _relist(pa.array(ids.encode(kind, values)), parents, column)
    if column.null_count == 0:
        return pa.array(ids.encode(kind, column))
    present = _mask(column.is_valid())
    numbers = np.zeros(len(column), np.int64)
    numbers[present] = ids.encode(kind, column.drop_null())
    return pa.array(numbers, mask=~present)


def _hashed(column: pa.Array) -> pa.Array:
    encoded = column.dictionary_encode()
    numbers = pa.array(hash_ids(encoded.dictionary.to_pylist()), pa.int64())
    return numbers.take(encoded.indices)


def _decoded(column: pa.ChunkedArray, spec: Table, name: str) -> pa.Array:
    """One array of plain type; lists become variable lists of plain values, a column of nulls its lake type."""
    array = column.combine_chunks()
    found = plain(array.type)
    if pa.types.is_null(found):
        return pa.nulls(len(array), pa.string() if name == ACTION else spec.schema.field(name).type)
    if pa.types.is_fixed_size_list(found) or pa.types.is_large_list(found):
        found = pa.list_(found.value_type)
    if pa.types.is_list(found):
        return array.cast(pa.list_(_small_text(plain(found.value_type))))
    return array.cast(_small_text(found))


def _small_text(found: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    return found


def _flat(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Elements of every list, and the row each belongs to.

    Not by list_parent_indices, which counts elements that stand behind a null; list_flatten leaves them out.
    """
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return pc.list_flatten(column), np.repeat(np.arange(len(column)), lengths)


def _relist(values: pa.Array, parents: np.ndarray, column: pa.Array) -> pa.Array:
    """Lists of `values`, grouped by ascending `parents`; null where `column` is null."""
    counts = np.bincount(parents, minlength=len(column))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    mask = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(offsets, values, mask=mask)


def _to_int64(verdict: _Verdict | None, column: pa.Array, name: str) -> pa.Array:
    """int64 of any integer type; unsigned numbers beyond int64 are refused (lists: turned into -1)."""
    if column.type == pa.uint64():
        huge = _mask(pc.greater(column, pa.scalar(MAX_ID, pa.uint64())))
        if huge.any():
            if verdict is not None:
                verdict.refuse(huge, f"{name} above 2**63 - 1")
            return pa.array(np.where(huge, -1, pc.fill_null(column, 0).to_numpy().astype(np.int64)))
    return column.cast(pa.int64())


def _floats(column: pa.Array) -> np.ndarray:
    """(n,) float64, NaN where null."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _mask(condition: pa.Array) -> np.ndarray:
    """A condition as (n,) bool, False where it is null."""
    return pc.fill_null(condition, False).to_numpy(zero_copy_only=False)


def _is_text(column: pa.Array) -> bool:
    return pa.types.is_string(column.type)
