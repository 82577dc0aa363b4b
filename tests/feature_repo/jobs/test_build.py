"""The build as a whole: incremental runs equal full ones, the other views, bad input."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_repo.jobs import build_features, files
from feature_repo.jobs.build import BATCH_VIEWS
from feature_repo.jobs.history import histories
from feature_repo.jobs.popular import HALF_LIFE_DAYS, POPULAR_DAYS
from feature_repo.schema import BOARD_RECENT, TOPIC_POPULAR
from feature_repo.sequence import Sequence, SequenceLog
from feature_repo.views import VIEWS
from tests.feature_repo.conftest import END, START, TOPICS, World, history, write_lake
from tests.feature_repo.jobs.test_windows import POSITIVE

EARLY = START + timedelta(days=7)


def contents(features: Path, view: str, *, drop_before: datetime | None = None) -> pd.DataFrame:
    """The newest row of each key, comparable across builds."""
    keys = list(VIEWS[view].keys)
    rows = pd.read_parquet(features / view).sort_values("event_timestamp", kind="stable")
    rows = rows.drop_duplicates([*keys, "event_timestamp"], keep="last").sort_values([*keys, "event_timestamp"])
    for column in rows.columns:
        if rows[column].map(lambda v: isinstance(v, np.ndarray)).any():
            rows[column] = rows[column].map(lambda v: tuple(v.tolist()))
    return rows.reset_index(drop=True)


def until(tables: dict[str, pd.DataFrame], end: datetime) -> dict[str, pd.DataFrame]:
    return {n: t[t["timestamp"] < end] if n in ("actions", "impressions") else t for n, t in tables.items()}


@pytest.fixture(scope="module")
def short(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the first week alone, from the lake that holds more."""
    features = tmp_path_factory.mktemp("short")
    build_features(world.lake, features, as_of=EARLY)
    return features


def test_two_incremental_builds_equal_one_full_build(world: World, tmp_path: Path) -> None:
    tables, middle = history(), START + timedelta(days=25)
    lake = write_lake(tmp_path / "lake", until(tables, middle))
    build_features(lake, tmp_path / "features", as_of=middle)
    lake = write_lake(tmp_path / "lake", tables)  # rewrites every file; the days before `middle` are the same
    rows = build_features(lake, tmp_path / "features", as_of=END, since=middle)
    assert rows["pin_stats"] > 0
    for view in BATCH_VIEWS:
        found, expected = contents(tmp_path / "features", view), contents(world.features, view)
        if view in ("topic_features", "board_features"):  # one state a build; the last must be the same
            found = found[found["event_timestamp"] == END].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, expected)


def test_nothing_of_later_days_enters(world: World, short: Path) -> None:
    """The same midnight, from a lake that ends there and from one that goes on."""
    for view in ("user_profile", "pin_stats"):
        later = contents(world.features, view)
        later = later[later["event_timestamp"] <= EARLY].reset_index(drop=True)
        pd.testing.assert_frame_equal(contents(short, view), later)
    assert pd.read_parquet(short / "user_sequence")["event_timestamp"].max() < EARLY


def test_only_days_after_a_change_are_built_again(world: World, tmp_path: Path) -> None:
    tables = history()
    lake = write_lake(tmp_path / "lake", tables)
    features = tmp_path / "features"
    build_features(lake, features, as_of=END)
    written = {f: f.stat().st_mtime_ns for f in (features / "pin_stats").glob("2026-*.parquet")}
    assert build_features(lake, features, as_of=END) == dict.fromkeys(BATCH_VIEWS, 0), "nothing changed"

    late = START + timedelta(days=30)
    file = lake.file("actions", late.date())
    pq.write_table(pq.read_table(file).slice(1), file)
    build_features(lake, features, as_of=END)
    rewritten = {f.stem for f, at in written.items() if f.stat().st_mtime_ns != at}
    assert min(rewritten) == "2026-02-01", "the midnight after the changed day is the first that can differ"
    assert len(rewritten) == 10


def followers(ids: list[int], at: datetime) -> pd.DataFrame:
    """Follows of topic 2 by `ids`, all at one moment."""
    rows = pd.DataFrame({"user_id": ids, "timestamp": pd.Timestamp(at), "topic_id": 2})
    return rows.assign(board_id=pd.NA).astype({"topic_id": "Int64", "board_id": "Int64"})


def test_follows_before_the_first_action_reach_users_who_never_acted(tmp_path: Path) -> None:
    tables, cold = history(), list(range(101, 141))
    named = pd.DataFrame({"user_id": cold[:10], "created_at": START + timedelta(days=3, hours=1)})
    tables["users"] = pd.concat([tables["users"], named])  # the other thirty are in `follows` alone
    tables["follows"] = pd.concat([tables["follows"], followers(cold, START - timedelta(days=60))])
    build_features(write_lake(tmp_path / "lake", tables), tmp_path / "features", as_of=EARLY)
    rows = contents(tmp_path / "features", "user_profile")
    for at in (START + timedelta(days=1), EARLY):
        true = rows[rows["user_id"].isin(cold) & (rows["event_timestamp"] <= at)]
        latest = true.drop_duplicates("user_id", keep="last").set_index("user_id")
        assert set(latest.index) == set(cold)
        assert set(latest["followed_topics"]) == {(2,)}
        assert (latest["followed_topics_count"] == 1).all() and (latest["actions_30d"] == 0).all()
    only_followed = rows[rows["user_id"].isin(cold[10:])]
    assert (only_followed["event_timestamp"] == START + timedelta(days=1)).all(), "once, at the first snapshot"


@pytest.mark.parametrize("what", ["follows", "users", "pins"])
def test_a_past_that_changed_is_built_again(tmp_path: Path, what: str) -> None:
    tables = until(history(), EARLY)
    features, fresh = tmp_path / "features", tmp_path / "fresh"
    build_features(write_lake(tmp_path / "lake", tables), features, as_of=EARLY)
    if what == "follows":
        late = followers([500], START + timedelta(days=1, hours=5))
        tables["follows"] = pd.concat([tables["follows"], late])
    elif what == "users":
        tables["users"] = tables["users"].assign(country="IT")
    else:
        tables["pins"] = tables["pins"].assign(topics=[[1, 2]] * len(tables["pins"]))
    lake = write_lake(tmp_path / "changed", tables)
    build_features(lake, features, as_of=EARLY)
    build_features(lake, fresh, as_of=EARLY)
    for view in ("user_profile", "pin_stats"):
        pd.testing.assert_frame_equal(contents(features, view), contents(fresh, view))


def test_a_whole_build_empties_the_row_of_whom_nothing_is_known_any_more(tmp_path: Path) -> None:
    tables, features = history(), tmp_path / "features"
    once = {"request_id": [10**6], "user_id": [900], "pin_id": [3], "position": [0], "timestamp": [START]}
    tables["impressions"] = pd.concat([tables["impressions"], pd.DataFrame(once)])
    lake = write_lake(tmp_path / "lake", tables)
    build_features(lake, features, as_of=EARLY)
    (features / "state.json").unlink()
    build_features(lake, features, as_of=END)
    rows = contents(features, "user_history").set_index("user_id")
    assert rows.loc[900, "shown_pin_ids"] == () and rows.loc[900, "event_timestamp"] == END


def test_histories_made_in_pieces_are_the_same_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at_once in (files.AT_ONCE, 7):
        monkeypatch.setattr(files, "AT_ONCE", at_once)
        histories(world.lake, tmp_path / str(at_once), END)
    whole, pieces = (pq.ParquetFile(f) for f in sorted(tmp_path.rglob("*.parquet")))
    assert whole.num_row_groups == 1 < pieces.num_row_groups and len(
        whole.read()["pin_ids"].combine_chunks().flatten()
    )
    assert pieces.read() == whole.read()


def test_new_entities_with_new_days_stay_incremental(tmp_path: Path) -> None:
    tables, middle = until(history(), EARLY), EARLY - timedelta(days=2)
    tables["follows"] = tables["follows"][tables["follows"]["timestamp"] < EARLY]
    lake, features = write_lake(tmp_path / "lake", until(tables, middle)), tmp_path / "features"
    build_features(lake, features, as_of=middle)
    written = {f: f.stat().st_mtime_ns for f in (features / "pin_stats").glob("2026-*.parquet")}
    born = middle + timedelta(hours=3)
    tables["pins"] = pd.concat([tables["pins"], pd.DataFrame({"pin_id": [900], "created_at": [born]})])
    tables["users"] = pd.concat([tables["users"], pd.DataFrame({"user_id": [900], "created_at": [born]})])
    tables["follows"] = pd.concat([tables["follows"], followers([900], born)])
    for name in ("pins", "users", "follows"):
        write_lake(tmp_path / "lake", {name: tables[name]})
    events = {name: tables[name] for name in ("actions", "impressions")}
    write_lake(tmp_path / "lake", {name: rows[rows["timestamp"] >= middle] for name, rows in events.items()})
    build_features(lake, features, as_of=EARLY)
    assert [f.stem for f, at in written.items() if f.stat().st_mtime_ns != at] == []
    build_features(lake, tmp_path / "fresh", as_of=EARLY)
    for view in ("user_profile", "pin_stats"):
        pd.testing.assert_frame_equal(contents(features, view), contents(tmp_path / "fresh", view))


def test_a_stray_old_row_costs_no_walk_over_the_years(world: World, tmp_path: Path) -> None:
    tables = until(history(), EARLY)
    stray = tables["actions"].head(1).assign(event_id=10_000, timestamp=START - timedelta(days=9000))
    tables["actions"] = pd.concat([tables["actions"], stray])
    build_features(write_lake(tmp_path / "lake", tables), tmp_path / "features", as_of=EARLY)
    snapshots = list((tmp_path / "features" / "pin_stats").glob("????-??-??.parquet"))
    assert len(snapshots) == 7 + 4, "the week's, and those at which the stray row changes a count"
    found, expected = contents(tmp_path / "features", "pin_stats"), contents(world.features, "pin_stats")
    week = [START + timedelta(days=d) for d in range(1, 8)]
    found, expected = (rows[rows["event_timestamp"].isin(week)] for rows in (found, expected))
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected.reset_index(drop=True))
    old = pd.read_parquet(tmp_path / "features" / "pin_stats").query("pin_id == @stray.pin_id.item()")
    old = old[old["event_timestamp"] < START - timedelta(days=8000)].sort_values("event_timestamp")
    assert old["actions_30d"].tolist() == [1, 1, 1, 0] and old["actions_1d"].tolist() == [1, 0, 0, 0]


def test_a_build_that_was_interrupted_is_done_again(
    world: World, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = tmp_path / "features"
    monkeypatch.setattr("feature_repo.jobs.windows.LINES", 1)

    def stop(message: str) -> None:
        if "2026-01-04" in message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_features(world.lake, features, as_of=EARLY, progress=stop)
    build_features(world.lake, features, as_of=EARLY)
    for view in BATCH_VIEWS:
        pd.testing.assert_frame_equal(contents(features, view), contents(short, view))


def test_the_batch_sequence_is_the_merged_sequence(world: World) -> None:
    log = SequenceLog.from_actions(world.tables["actions"])
    rows = pd.read_parquet(world.features / "user_sequence")
    assert set(rows["user_id"]) == set(log.users)
    for row in rows.to_dict("records"):
        expected = log.sequence(row["user_id"], int(END.timestamp() * 1000))
        assert Sequence.from_arrays(row) == expected
        assert row["event_timestamp"].value == expected.newest_ms * 1_000_000


def test_popular_pins_by_topic(world: World) -> None:
    actions, pins = world.tables["actions"], world.tables["pins"].set_index("pin_id")
    recent = actions[
        actions["action"].isin(POSITIVE) & (actions["timestamp"] >= END - timedelta(days=POPULAR_DAYS))
    ]
    daily = recent.groupby(["pin_id", recent["timestamp"].dt.floor("D")])["user_id"].nunique()
    age = (END - daily.index.get_level_values(1)).days - 1
    scores = (daily * 0.5 ** (age / HALF_LIFE_DAYS)).groupby("pin_id").sum()

    def members(topic: int) -> set[int]:
        below = {topic} | {t for t, parent in TOPICS.items() if parent == topic}
        return {p for p, row in pins.iterrows() if topic == 0 or below & set(row["topics"])}

    rows = pd.read_parquet(world.features / "topic_features").set_index("topic_id")
    assert set(rows.index) == {0, *TOPICS}
    for topic, row in rows.iterrows():
        assert row["pin_count"] == len(members(topic))
        assert row["parent_id"] == (TOPICS.get(topic) or 0)
        assert set(row["popular_pin_ids"]) == members(topic), "small topics are filled up with new pins"
        assert len(row["popular_pin_ids"]) <= TOPIC_POPULAR
        expected = scores.reindex(row["popular_pin_ids"], fill_value=0).to_numpy()
        np.testing.assert_allclose(row["popular_scores"], expected, rtol=1e-5)
        assert (np.diff(row["popular_scores"]) <= 0).all(), "best first"


def test_newest_pins_by_board(world: World) -> None:
    saves = world.tables["actions"].dropna(subset="board_id")
    latest = saves.groupby(["board_id", "pin_id"])["timestamp"].max().reset_index()
    latest = latest.sort_values(["timestamp", "pin_id"], ascending=[False, True])
    rows = pd.read_parquet(world.features / "board_features").set_index("board_id")
    for board, row in rows.drop(0).iterrows():
        expected = latest.loc[latest["board_id"] == board, "pin_id"].tolist()
        assert row["recent_pin_ids"].tolist() == expected[:BOARD_RECENT]
        assert row["pin_count"] == len(expected)
        assert row["owner_id"] == board


def test_pin_content_is_known_from_creation_on(world: World) -> None:
    rows = pd.read_parquet(world.features / "pin_content").set_index("pin_id")
    pins = world.tables["pins"].set_index("pin_id")
    assert rows["title"].isna().tolist() == pins["title"].isna().tolist()
    assert (rows["event_timestamp"] == pins["created_at"].astype(rows["event_timestamp"].dtype)).all()


def test_the_two_required_tables_are_enough(tmp_path: Path) -> None:
    tables = {name: frame for name, frame in history().items() if name in ("pins", "actions")}
    tables["pins"] = tables["pins"][["pin_id", "created_at"]]
    lake = write_lake(tmp_path / "lake", tables)
    rows = build_features(lake, tmp_path / "features", as_of=EARLY)
    assert rows["topic_features"] == 1, "topic 0, the whole catalogue"
    popular = pd.read_parquet(tmp_path / "features" / "topic_features")["popular_pin_ids"][0]
    assert len(popular) == len(tables["pins"])
    assert rows["user_sequence"] > 0 and rows["user_profile"] > 0


def test_a_cycle_of_topics_ends(tmp_path: Path) -> None:
    tables = history()
    tables["topics"].loc[tables["topics"]["topic_id"] == 1, "parent_id"] = 3
    lake = write_lake(tmp_path / "lake", tables)
    assert build_features(lake, tmp_path / "features", as_of=EARLY)["topic_features"] == 6


@pytest.mark.parametrize("as_of", [END + timedelta(hours=1), END.replace(tzinfo=None)])
def test_features_are_computed_for_midnights(world: World, tmp_path: Path, as_of: datetime) -> None:
    with pytest.raises(ValueError, match="UTC midnight"):
        build_features(world.lake, tmp_path, as_of=as_of)


def test_other_time_zones_do_not_move_the_days(
    world: World, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setitem(os.environ, "TZ", "Asia/Kolkata")
    time.tzset()
    try:
        build_features(world.lake, tmp_path, as_of=EARLY)
    finally:
        monkeypatch.undo()
        time.tzset()
    pd.testing.assert_frame_equal(contents(tmp_path, "pin_stats"), contents(short, "pin_stats"))
