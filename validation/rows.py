"""What each row must be: the checks that put a row through the door or into quarantine, and its lake form.

A row is refused for the first reason found. Three lenient readings are part of the contract: 0 in an optional
id is no id, NaN in an optional number is no number, and zeros in a topic list are its padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from validation.column_rules import (
    VECTORS,
    Rules,
    Verdict,
    checker,
    flat,
    is_text,
    mask,
    points_at_pins,
    relist,
)
from validation.fingerprint import row_hash
from validation.ids import IdMap, hash_ids
from validation.source import LABELS, plain
from validation.tables import (
    ACTION,
    ADS,
    BOARD_ID,
    ENDS_AT,
    EVENT_ID,
    PIN_ID,
    REQUEST_ID,
    STARTS_AT,
    TIMESTAMP,
    TOPIC_ID,
    USER_ID,
    EntityKind,
    Table,
)

IDENTITY = (USER_ID, PIN_ID, ACTION, TIMESTAMP, BOARD_ID, REQUEST_ID)
"""What makes an action without an event_id the same action again; its fingerprint becomes the event_id."""


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


def check(spec: Table, batch: pa.Table, rules: Rules) -> Checked:
    """Puts every row of `batch` (source types, checked by `validation.source`) into one of the two piles.

    New string ids are numbered only for rows that pass.
    """
    verdict = Verdict(batch.num_rows)
    lake: dict[str, pa.Array] = {}
    for name in (n for n in spec.schema.names if n in batch.schema.names):
        column = _decoded(batch.column(name), spec, name)
        required = name in spec.required
        if required:
            verdict.refuse(mask(column.is_null()), f"null {name}")
        lake[name] = checker(spec, name)(verdict, column, name, rules)
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


def _check_together(spec: Table, verdict: Verdict, lake: dict[str, pa.Array]) -> None:
    """Checks over several columns."""
    if spec.name == "follows":
        absent = [mask(lake[c].is_null()) for c in (TOPIC_ID, BOARD_ID) if c in lake]
        if absent:
            verdict.refuse(np.logical_and.reduce(absent), "neither topic_id nor board_id")
    if spec.name == ADS.name:
        verdict.refuse(mask(pc.less(lake[ENDS_AT], lake[STARTS_AT])), "ended before it began")


def _lake_form(spec: Table, columns: dict[str, pa.Array], rows: int, rules: Rules) -> pa.Table:
    """Rows that passed with every lake column: ids as int64, absent columns null, events named."""
    arrays = []
    for field_ in spec.schema:
        column = columns.get(field_.name)
        if column is None:
            column = pa.nulls(rows, field_.type)
        elif field_.name in spec.ids and not points_at_pins(spec, field_.name):
            column = _encoded(column, spec.ids[field_.name], rules.ids)
        elif field_.name in LABELS and is_text(column):
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
        values, parents = flat(column)
        return relist(pa.array(ids.encode(kind, values)), parents, column)
    if column.null_count == 0:
        return pa.array(ids.encode(kind, column))
    present = mask(column.is_valid())
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
