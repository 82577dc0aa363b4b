"""64-bit fingerprints of rows, equal exactly where the rows are (up to chance, 2**-64 a pair).

Fingerprints are kept in lakes, as the `event_id` of events that came without one: the arithmetic below is
part of the lake's format.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1
_NULL = np.uint64(0x6E756C6C6E756C6C)


def row_hash(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Fingerprints of the rows over `columns`, in that order: (n,) uint64.

    Takes integers, floats, booleans, timestamps, strings, and lists of these. An absent column counts as null.
    """
    total = np.zeros(table.num_rows, np.uint64)
    for place, name in enumerate(columns, start=1):
        if name in table.schema.names:
            column = _column_hash(table.column(name).combine_chunks())
        else:
            column = np.full(table.num_rows, _NULL)
        total = _mix(total + column + np.uint64(_GOLDEN * place & _WORD))
    return total


def key_of(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """One int64 a row, equal where all of `columns` are: (n,). A single int64 column is its own key."""
    if len(columns) == 1 and pa.types.is_int64(table.schema.field(columns[0]).type):
        return table.column(columns[0]).to_numpy()
    return row_hash(table, columns).view(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _column_hash(column: pa.Array) -> np.ndarray:
    if pa.types.is_list(column.type):
        return _list_hash(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _string_hash(column)
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        # Adding 0.0 turns -0.0 into 0.0; the two are equal and must hash alike.
        bits = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False) + 0.0
        values = bits.view(np.uint64)
    else:
        integers = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
        values = pc.fill_null(integers.cast(pa.int64()), 0).to_numpy(zero_copy_only=False).view(np.uint64)
    return np.where(nulls, _NULL, _mix(values))


def _string_hash(column: pa.Array) -> np.ndarray:
    encoded = column.dictionary_encode()
    words = pd.util.hash_array(np.asarray(encoded.dictionary.to_pylist(), dtype=object), categorize=False)
    hashed = np.full(len(column), _NULL)
    present = column.is_valid().to_numpy(zero_copy_only=False)
    hashed[present] = _mix(words)[pc.drop_null(encoded.indices).to_numpy()]
    return hashed


def _list_hash(column: pa.Array) -> np.ndarray:
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    values = _column_hash(pc.list_flatten(column))
    elements = _mix(values + np.uint64(_GOLDEN) * (places.astype(np.uint64) + np.uint64(1)))
    # Sums of each list by differences of the running sum; both wrap around alike.
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(elements, dtype=np.uint64)])
    sums = running[ends] - running[ends - lengths]
    return np.where(nulls, _NULL, _mix(sums + _mix(lengths.astype(np.uint64))))
