"""Point-in-time joins: no future row, the rows as they came, equal to Feast's own join and to a naive one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo import point_in_time
from feature_repo.historical import join
from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from tests.feature_repo.conftest import DAYS, SPACE, START, World

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: int) -> datetime:
    return T0 + timedelta(hours=hours)


# Few keys and hours, so that ties, backfills (created after the event) and rows before any feature all happen.
asked = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), min_size=1, max_size=12)
known = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12), st.integers(0, 6)), max_size=14, unique=True)


def naive(rows: list[tuple], facts: list[tuple], ttl: int | None, by_created: bool) -> list[int | None]:
    answer = []
    for key, hour in rows:
        usable = [
            (event, event + delay, i)
            for i, (k, event, delay) in enumerate(facts)
            if k == key and event <= hour and (not by_created or event + delay <= hour)
        ]
        best = max(usable, default=None)
        answer.append(None if best is None or (ttl and best[0] + ttl < hour) else best[2])
    return answer


def tables(rows: list[tuple], facts: list[tuple]) -> tuple[pa.Table, pa.Table]:
    time = pa.timestamp("us", tz="UTC")
    left = pa.table(
        {"pin": pa.array([k for k, _ in rows], pa.int64()), "at": pa.array([at(h) for _, h in rows], time)}
    )
    right = pa.table(
        {
            "pin_id": pa.array([k for k, _, _ in facts], pa.int64()),
            "fact": pa.array(range(len(facts)), pa.int64()),
            "event": pa.array([at(e) for _, e, _ in facts], time),
            "created": pa.array([at(e + d) for _, e, d in facts], time),
        }
    )
    return left, right


@given(asked, known, st.sampled_from([None, 3]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_asof_join_equals_the_definition(rows, facts, ttl, by_created) -> None:
    left, right = tables(rows, facts)
    side = point_in_time.Side(
        right, {"pin_id": "pin"}, {"fact": "fact"}, "event", "created", timedelta(hours=ttl) if ttl else None
    )
    found = point_in_time.join(left, "at", [side], by_created=by_created)
    assert found.column("pin").to_pylist() == [key for key, _ in rows], "order and number of rows"
    assert found.column("fact").to_pylist() == naive(rows, facts, ttl, by_created)


@pytest.fixture(scope="module")
def stored(world: World, applied_home: Path, tmp_path_factory: pytest.TempPathFactory):
    """The world's features, offline only."""
    import shutil

    from feature_repo.store import open_store

    home = shutil.copytree(applied_home, tmp_path_factory.mktemp("offline") / "home")
    (home / "features").symlink_to(world.features)
    return open_store(home)


def requests(world: World, count: int = 400) -> pd.DataFrame:
    """Slates of five pins at one instant, in no order, with an index and a column of their own."""
    rng = np.random.default_rng(3)
    moments = START + pd.to_timedelta(rng.integers(0, DAYS * 86_400, count // 5), unit="s")
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(rng.integers(1, 28, count // 5), 5),
            "pin_id": rng.integers(1, 64, count),
            "event_timestamp": np.repeat(moments, 5),
            "label": rng.integers(0, 2, count),
        }
    )
    return pd.concat([frame, frame.head(7)]).sample(frac=1, random_state=1).set_index(np.arange(count + 7) * 3)


USER = [f"user_profile:{name}" for name in USER_SCALARS]
PIN = [f"pin_stats:{name}" for name in (*PIN_SCALARS, "topics")]


@pytest.mark.parametrize("chunk_rows", [10**6, 97])
def test_rows_come_back_as_they_came(stored, world: World, chunk_rows: int) -> None:
    rows = requests(world)
    found = join(stored, rows, [*USER, *PIN], full_feature_names=True, chunk_rows=chunk_rows)
    pd.testing.assert_frame_equal(found[rows.columns], rows, check_dtype=False)
    profiles = pd.read_parquet(world.features / "user_profile")
    stats = pd.read_parquet(world.features / "pin_stats")
    for i, row in enumerate(rows.sample(40, random_state=2).itertuples()):
        for table, key, view in ((profiles, "user_id", "user_profile"), (stats, "pin_id", "pin_stats")):
            past = table[(table[key] == getattr(row, key)) & (table["event_timestamp"] <= row.event_timestamp)]
            got = found.loc[row.Index]
            if past.empty:
                assert pd.isna(got[f"{view}__actions_7d"]), i
                continue
            latest = past.sort_values("event_timestamp", kind="stable").iloc[-1]
            for name in ("impressions_1d", "actions_7d", "positives_30d"):
                assert got[f"{view}__{name}"] == latest[name], (i, view, name)


def test_feasts_own_join_gives_the_same(stored, world: World) -> None:
    from feast.infra.offline_stores.duckdb import _write_data_source
    from feast.infra.offline_stores.ibis import get_historical_features_ibis

    from feature_repo.offline import _reader

    rows, refs = requests(world).reset_index(drop=True), [*USER, "pin_embedding:vector"]
    rows["space"] = SPACE
    views = [stored.get_feature_view(name) for name in ("user_profile", "pin_embedding")]
    theirs = get_historical_features_ibis(
        config=stored.config, feature_views=views, feature_refs=refs, entity_df=rows.copy(),
        registry=stored.registry, project=stored.project, data_source_reader=_reader(stored.config),
        data_source_writer=_write_data_source, filter_by_created_timestamp=True,
    ).to_df()  # fmt: skip
    mine = join(stored, rows, refs)
    order = ["user_id", "pin_id", "event_timestamp", "label"]
    mine, theirs = (f.sort_values(order, ignore_index=True) for f in (mine, theirs[mine.columns]))
    pd.testing.assert_frame_equal(mine.drop(columns="vector"), theirs.drop(columns="vector"), check_dtype=False)
    for a, b in zip(mine["vector"], theirs["vector"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_future_row_does_not_leak(stored, world: World, tmp_path: Path) -> None:
    """The counters of a request before midnight do not know the action of that day; a moment later they do."""
    first = world.tables["actions"].sort_values("timestamp").iloc[0]
    midnight = first["timestamp"].normalize() + timedelta(days=1)
    rows = pd.DataFrame(
        {"user_id": int(first["user_id"]), "event_timestamp": [midnight - timedelta(microseconds=1), midnight]}
    )
    before, after = join(stored, rows, ["user_profile:actions_1d"])["actions_1d"].fillna(0)
    assert before == 0 and after >= 1


def test_request_time_features_join_offline_too(stored, world: World) -> None:
    rows = pd.DataFrame({"pin_id": [1], "event_timestamp": [pd.Timestamp(START + timedelta(days=3))]})
    rows["request_time_ms"] = int((START + timedelta(days=3)).timestamp() * 1000)
    created = world.tables["pins"].set_index("pin_id").loc[1, "created_at"]
    age = join(stored, rows, ["pin_age:pin_age_days"])["pin_age_days"][0]
    assert age == pytest.approx((START + timedelta(days=3) - created) / timedelta(days=1), abs=1e-6)


def test_no_rows_are_an_empty_answer(stored) -> None:
    rows = pd.DataFrame(
        {"user_id": pd.Series(dtype="int64"), "event_timestamp": pd.Series(dtype="datetime64[us, UTC]")}
    )
    found = join(stored, rows, USER[:2])
    assert len(found) == 0 and list(found.columns) == ["user_id", "event_timestamp", *USER_SCALARS[:2]]


def test_a_view_without_files_is_missing_everywhere(stored) -> None:
    rows = pd.DataFrame({"user_id": [1], "space": [SPACE], "event_timestamp": [pd.Timestamp(START)]})
    assert join(stored, rows, ["user_embedding:vector"])["vector"][0] is None


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pd.Series(pd.to_datetime(["2026-01-01"])), "with zone"),
        (pd.Series(pd.to_datetime(["2026-01-01", None], utc=True)), "missing in 1 rows"),
        (None, "need a column event_timestamp"),
    ],
)
def test_rows_without_a_usable_time_are_refused(stored, times, message: str) -> None:
    rows = pd.DataFrame({"user_id": [1] * (1 if times is None else len(times))})
    if times is not None:
        rows["event_timestamp"] = times
    with pytest.raises(ValueError, match=message):
        join(stored, rows, USER[:1])
