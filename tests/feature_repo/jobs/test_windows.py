"""Counters against a naive count over the whole history, at every midnight."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from feature_repo.schema import PIN_SCALARS, USER_SCALARS, WINDOWS
from tests.feature_repo.conftest import DAYS, END, START, World
from validation.tables import DEFAULT_VOCABULARY, Polarity

POSITIVE = DEFAULT_VOCABULARY.codes(Polarity.POSITIVE)
NEGATIVE = DEFAULT_VOCABULARY.codes(Polarity.NEGATIVE)
MIDNIGHTS = [START + timedelta(days=d) for d in range(1, DAYS + 1)]


def in_force(world: World, view: str, key: str, at: datetime) -> pd.DataFrame:
    """The rows of a view that are true at `at`, by key: the latest of each."""
    rows = pd.read_parquet(world.features / view)
    rows = rows[(rows["event_timestamp"] <= at) & (rows[key] != 0)]
    latest = rows.sort_values("event_timestamp", kind="stable").drop_duplicates(key, keep="last")
    return latest.set_index(key)


def counted(events: pd.DataFrame, kind: str) -> pd.DataFrame:
    if kind == "positives":
        return events[events["action"].isin(POSITIVE)]
    if kind == "negatives":
        return events[events["action"].isin(NEGATIVE)]
    return events


def naive_counts(world: World, key: str, at: datetime) -> dict[str, pd.Series]:
    result = {}
    for kind in ("impressions", "actions", "positives", "negatives"):
        events = counted(world.tables["impressions" if kind == "impressions" else "actions"], kind)
        for days in WINDOWS:
            inside = (events["timestamp"] >= at - timedelta(days=days)) & (events["timestamp"] < at)
            result[f"{kind}_{days}d"] = events[inside].groupby(key).size()
    return result


@pytest.mark.parametrize("at", MIDNIGHTS[::4] + MIDNIGHTS[-2:])
@pytest.mark.parametrize(("view", "key"), [("user_profile", "user_id"), ("pin_stats", "pin_id")])
def test_windows_equal_a_naive_count(world: World, view: str, key: str, at: datetime) -> None:
    rows = in_force(world, view, key, at)
    for name, expected in naive_counts(world, key, at).items():
        missing = set(expected.index) - set(rows.index)
        assert not missing, f"{name}: no row for {missing}"
        np.testing.assert_array_equal(rows[name], expected.reindex(rows.index, fill_value=0), err_msg=name)


@pytest.mark.parametrize("at", [MIDNIGHTS[5], MIDNIGHTS[20], END])
def test_the_other_user_features(world: World, at: datetime) -> None:
    rows = in_force(world, "user_profile", "user_id", at)
    actions, follows = world.tables["actions"], world.tables["follows"]
    recent = actions[(actions["timestamp"] >= at - timedelta(days=30)) & (actions["timestamp"] < at)]
    days = recent.groupby("user_id")["timestamp"].agg(lambda t: t.dt.date.nunique())
    topics = counted(recent, "positives").merge(world.tables["pins"][["pin_id", "topics"]]).explode("topics")
    distinct = topics.groupby("user_id")["topics"].nunique()
    np.testing.assert_array_equal(rows["active_days_30d"], days.reindex(rows.index, fill_value=0))
    np.testing.assert_array_equal(rows["distinct_topics_30d"], distinct.reindex(rows.index, fill_value=0))
    past = follows[follows["timestamp"] < at]
    for kind in ("topic", "board"):
        latest = (
            past.dropna(subset=f"{kind}_id").groupby(["user_id", f"{kind}_id"])["timestamp"].max().reset_index()
        )
        latest = latest.sort_values(["timestamp", f"{kind}_id"], ascending=[False, True])
        for user, row in rows.iterrows():
            expected = latest.loc[latest["user_id"] == user, f"{kind}_id"].tolist()
            assert row[f"followed_{kind}s"].tolist() == expected
            assert row[f"followed_{kind}s_count"] == len(expected)


@pytest.mark.parametrize("at", [MIDNIGHTS[5], MIDNIGHTS[20], END])
def test_the_other_pin_features(world: World, at: datetime) -> None:
    rows = in_force(world, "pin_stats", "pin_id", at)
    actions, pins = world.tables["actions"], world.tables["pins"].set_index("pin_id")
    inside = (actions["timestamp"] >= at - timedelta(days=30)) & (actions["timestamp"] < at)
    recent = counted(actions[inside], "positives")
    for name, column in (("positive_users_30d", "user_id"), ("boards_30d", "board_id")):
        expected = recent.groupby("pin_id")[column].nunique().reindex(rows.index, fill_value=0)
        np.testing.assert_array_equal(rows[name], expected)
    assert set(rows.index) == set(pins.index), "every pin has a row from its creation on"
    for pin, row in rows.iterrows():
        source = pins.loc[pin]
        assert row["topic_count"] == len(source["topics"])
        assert row["title_words"] == len((source["title"] or "").split())
        assert row["description_words"] == len(source["description"].split())
        assert row["has_image"] == (source["image"] is not None)
        assert row["topics"].tolist() == (list(source["topics"]) + [0] * 4)[:4]
        assert row["created_at_ms"] == source["created_at"].value // 1_000_000, "whole milliseconds, cut"


def test_no_row_tells_of_its_own_day(world: World) -> None:
    """An action changes nothing before the midnight after it."""
    first = world.tables["actions"].sort_values("timestamp").iloc[0]
    before = in_force(world, "user_profile", "user_id", first["timestamp"])
    if first["user_id"] in before.index:
        assert before.loc[first["user_id"], [f"actions_{d}d" for d in WINDOWS]].sum() == 0


def test_rows_are_written_only_where_counts_may_change(world: World) -> None:
    rows = pd.read_parquet(world.features / "pin_stats")
    daily = rows[(rows["pin_id"] != 0) & (rows["event_timestamp"].dt.time == START.time())]
    every = len(world.pin_ids) * DAYS
    assert len(daily) < every
    ordered = daily.sort_values(["pin_id", "event_timestamp"])
    assert not ordered.duplicated(["pin_id", "event_timestamp"]).any()


@pytest.mark.parametrize(("view", "key"), [("user_profile", "user_id"), ("pin_stats", "pin_id")])
def test_row_zero_marks_every_midnight(world: World, view: str, key: str) -> None:
    rows = pd.read_parquet(world.features / view)
    zero = rows[rows[key] == 0]
    assert sorted(zero["event_timestamp"].dt.to_pydatetime()) == MIDNIGHTS
    scalars = USER_SCALARS if view == "user_profile" else PIN_SCALARS
    assert (zero[list(scalars)].to_numpy() == 0).all()
    assert (rows["created"] == rows["event_timestamp"]).all()
