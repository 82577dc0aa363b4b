"""Row fingerprints: equal for equal rows, whatever the batches, and stable over time."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.fingerprint import key_of, row_hash

_VALUES = st.fixed_dictionaries(
    {
        "i": st.one_of(st.none(), st.integers(-3, 3)),
        "s": st.one_of(st.none(), st.sampled_from(["", "a", "b"])),
        "f": st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5])),
        "l": st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(0, 2)), max_size=3)),
    }
)
_SCHEMA = pa.schema([("i", pa.int64()), ("s", pa.string()), ("f", pa.float32()), ("l", pa.list_(pa.int64()))])


@settings(max_examples=40, deadline=None)
@given(st.lists(_VALUES, min_size=1, max_size=30))
def test_rows_are_equal_exactly_where_their_fingerprints_are(rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows, _SCHEMA)
    hashes = row_hash(table, _SCHEMA.names).tolist()
    bodies = [(r["i"], r["s"], r["f"], None if r["l"] is None else tuple(r["l"])) for r in rows]
    for one, mine in zip(bodies, hashes, strict=True):
        for other, theirs in zip(bodies, hashes, strict=True):
            assert (one == other) == (mine == theirs)


@settings(max_examples=40, deadline=None)
@given(st.lists(_VALUES, min_size=2, max_size=30), st.data())
def test_a_row_hashes_alike_in_any_batch(rows: list[dict], data: st.DataObject) -> None:
    table = pa.Table.from_pylist(rows, _SCHEMA)
    cut = data.draw(st.integers(1, len(rows) - 1))
    whole = row_hash(table, _SCHEMA.names).tolist()
    parts = [row_hash(table.slice(0, cut), _SCHEMA.names), row_hash(table.slice(cut), _SCHEMA.names)]
    assert whole == [h for part in parts for h in part.tolist()]


def test_the_order_of_columns_matters() -> None:
    table = pa.table({"a": [1, 2], "b": [2, 1]})
    one, other = row_hash(table, ["a", "b"]).tolist()
    assert one != other


def test_an_absent_column_is_a_null_one() -> None:
    without = pa.table({"a": [1]})
    with_null = pa.table({"a": [1], "b": pa.array([None], pa.string())})
    assert row_hash(without, ["a", "b"]).tolist() == row_hash(with_null, ["a", "b"]).tolist()


def test_the_arithmetic_is_part_of_the_lake_format() -> None:
    table = pa.table({"a": [1, None], "s": ["x", None], "l": [[1, 2], []]})
    assert row_hash(table, ["a", "s", "l"]).tolist() == PINNED


def test_a_lone_integer_is_its_own_key() -> None:
    table = pa.table({"a": [5, 6], "b": [1, None]})
    assert key_of(table, ["a"]).tolist() == [5, 6]
    assert len(set(key_of(table, ["a", "b"]).tolist())) == 2


PINNED = [13724752437992904301, 10026617772237246534]
