"""Each reason for which a row is refused, and the lenient readings that are no reason."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.validation.conftest import NOW, actions, ads, at, impressions, judgements, pins, times
from validation.column_rules import CLOCK_SKEW, Rules
from validation.ids import IdMap
from validation.rows import Checked, check, vector_dims
from validation.tables import DEFAULT_VOCABULARY, EARLIEST, TABLES, EntityKind


def checked(tmp_path: Path, table: str, columns: dict[str, Any]) -> Checked:
    rules = Rules(
        vocabulary=DEFAULT_VOCABULARY,
        latest=NOW + CLOCK_SKEW,
        ids=IdMap(tmp_path / "ids.sqlite"),
        pins=np.array([1, 2, 3]),
        dims={"visual_embedding": 2},
    )
    return check(TABLES[table], pa.table(columns), rules)


NAN, INF = float("nan"), float("inf")
VECTOR = pa.list_(pa.float64())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

BAD = [
    # (table, columns with the second row bad, reason)
    ("actions", actions(user_id=[7, None, 8, 9]), "null user_id"),
    ("actions", actions(user_id=[7, 0, 8, 9]), "user_id below 1"),
    ("actions", actions(user_id=[7, -4, 8, 9]), "user_id below 1"),
    ("actions", actions(user_id=["a", "", "b", "c"]), "empty user_id"),
    ("actions", actions(user_id=pa.array([7, 2**63, 8, 9], pa.uint64())), "user_id above 2**63 - 1"),
    ("actions", actions(pin_id=[1, None, 1, 3]), "null pin_id"),
    ("actions", actions(pin_id=[1, 99, 1, 3]), "unknown pin"),
    ("impressions", impressions(pin_id=[1, 99, 1]), "unknown pin"),
    ("actions", actions(action=["save", "repinn", "click", "closeup"]), "unknown action"),
    ("actions", actions(action=["save", None, "click", "closeup"]), "null action"),
    ("actions", actions(timestamp=times(at(hours=1), None, at(hours=2), at(hours=3))), "null timestamp"),
    (
        "actions",
        actions(timestamp=times(at(), at(minutes=-6), at(), at())),
        "timestamp in the future",
    ),
    (
        "actions",
        actions(timestamp=times(at(), datetime(1970, 1, 2, tzinfo=UTC), at(), at())),
        "timestamp before 2005-01-01T00:00:00Z",
    ),
    (
        "actions",
        actions(timestamp=times(at(), EARLIEST - timedelta(microseconds=1), EARLIEST, at())),
        "timestamp before 2005-01-01T00:00:00Z",
    ),
    (
        "impressions",
        impressions(timestamp=times(at(), datetime(1969, 1, 1, tzinfo=UTC), at())),
        "timestamp before 2005-01-01T00:00:00Z",
    ),
    (
        "follows",
        {"user_id": [1, 2], "timestamp": times(at(), datetime(1971, 1, 1, tzinfo=UTC)), "topic_id": [5, 5]},
        "timestamp before 2005-01-01T00:00:00Z",
    ),
    ("pins", pins(created_at=times(EPOCH, EPOCH - timedelta(seconds=1), at())), "created_at before 1970"),
    ("actions", actions(duration_s=[1.0, -0.5, None, NAN]), "negative duration_s"),
    ("actions", actions(duration_s=[1.0, INF, None, NAN]), "infinite duration_s"),
    ("actions", actions(board_id=[1, -5, None, 0]), "board_id below 1"),
    ("actions", actions(event_id=[1, -5, 2, 3]), "event_id below 1"),
    ("impressions", impressions(request_id=[100, None, 101]), "null request_id"),
    ("impressions", impressions(position=[0, -1, 0]), "position outside 0 to 2**31 - 1"),
    ("impressions", impressions(position=[0, 2**31, 0]), "position outside 0 to 2**31 - 1"),
    ("impressions", impressions(propensity=[0.5, 0.0, 1.0]), "propensity outside (0, 1]"),
    ("impressions", impressions(propensity=[0.5, 1.5, NAN]), "propensity outside (0, 1]"),
    ("pins", pins(pin_id=[1, 0, 3]), "pin_id below 1"),
    ("pins", pins(created_at=times(at(), at(minutes=-6), at())), "created_at in the future"),
    ("pins", pins(topics=[[10], [10, -1], []]), "topics holds an id below 1, null or empty"),
    ("pins", pins(topics=[["a"], ["b", ""], []]), "topics holds an id below 1, null or empty"),
    ("pins", pins(topics=[[10], [10, None], []]), "topics holds an id below 1, null or empty"),
    (
        "pins",
        pins(visual_embedding=pa.array([[1, 0], [0, NAN], None], VECTOR)),
        "visual_embedding holds NaN or infinity",
    ),
    (
        "pins",
        pins(visual_embedding=pa.array([[1, 0], [INF, 0], None], VECTOR)),
        "visual_embedding holds NaN or infinity",
    ),
    (
        "pins",
        pins(visual_embedding=pa.array([[1, 0], [None, 0], None], VECTOR)),
        "visual_embedding holds NaN or infinity",
    ),
    (
        "pins",
        pins(visual_embedding=pa.array([[1, 0], [1, 2, 3], None], VECTOR)),
        "visual_embedding is not of dimension 2",
    ),
    (
        "pins",
        pins(visual_embedding=pa.array([[1, 0], [], None], VECTOR)),
        "visual_embedding is not of dimension 2",
    ),
    ("topics", {"topic_id": [1, 2], "name": ["one", None]}, "null name"),
    (
        "follows",
        {"user_id": [1, 2], "timestamp": times(at(), at()), "topic_id": [5, None], "board_id": [None, 0]},
        "neither topic_id nor board_id",
    ),
    ("boards", {"board_id": [1, 2], "user_id": [1, None]}, "null user_id"),
    ("ads", ads(pin_id=[1, 99, 3]), "unknown pin"),
    ("ads", ads(bid=[1.0, -1.0, 0.0]), "negative bid"),
    ("ads", ads(bid=[1.0, NAN, 0.0]), "bid is not a finite number"),
    ("ads", ads(bid=[1.0, INF, 0.0]), "bid is not a finite number"),
    ("ads", ads(bid=[1.0, None, 0.0]), "null bid"),
    ("ads", ads(source=["standard", None, "x"]), "null source"),
    ("ads", ads(daily_budget=[None, -5.0, 1.0]), "negative daily_budget"),
    ("ads", ads(ends_at=times(at(), at(days=10), at(days=-9))), "ended before it began"),
    ("query_judgements", judgements(pin_id=[1, 99, 3]), "unknown pin"),
    ("query_judgements", judgements(query=["a", " \t\n", "b"]), "blank query"),
    ("query_judgements", judgements(query=["a", "\u200b", "b"]), "blank query"),
    ("query_judgements", judgements(query=["a", "x" * 2001, "b"]), "query longer than 2000 characters"),
    ("query_judgements", judgements(query=["a", "\ufdfa" * 200, "b"]), "query longer than 2000 characters"),
    ("query_judgements", judgements(query=["a", None, "b"]), "null query"),
    ("query_judgements", judgements(relevance=[1.0, -1.0, 0.0]), "negative relevance"),
    ("query_judgements", judgements(relevance=[1.0, NAN, 0.0]), "relevance is not a finite number"),
    ("query_judgements", judgements(relevance=[1.0, INF, 0.0]), "relevance is not a finite number"),
    ("query_judgements", judgements(relevance=[1.0, None, 0.0]), "null relevance"),
    ("impressions", impressions(bid=[None, -1.0, 2.0]), "negative bid"),
    ("impressions", impressions(predicted=[None, 1.5, 0.1]), "predicted outside [0, 1]"),
]


@pytest.mark.parametrize(
    ("table", "columns", "reason"), BAD, ids=[f"{t}: {r}-{i}" for i, (t, _, r) in enumerate(BAD)]
)
def test_the_one_bad_row_is_refused_for_its_reason(
    tmp_path: Path, table: str, columns: dict[str, Any], reason: str
) -> None:
    result = checked(tmp_path, table, columns)
    assert result.refused.tolist() == [1]
    assert result.reasons == [reason]
    rows = pa.table(columns).num_rows
    assert result.passed.tolist() == [i for i in range(rows) if i != 1]
    assert result.rows.schema == TABLES[table].schema


def test_clean_rows_pass_in_lake_form(tmp_path: Path) -> None:
    rows = checked(tmp_path, "actions", actions()).rows.to_pylist()
    assert [r["action"] for r in rows] == [4, 6, 2, 1]
    assert [r["user_id"] for r in rows] == [7, 7, 8, 9]
    assert len({r["event_id"] for r in rows}) == 4
    assert all(r["event_id"] > 0 and r["board_id"] is None for r in rows)


def test_campaigns_may_lie_ahead_and_keep_every_digit_of_their_bid(tmp_path: Path) -> None:
    bid = 12_345_678_901.0  # more digits than a float32 holds
    result = checked(tmp_path, "ads", ads(ad_id=["a", "b", "c"], bid=[bid, 0.0, 1.0]))
    rows = result.rows.to_pylist()
    assert result.reasons == []
    assert rows[0]["bid"] == bid
    assert [r["daily_budget"] for r in rows] == [None, None, 5e6]
    assert rows[2]["starts_at"] > NOW
    assert len({r["ad_id"] for r in rows}) == 3


def test_lenient_readings(tmp_path: Path) -> None:
    columns = actions(board_id=[0, None, 5, 6], duration_s=[NAN, None, 1, 2], request_id=["", None, "r", "r"])
    result = checked(tmp_path, "actions", columns)
    assert result.reasons == []
    rows = result.rows.to_pylist()
    assert [r["board_id"] for r in rows] == [None, None, 5, 6]
    assert [r["duration_s"] for r in rows] == [None, None, 1, 2]
    assert [r["request_id"] is None for r in rows] == [True, True, False, False]
    assert rows[2]["request_id"] == rows[3]["request_id"] > 0


def test_zeros_in_a_topic_list_are_padding(tmp_path: Path) -> None:
    result = checked(tmp_path, "pins", pins(topics=[[10, 0, 0, 0], None, [0]]))
    assert [r["topics"] for r in result.rows.to_pylist()] == [[10], None, []]


@pytest.mark.parametrize(
    "zoned", [pa.timestamp("s", "UTC"), pa.timestamp("ms", "Europe/Berlin"), pa.timestamp("ns", "+02:00")]
)
def test_any_zone_and_unit_becomes_utc_microseconds(tmp_path: Path, zoned: pa.DataType) -> None:
    moments = [at(hours=h) for h in (1, 30, 2, 3)]
    result = checked(tmp_path, "actions", actions(timestamp=times(*moments, type=zoned)))
    assert [r["timestamp"] for r in result.rows.to_pylist()] == moments


@pytest.mark.parametrize(
    "form",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=["large", "view", "dictionary"],
)
def test_any_string_type_is_text(tmp_path: Path, form: pa.DataType) -> None:
    plain = actions(user_id=["x", "y", "x", "z"])
    columns = {**plain, "user_id": pa.array(plain["user_id"]).cast(form)}
    columns["action"] = pa.array(plain["action"]).cast(form)
    rows = checked(tmp_path, "actions", columns).rows.to_pylist()
    assert [r["user_id"] for r in rows] == [1, 2, 1, 3]
    assert [r["action"] for r in rows] == [4, 6, 2, 1]


@pytest.mark.parametrize("wide", [pa.list_(pa.float64(), 2), pa.large_list(pa.float16())])
def test_any_list_of_floats_is_a_vector(tmp_path: Path, wide: pa.DataType) -> None:
    columns = pins(visual_embedding=pa.array([[1.0, 0.0], [0.0, 1.0], None]).cast(wide))
    rows = checked(tmp_path, "pins", columns).rows.to_pylist()
    assert [r["visual_embedding"] for r in rows] == [[1, 0], [0, 1], None]


def test_refused_rows_give_no_string_a_number(tmp_path: Path) -> None:
    columns = actions(user_id=["a", "b", "c", "d"], action=["save", "repinn", "click", "closeup"])
    assert checked(tmp_path, "actions", columns).rows.column("user_id").to_pylist() == [1, 2, 3]
    assert IdMap(tmp_path / "ids.sqlite").decode(EntityKind.USER, [1, 2, 3]) == ["a", "c", "d"]


def test_a_column_of_nulls_is_an_absent_one(tmp_path: Path) -> None:
    columns = pins(title=pa.nulls(3), visual_embedding=pa.nulls(3), topics=pa.nulls(3))
    assert checked(tmp_path, "pins", columns).refused.size == 0
    columns = actions(action=pa.nulls(4))
    assert checked(tmp_path, "actions", columns).reasons == ["null action"] * 4


def test_the_same_action_has_the_same_event_id_in_any_batch(tmp_path: Path) -> None:
    whole = checked(tmp_path, "actions", actions()).rows.column("event_id").to_pylist()
    last = {name: column[3:] for name, column in actions().items()}
    assert checked(tmp_path, "actions", last).rows.column("event_id").to_pylist() == whole[3:]


def test_the_usual_dimension_is_found_whichever_row_comes_first() -> None:
    vectors = pa.array([[1, 2, 3], [1, 2], None, [3, 4], []], pa.list_(pa.float32()))
    assert vector_dims(pa.table({"visual_embedding": vectors})) == {"visual_embedding": 2}
    assert vector_dims(pa.table({"visual_embedding": pa.nulls(2)})) == {}


def test_candidates_that_break_the_contract(tmp_path: Path) -> None:
    rows = {
        "request_id": [5] * 5,
        "user_id": [7] * 5,
        "pin_id": [1] * 5,
        "timestamp": times(*[at(hours=1)] * 5),
        "source": ["a", "b", "c", "d", "e"],
        "rank": [0, -1, 1, 2, 3],
        "score": pa.array([-2.0, 0, float("inf"), None, 0]),
        "stage": ["shown", "light", "light", "seen", "ranked"],
        "logged": [1.0, 1, 1, 1, 0],
    }
    found = checked(tmp_path, "candidates", rows)
    assert found.rows.column("source").to_pylist() == ["a"]
    assert found.reasons == [
        "rank outside 0 to 2**31 - 1",
        "infinite score",
        "unknown stage",
        "logged outside (0, 1]",
    ]
