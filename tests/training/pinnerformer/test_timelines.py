"""Timelines from a lake: every action once, in order, whatever the day; labels by the rules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_repo.sequence import surface_code
from training.pinnerformer.timelines import LabelRules, action_counts, read_timelines
from validation.lake import Lake
from validation.tables import ACTIONS, Contract

START = datetime(2026, 1, 1, tzinfo=UTC)
PIN_IDS = np.array([10, 20, 30, 40])
VOCABULARY = Contract().vocabulary
CLOSEUP, SAVE, HIDE = (VOCABULARY.code(name) for name in ("closeup", "save", "hide"))


def rows(seed: int = 0, count: int = 300, users: int = 12) -> pd.DataFrame:
    """Random actions over ten days; some pins are outside the catalogue."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 10 * 86_400, count))
    return pd.DataFrame(
        {
            "event_id": np.arange(1, count + 1),
            "user_id": rng.integers(1, users + 1, count) * 7,
            "pin_id": rng.choice([10, 20, 30, 40, 99], count),
            "action": rng.choice([CLOSEUP, SAVE, HIDE], count),
            "timestamp": [START + timedelta(seconds=int(s)) for s in seconds],
            "surface": rng.choice(["homefeed", "search", None], count),
            "duration_s": np.where(rng.random(count) < 0.3, np.nan, rng.exponential(12, count)),
        }
    )


def lake_of(folder: Path, actions: pd.DataFrame) -> Lake:
    lake = Lake(folder)
    lake.write_contract(Contract())
    for day, part in actions.groupby(actions["timestamp"].dt.date):
        path = lake.file("actions", day)
        path.parent.mkdir(parents=True)
        columns = {name: part.get(name) for name in ACTIONS.schema.names}
        arrays = [
            pa.nulls(len(part), field.type)
            if columns[field.name] is None
            else pa.Array.from_pandas(columns[field.name], type=field.type)
            for field in ACTIONS.schema
        ]
        pq.write_table(pa.table(arrays, schema=ACTIONS.schema), path)
    return lake


def test_every_action_is_there_in_its_users_order(tmp_path: Path) -> None:
    actions = rows()
    end = START + timedelta(days=8, hours=7)
    lines = read_timelines(lake_of(tmp_path, actions), PIN_IDS, end)
    known = actions[actions["timestamp"] < end]
    assert lines.users.tolist() == sorted(known["user_id"].unique())
    for place, user in enumerate(lines.users):
        mine = known[known["user_id"] == user]
        part = slice(lines.offsets[place], lines.offsets[place + 1])
        times = mine["timestamp"].dt.as_unit("ms").astype("int64").tolist()
        assert lines.arrays.times_ms[part].tolist() == times
        assert lines.arrays.actions[part].tolist() == mine["action"].tolist()
        wanted = [PIN_IDS.tolist().index(p) if p in PIN_IDS else -1 for p in mine["pin_id"]]
        assert lines.arrays.pin_rows[part].tolist() == wanted
        assert lines.arrays.surfaces[part].tolist() == [surface_code(s) for s in mine["surface"]]
        np.testing.assert_allclose(lines.arrays.durations_s[part], mine["duration_s"].fillna(0), rtol=1e-6)
        first = [mine.loc[mine["pin_id"] == p, "timestamp"].min() for p in mine["pin_id"]]
        inside = np.array(wanted) >= 0
        expected = np.array([int(t.timestamp() * 1000) for t in first])
        assert lines.first_ms[part][inside].tolist() == expected[inside].tolist()


def test_labels_are_long_positive_and_of_the_feed(tmp_path: Path) -> None:
    actions = rows(3)
    lines = read_timelines(lake_of(tmp_path, actions), PIN_IDS, START + timedelta(days=11))
    ordered = actions.sort_values(["user_id", "timestamp", "event_id"])
    short = (ordered["action"] == CLOSEUP) & (ordered["duration_s"] < 10)
    expected = (
        (ordered["action"] != HIDE)
        & (ordered["surface"] != "search")
        & ~short
        & ordered["pin_id"].isin(PIN_IDS)
    )
    assert lines.label.tolist() == expected.tolist()
    assert lines.labels.offsets[-1] == expected.sum()
    every = LabelRules(surfaces=(), timed_actions=(), new_pins=False)
    lines = read_timelines(Lake(tmp_path), PIN_IDS, START + timedelta(days=11), every)
    assert lines.label.sum() == ((ordered["action"] != HIDE) & ordered["pin_id"].isin(PIN_IDS)).sum()
    np.testing.assert_array_equal(lines.first_ms, lines.arrays.times_ms)


def test_before_and_of_users_are_what_reading_less_gives(tmp_path: Path) -> None:
    lake, cut = lake_of(tmp_path, rows(4)), START + timedelta(days=5)
    whole = read_timelines(lake, PIN_IDS, START + timedelta(days=11))
    early, read = whole.before(int(cut.timestamp() * 1000)), read_timelines(lake, PIN_IDS, cut)
    some = np.diff(early.offsets) > 0
    assert early.users[some].tolist() == read.users.tolist()
    np.testing.assert_array_equal(early.of_users(some).offsets, read.offsets)
    for name in ("pin_rows", "times_ms", "actions"):
        np.testing.assert_array_equal(getattr(early.arrays, name), getattr(read.arrays, name))
    np.testing.assert_array_equal(early.label, read.label)
    only = whole.users[[1, 4]]
    part = read_timelines(lake, PIN_IDS, START + timedelta(days=11), only=only)
    chosen = whole.of_users(np.isin(whole.users, only))
    assert part.users.tolist() == only.tolist() == chosen.users.tolist()
    np.testing.assert_array_equal(part.arrays.times_ms, chosen.arrays.times_ms)
    np.testing.assert_array_equal(part.labels.pin_rows, chosen.labels.pin_rows)


def test_actions_are_counted_by_user_in_the_interval(tmp_path: Path) -> None:
    actions = rows(5, count=40)
    lake = lake_of(tmp_path, actions)
    a, b = START + timedelta(days=2, hours=3), START + timedelta(days=4, hours=9)
    inside = actions[(actions["timestamp"] >= a) & (actions["timestamp"] < b)]
    expected = inside["user_id"].value_counts().sort_index()
    users, counts = action_counts(lake, b, a)
    assert users.tolist() == expected.index.tolist() and counts.tolist() == expected.tolist()
    late = START + timedelta(days=30)
    assert [len(found) for found in action_counts(lake, late + timedelta(days=1), late)] == [0, 0]


@pytest.mark.parametrize("hours", [1, 3])
def test_ends_stand_strictly_before_the_time(tmp_path: Path, hours: int) -> None:
    lines = read_timelines(lake_of(tmp_path, rows(6)), PIN_IDS, START + timedelta(days=11))
    users = np.arange(len(lines))
    times = lines.arrays.times_ms[lines.offsets[:-1] + hours]
    ends = lines.ends_before(users, times)
    for user, end, time in zip(users, ends, times, strict=True):
        assert (lines.arrays.times_ms[lines.offsets[user] : end] < time).all()
        assert (lines.arrays.times_ms[end : lines.offsets[user + 1]] >= time).all()
