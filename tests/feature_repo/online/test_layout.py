"""The packed row: every value back, both ways of packing equal, other schemas refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.online.layout import Column, LayoutError, RowLayout, stamp

COLUMNS = (
    Column("clicks", "Float32", False, None),
    Column("saves", "Float32", False, None),
    Column("text", "String", False, None),
    Column("created", "Int64", False, None),
    Column("topics", "Int64", True, 3),
    Column("codes", "Int32", True, None),
    Column("vector", "Float32", True, None),
)
LAYOUT = RowLayout("view", COLUMNS)
SCHEMA = pa.schema(
    [
        ("clicks", pa.float32()),
        ("saves", pa.float32()),
        ("text", pa.string()),
        ("created", pa.int64()),
        ("topics", pa.list_(pa.int64())),
        ("codes", pa.list_(pa.int32())),
        ("vector", pa.list_(pa.float32())),
        ("event_timestamp", pa.timestamp("us", tz="UTC")),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)

int64 = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(width=32, allow_nan=False)
rows = st.fixed_dictionaries(
    {
        "clicks": st.none() | floats,
        "saves": floats,
        "text": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
        "created": st.none() | int64,
        "topics": st.none() | st.lists(int64, min_size=3, max_size=3),
        "codes": st.none() | st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9),
        "vector": st.lists(floats, max_size=9),
        "event_timestamp": st.datetimes(datetime(1975, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
        "created_at": st.datetimes(datetime(1975, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    }
)


def micros(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def plain(values: dict) -> dict:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in values.items()}


@given(st.lists(rows, max_size=6), st.integers(0, 3))
@settings(max_examples=120, deadline=None)
def test_rows_come_back_and_columns_pack_as_rows_do(given_rows: list[dict], skipped: int) -> None:
    batch = pa.RecordBatch.from_pylist(given_rows, SCHEMA).slice(skipped)  # slices share their parents' buffers
    packed = LAYOUT.pack_batch(batch, "event_timestamp", "created_at")
    assert len(packed) == batch.num_rows
    for row, blob in zip(given_rows[skipped:], packed, strict=True):
        event, created = micros(row["event_timestamp"]), micros(row["created_at"])
        alone = LAYOUT.pack(row, event, created)
        expected = {c.name: row[c.name] for c in COLUMNS}
        assert plain(LAYOUT.unpack(alone)) == expected
        assert plain(LAYOUT.unpack(blob)) == expected
        assert stamp(blob) == stamp(alone) == (event, created)


@given(st.lists(rows, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_fixed_parts_are_read_in_bulk(given_rows: list[dict]) -> None:
    packed = [LAYOUT.pack(row, 1, 2) for row in given_rows]
    fixed = LAYOUT.unpack_fixed(packed)
    block = LAYOUT.block(fixed, ("clicks", "saves"))
    assert block.dtype == np.float32 and block.flags.c_contiguous
    assert block.tolist() == [[row["clicks"] or 0, row["saves"]] for row in given_rows]
    assert fixed["topics"].tolist() == [row["topics"] or [0, 0, 0] for row in given_rows]


def test_features_that_do_not_lie_together_are_no_block() -> None:
    fixed = LAYOUT.unpack_fixed([LAYOUT.pack({}, 1, 1)])
    with pytest.raises(LayoutError, match="side by side"):
        LAYOUT.block(fixed, ("saves", "created"))


@pytest.mark.parametrize(
    "columns",
    [
        COLUMNS[:-1],
        (*COLUMNS[:-1], Column("vector", "Float64", True, None)),
        (COLUMNS[1], COLUMNS[0], *COLUMNS[2:]),
        (*COLUMNS[:4], Column("topics", "Int64", True, 4), *COLUMNS[5:]),
    ],
)
def test_a_row_of_another_schema_is_refused_not_misread(columns: tuple[Column, ...]) -> None:
    old = RowLayout("view", columns).pack({}, 1, 1)
    for read in (LAYOUT.unpack, lambda row: LAYOUT.unpack_fixed([row])):
        with pytest.raises(LayoutError, match="written under another schema"):
            read(old)


def test_a_fixed_array_of_another_length_is_refused() -> None:
    with pytest.raises(LayoutError, match="topics holds 3 values, this row has 2"):
        LAYOUT.pack({"topics": [1, 2]}, 1, 1)
    row = {"saves": 1.0, "vector": [], "event_timestamp": datetime(2026, 1, 1, tzinfo=UTC)}
    batch = pa.RecordBatch.from_pylist([row | {"topics": [1, 2, 3]}, row | {"topics": [1]}], SCHEMA)
    with pytest.raises(LayoutError, match="1 rows hold another number, the first 1"):
        LAYOUT.pack_batch(batch, "event_timestamp", None)


def test_a_row_without_a_time_is_refused() -> None:
    with pytest.raises(LayoutError, match="1 rows have no timestamp"):
        LAYOUT.pack_batch(pa.RecordBatch.from_pylist([{"saves": 1.0}], SCHEMA), "event_timestamp", None)


def test_too_many_features_do_not_fit_the_null_bits() -> None:
    with pytest.raises(LayoutError, match="at most 64"):
        RowLayout("wide", [Column(f"f{i}", "Float32", False, None) for i in range(65)])


def test_a_view_with_another_type_is_refused_by_name() -> None:
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Array, String

    view = FeatureView(
        name="words",
        entities=[Entity(name="pin", join_keys=["pin_id"])],
        schema=[Field(name="tags", dtype=Array(String))],
        source=FileSource(path="words.parquet", timestamp_field="event_timestamp"),
    )
    with pytest.raises(LayoutError, match="words:tags has type"):
        RowLayout.of(view)
