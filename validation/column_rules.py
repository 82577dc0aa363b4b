"""What each value of a row must be: a check a column, by the type and the name of the column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.events import Reached
from validation.forgotten import Forgotten
from validation.ids import MAX_ID, IdMap
from validation.queries import MAX_QUERY, normal
from validation.settle import contains
from validation.source import LABELS
from validation.tables import (
    ACTION,
    BID,
    CANDIDATES,
    EARLIEST,
    ENDS_AT,
    LOGGED,
    PIN_ID,
    PIN_REFERENCES,
    PREDICTED,
    PROPENSITY,
    QUERY,
    QUERY_JUDGEMENTS,
    RELEVANCE,
    SCORE,
    STAGE,
    STARTS_AT,
    TIMESTAMP,
    EntityKind,
    Table,
    Vocabulary,
)

CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead of our clock a timestamp may be."""

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


class Verdict:
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


Check = Callable[[Verdict, pa.Array, str, Rules], pa.Array]


def checker(spec: Table, name: str) -> Check:
    """The check of one column, which answers with the column as far as it can be brought before filtering."""
    required = name in spec.required
    if name == "topics":
        return _topics
    if name in VECTORS:
        return _vector
    if name in spec.ids or name in LABELS:
        if points_at_pins(spec, name):
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


def points_at_pins(spec: Table, name: str) -> bool:
    """True for pins that must exist, which are looked up while they are checked."""
    return spec.name in PIN_REFERENCES and name == PIN_ID


def _required_id(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    if is_text(column):
        verdict.refuse(mask(pc.equal(column, "")), f"empty {name}")
        return column
    column = to_int64(verdict, column, name)
    verdict.refuse(mask(pc.less_equal(column, 0)), f"{name} below 1")
    return column


def _optional_id(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    if is_text(column):
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, column.type), column)
    column = to_int64(verdict, column, name)
    verdict.refuse(mask(pc.less(column, 0)), f"{name} below 1")
    return pc.if_else(pc.equal(column, 0), pa.scalar(None, pa.int64()), column)


def _known_pin(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Pins of events, as lake ids: they point at pins that exist, so none is numbered here."""
    column = _required_id(verdict, column, name, rules)
    if is_text(column):
        ids = rules.ids.encode(EntityKind.PIN, pc.fill_null(column, ""), assign=False)
    else:
        ids = pc.fill_null(column, 0).to_numpy()
    verdict.refuse(~contains(rules.pins, ids), "unknown pin")
    return pa.array(ids)


def _action(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    places = pc.index_in(column, pa.array(rules.vocabulary.names, column.type))
    verdict.refuse(mask(places.is_null()), UNKNOWN_ACTION)
    return pc.add(pc.fill_null(places, -1), 1).cast(pa.int8())


def _time(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
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


def _campaign_time(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """A time that may well lie ahead: campaigns are booked."""
    column = column.cast(pa.timestamp("us", tz="UTC"), safe=False)
    micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy()
    verdict.refuse((micros < 0) | (micros >= _YEAR_10000), f"{name} outside 1970 to 9999")
    return column


def _count(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    column = to_int64(verdict, column, name)
    values = pc.fill_null(column, 0).to_numpy()
    bad = (values < 0) | (values >= 2**31)
    verdict.refuse(bad, f"{name} outside 0 to 2**31 - 1")
    return pa.array(np.where(bad, 0, values).astype(np.int32), mask=mask(column.is_null()))


def _chance(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = floats(column)
    verdict.refuse((values <= 0) | (values > 1), f"{name} outside (0, 1]")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _probability(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = floats(column)
    verdict.refuse((values < 0) | (values > 1), f"{name} outside [0, 1]")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _money(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Micro-currency, kept as float64. NaN is no amount, and not the absence of one either."""
    values, given = _finite_from_0(verdict, column, name)
    return pa.array(values, mask=~given)


def _not_negative(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = floats(column)
    verdict.refuse(values < 0, f"negative {name}")
    verdict.refuse(np.isinf(values), f"infinite {name}")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _finite(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    values = floats(column)
    verdict.refuse(np.isinf(values), f"infinite {name}")
    return pa.array(values.astype(np.float32), from_pandas=True)


def _grade(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """A required number from 0; NaN is no grade."""
    values, given = _finite_from_0(verdict, column, name)
    return pa.array(values.astype(np.float32), mask=~given)


def _finite_from_0(verdict: Verdict, column: pa.Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, (n,) float64, and which are given, (n,) bool; those given that are not finite, NaN among
    them, or negative are refused."""
    values = floats(column)
    given = mask(column.is_valid())
    verdict.refuse(given & ~np.isfinite(values), f"{name} is not a finite number")
    verdict.refuse(values < 0, f"negative {name}")
    return values, given


def _query(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    typed = column.cast(pa.string())
    encoded = typed.dictionary_encode()
    words = pa.array([None if q is None else normal(q) for q in encoded.dictionary.to_pylist()], pa.string())
    text = words.take(encoded.indices)
    verdict.refuse(mask(pc.equal(text, "")), f"blank {name}")
    longer = [mask(pc.greater(pc.utf8_length(form), MAX_QUERY)) for form in (typed, text)]
    verdict.refuse(longer[0] | longer[1], f"{name} longer than {MAX_QUERY} characters")
    return text


def _stage(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    column = column.cast(pa.string())
    known = pc.is_in(column, pa.array([stage.value for stage in Reached]))
    verdict.refuse(~mask(known), f"unknown {name}")
    return column


def _text(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    return column.cast(pa.string())


def _topics(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    """Topic lists without their zero padding; a null list stays null."""
    values, parents = flat(column)
    if is_text(values):
        bad = mask(pc.fill_null(pc.equal(values, ""), True))
        padding = np.zeros(len(values), bool)
    else:
        values = to_int64(None, values, name)
        numbers = pc.fill_null(values, -1).to_numpy()
        bad, padding = numbers < 0, numbers == 0
    rows = np.zeros(len(column), bool)
    rows[parents[bad]] = True
    verdict.refuse(rows, f"{name} holds an id below 1, null or empty")
    keep = ~(bad | padding)
    return relist(values.take(pa.array(np.flatnonzero(keep))), parents[keep], column)


def _vector(verdict: Verdict, column: pa.Array, name: str, rules: Rules) -> pa.Array:
    lengths = pc.list_value_length(column)
    if name in rules.dims:
        wrong = mask(pc.not_equal(lengths, rules.dims[name]))
        verdict.refuse(wrong, f"{name} is not of dimension {rules.dims[name]}")
    values, parents = flat(column)
    numbers = pc.fill_null(values.cast(pa.float32(), safe=False), np.nan).to_numpy()
    rows = np.zeros(len(column), bool)
    rows[parents[~np.isfinite(numbers)]] = True
    verdict.refuse(rows, f"{name} holds NaN or infinity")
    return relist(pa.array(numbers), parents, column)


def flat(column: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Elements of every list, and the row each belongs to.

    Not by list_parent_indices, which counts elements that stand behind a null; list_flatten leaves them out.
    """
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    return pc.list_flatten(column), np.repeat(np.arange(len(column)), lengths)


def relist(values: pa.Array, parents: np.ndarray, column: pa.Array) -> pa.Array:
    """Lists of `values`, grouped by ascending `parents`; null where `column` is null."""
    counts = np.bincount(parents, minlength=len(column))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    absent = column.is_null() if column.null_count else None
    return pa.ListArray.from_arrays(offsets, values, mask=absent)


def to_int64(verdict: Verdict | None, column: pa.Array, name: str) -> pa.Array:
    """int64 of any integer type; unsigned numbers beyond int64 are refused (lists: turned into -1)."""
    if column.type == pa.uint64():
        huge = mask(pc.greater(column, pa.scalar(MAX_ID, pa.uint64())))
        if huge.any():
            if verdict is not None:
                verdict.refuse(huge, f"{name} above 2**63 - 1")
            return pa.array(np.where(huge, -1, pc.fill_null(column, 0).to_numpy().astype(np.int64)))
    return column.cast(pa.int64())


def floats(column: pa.Array) -> np.ndarray:
    """(n,) float64, NaN where null."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def mask(condition: pa.Array) -> np.ndarray:
    """A condition as (n,) bool, False where it is null."""
    return pc.fill_null(condition, False).to_numpy(zero_copy_only=False)


def is_text(column: pa.Array) -> bool:
    return pa.types.is_string(column.type)
