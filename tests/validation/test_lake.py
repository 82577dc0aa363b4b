"""Reading the lake: time order, time intervals, absent things, and a digest of its content."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from tests.validation.conftest import NOW, Door, actions, at, impressions, pins, times
from validation.lake import Lake, LakeError


@pytest.fixture
def lake(door: Door) -> Lake:
    door.write(
        impressions=impressions(), topics={"topic_id": [10, 11], "name": ["a", "b"], "parent_id": [None, 10]}
    )
    door.open()
    return door.lake


def test_events_come_in_time_order_across_days(lake: Lake) -> None:
    frame = lake.read("actions")
    assert frame["timestamp"].is_monotonic_increasing
    assert frame["pin_id"].tolist() == [2, 3, 1, 1]
    assert str(frame["timestamp"].dtype) == "datetime64[us, UTC]"


def test_events_of_one_instant_are_ordered_by_event_id(door: Door) -> None:
    door.write(actions=actions(timestamp=times(*[at(hours=1)] * 4), event_id=[9, 3, 7, 5]))
    door.open()
    assert door.lake.read("actions")["event_id"].tolist() == [3, 5, 7, 9]


def test_entities_keep_the_order_in_which_they_came(door: Door) -> None:
    door.write(pins=pins(pin_id=[3, 1, 2]))
    door.open()
    assert door.lake.read("pins", ["pin_id"])["pin_id"].tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [
        (None, None, 4),
        (at(hours=2), None, 2),
        (None, at(hours=2), 2),
        (at(hours=2), at(hours=1), 1),
        (at(hours=1), at(hours=1), 0),
        (at(days=30), at(days=20), 0),
    ],
)
def test_an_interval_includes_its_start_and_not_its_end(
    lake: Lake, start: datetime | None, end: datetime | None, count: int
) -> None:
    assert len(lake.read("actions", ["pin_id"], start=start, end=end)) == count


def test_bounds_in_any_zone_are_the_same_instant(lake: Lake) -> None:
    from datetime import timezone

    berlin = at(hours=2).astimezone(timezone(timedelta(hours=1)))
    assert len(lake.read("actions", start=berlin)) == len(lake.read("actions", start=at(hours=2)))


def test_bounds_need_a_zone_and_a_timestamp(lake: Lake) -> None:
    with pytest.raises(ValueError, match="no zone"):
        lake.read("actions", start=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="pins has no timestamp"):
        lake.read("pins", start=NOW)


def test_an_absent_optional_id_is_zero_and_large_ids_keep_every_digit(door: Door) -> None:
    large = 2**62 + 1
    door.write(actions=actions(request_id=[large, None, 5, None], board_id=[None, 2, None, None]))
    door.open()
    frame = door.lake.read("actions")
    assert frame["request_id"].dtype == np.int64
    assert sorted(frame["request_id"]) == [0, 0, 5, large]
    assert sorted(frame["board_id"]) == [0, 0, 0, 2]


def test_the_interval_is_whole_days(lake: Lake) -> None:
    assert lake.days("actions") == [date(2026, 3, 9), date(2026, 3, 10)]
    assert lake.interval() == (datetime(2026, 3, 9, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC))


def test_duckdb_reads_the_globs(lake: Lake) -> None:
    for table in ("actions", "pins", "impressions"):
        count = duckdb.sql(f"SELECT count(*) FROM read_parquet('{lake.glob(table)}')").fetchall()[0][0]
        assert count == lake.rows(table) == lake.dataset(table).count_rows()


def test_what_is_absent_is_said(lake: Lake, tmp_path: object) -> None:
    assert not lake.has("follows")
    assert lake.files("follows") == []
    with pytest.raises(LakeError, match="no follows table"):
        lake.read("follows")
    with pytest.raises(LakeError, match="'folows' is not a contract table"):
        lake.has("folows")
    with pytest.raises(ValueError, match="not kept by day"):
        lake.days("pins")


def test_a_lake_that_is_not_there(tmp_path) -> None:
    lake = Lake(tmp_path / "nowhere")
    assert not lake.exists()
    assert not lake.has("pins")
    with pytest.raises(LakeError, match="corkboard ingest"):
        lake.contract()
    with pytest.raises(LakeError, match="no actions"):
        lake.interval()
    assert not lake.path.exists()


def test_the_digest_follows_the_content(door: Door, new_door) -> None:
    door.open()
    before = door.lake.digest()
    door.open()
    assert door.lake.digest() == before
    other = new_door("other")
    other.open()
    assert other.lake.digest() == before
    door.write(actions=actions(timestamp=times(*[at(hours=5)] * 4)))
    door.open()
    assert door.lake.digest() != before
    assert door.lake.digest(["pins"]) == other.lake.digest(["pins"])


def test_impressions_without_an_order_still_come_in_one(new_door: Callable[[str], Door]) -> None:
    whole, parts = new_door("whole"), new_door("parts")
    table = pa.table(
        impressions(request_id=[100] * 3, pin_id=[3, 1, 2], position=[0] * 3, timestamp=times(*[at()] * 3))
    )
    whole.write(impressions=table)
    whole.open()
    for start in (2, 0, 1):
        parts.write(impressions=table.slice(start, 1))
        parts.open()
    assert whole.lake.read("impressions")["pin_id"].tolist() == [1, 2, 3]
    assert whole.lake.read("impressions").equals(parts.lake.read("impressions"))
