"""Records of an impression log against loops over its rows, and a planted log that moves the draw."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.pipelines.conftest import context
from training.models.pinnersage import Interests, PinnerSageConfig, sample_medoids
from training.models.query_rewards import RewardConfig
from training.pipelines import pinnersage
from training.pipelines.publish import Publisher
from training.pipelines.query_records import ANSWER_WINDOW, QueryRecords, read_records
from validation.ingest import ingest
from validation.lake import Lake
from validation.manifest import Part

END = datetime(2026, 3, 10, tzinfo=UTC)
START = END - timedelta(days=6)
LIKED, SHUNNED, UNSEEN = 5, 6, 7
"""Medoids of user 1: shown alike, of which only the first is ever engaged with, and one never searched from."""


def lake_of(folder: Path, impressions: pd.DataFrame, actions: pd.DataFrame) -> Lake:
    source = folder / "source"
    source.mkdir(parents=True)
    pins = pd.DataFrame({"pin_id": np.arange(1, 61), "created_at": START - timedelta(days=1)})
    for name, rows in (("pins", pins), ("impressions", impressions), ("actions", actions)):
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), source / f"{name}.parquet")
    ingest(source, folder / "lake", folder / "quarantine", folder / "reports", checkpoint=False)
    return Lake(folder / "lake")


def random_log(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    n = 900
    at = START + pd.to_timedelta(np.sort(rng.integers(0, 6 * 24 * 60, n)), unit="min")
    shown = pd.DataFrame(
        {
            "request_id": np.arange(1, n + 1),
            "user_id": rng.integers(1, 6, n),
            "pin_id": rng.integers(1, 61, n),
            "position": np.zeros(n, np.int32),
            "timestamp": at,
            "source": rng.choice(["pinnersage", "dcm"], n),
            "anchor": pd.array(np.where(rng.random(n) < 0.2, None, rng.integers(1, 5, n)), "Int64"),
        }
    )
    some = shown.sample(frac=0.4, random_state=seed, replace=True)
    late = pd.to_timedelta(rng.integers(1, 40 * 60, len(some)), unit="min")
    actions = pd.DataFrame(
        {
            "user_id": some["user_id"].to_numpy(),
            "pin_id": some["pin_id"].to_numpy(),
            "action": rng.choice(["save", "click", "hide"], len(some)),
            "timestamp": (some["timestamp"] + late).to_numpy(),
            "event_id": np.arange(1, len(some) + 1),
            "request_id": np.where(rng.random(len(some)) < 0.6, some["request_id"], 0),
        }
    )
    actions["timestamp"] = pd.to_datetime(actions["timestamp"], utc=True)
    return shown, actions


def naive(shown: pd.DataFrame, actions: pd.DataFrame) -> dict[int, dict[int, list[int]]]:
    """Loops over rows: which impression does each positive action answer, and whose medoid brought it?"""
    engaged: set[int] = set()
    for act in actions[actions["action"] != "hide"].itertuples():
        if not START <= act.timestamp < END:
            continue
        best = None
        for row in shown.itertuples():
            late = act.timestamp - row.timestamp
            if (row.user_id, row.pin_id) != (act.user_id, act.pin_id) or late > ANSWER_WINDOW:
                continue
            named = act.request_id and row.request_id == act.request_id
            if named or (not act.request_id and late >= timedelta(0)):
                best = row.Index
        if best is not None:
            engaged.add(best)
    out: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    for row in shown.itertuples():
        if row.source == "pinnersage" and row.anchor is not pd.NA and START <= row.timestamp < END:
            out[row.user_id][int(row.anchor)][0] += 1
            out[row.user_id][int(row.anchor)][1] += row.Index in engaged
    return out


@pytest.mark.parametrize("seed", [1, 2])
def test_records_are_those_of_loops_over_the_log(tmp_path: Path, seed: int) -> None:
    shown, actions = random_log(seed)
    found = read_records(lake_of(tmp_path, shown, actions), START, END)
    wanted = naive(shown, actions)
    assert found.by_user.keys() == wanted.keys()
    for user, record in found.by_user.items():
        anchors = sorted(wanted[user])
        assert record.medoid_pin_ids.tolist() == anchors
        assert record.impressions.tolist() == [wanted[user][a][0] for a in anchors]
        assert record.engagements.tolist() == [wanted[user][a][1] for a in anchors]
    counts = np.array([c for user in wanted.values() for c in user.values()])
    assert counts[:, 1].sum() > 20
    assert found.base_rate == pytest.approx(counts[:, 1].sum() / counts[:, 0].sum())


def test_nothing_from_the_end_on_is_known(tmp_path: Path) -> None:
    shown, actions = random_log(3)
    whole = read_records(lake_of(tmp_path / "whole", shown, actions), START, END - timedelta(days=2))
    cut = END - timedelta(days=2)
    before = lake_of(tmp_path / "cut", shown[shown["timestamp"] < cut], actions[actions["timestamp"] < cut])
    again = read_records(before, START, END)
    assert whole.base_rate == again.base_rate and whole.by_user.keys() == again.by_user.keys()
    for user, record in whole.by_user.items():
        np.testing.assert_array_equal(record.impressions, again.by_user[user].impressions)
        np.testing.assert_array_equal(record.engagements, again.by_user[user].engagements)


def planted(folder: Path, anchored: bool = True) -> Lake:
    """Two medoids bring 40 pins each; the user saves every third pin of one, none of the other."""
    n = 80
    anchors = np.where(np.arange(n) % 2 == 0, LIKED, SHUNNED)
    at = START + pd.to_timedelta(np.arange(n) * 90, unit="min")
    shown = pd.DataFrame(
        {
            "request_id": np.arange(1, n + 1),
            "user_id": 1,
            "pin_id": np.arange(n) % 50 + 10,
            "position": np.zeros(n, np.int32),
            "timestamp": at,
            "source": "pinnersage",
        }
    )
    if anchored:
        shown["anchor"] = anchors
    saved = shown[(anchors == LIKED) & (np.arange(n) % 3 == 0)]
    actions = pd.DataFrame(
        {
            "user_id": 1,
            "pin_id": saved["pin_id"],
            "action": "save",
            "timestamp": saved["timestamp"] + timedelta(minutes=5),
            "event_id": np.arange(1, len(saved) + 1),
            "request_id": saved["request_id"],
        }
    )
    return lake_of(folder, shown, actions)


def equals(medoids: list[int]) -> Interests:
    ids = np.array(medoids, np.int64)
    ones = np.ones(len(ids), np.float32)
    return Interests(ids, ones, ones.astype(np.int64), np.eye(len(ids), 4, dtype=np.float32))


def drawn(interests: Interests, draws: int = 3_000) -> Counter[int]:
    ids = interests.medoid_pin_ids
    return Counter(int(ids[sample_medoids(interests, 1, seed=seed)[0]]) for seed in range(draws))


def test_the_cluster_that_is_engaged_with_is_drawn_more_often(tmp_path: Path) -> None:
    """Of three equal clusters: the liked one most, the shunned one least, the one without a record between."""
    records = read_records(planted(tmp_path), START, END)
    before = equals([LIKED, SHUNNED, UNSEEN])
    after = records.reward(1, before)
    flat, moved = drawn(before), drawn(after)
    assert max(flat.values()) < 1.15 * min(flat.values())
    assert moved[LIKED] > 1.2 * moved[UNSEEN] > 1.2 * moved[SHUNNED] > 0
    assert after.medoid_pin_ids.tolist() == [LIKED, UNSEEN, SHUNNED], "heaviest first"
    shares = after.importances / after.importances.sum()
    for place, medoid in enumerate(after.medoid_pin_ids.tolist()):
        assert moved[medoid] / 3_000 == pytest.approx(shares[place], abs=0.03)
    stronger = records.reward(1, before, RewardConfig(prior_impressions=5))
    assert stronger.importances[0] > after.importances[0]


def test_a_log_without_anchors_changes_nothing(tmp_path: Path) -> None:
    records = read_records(planted(tmp_path, anchored=False), START, END)
    interests = equals([LIKED, SHUNNED])
    assert records.by_user == {} and records.reward(1, interests) is interests
    assert QueryRecords().reward(1, interests) is interests


def test_users_without_a_record_keep_their_importances(tmp_path: Path) -> None:
    records = read_records(planted(tmp_path), START, END)
    interests = equals([LIKED, SHUNNED])
    assert records.reward(2, interests) is interests


@pytest.mark.parametrize("switch", [True, False])
def test_published_importances_carry_the_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: bool
) -> None:
    lake = planted(tmp_path)
    found = equals([LIKED, SHUNNED, UNSEEN])
    monkeypatch.setattr(pinnersage, "load_config", lambda ctx, part: PinnerSageConfig(query_rewards=switch))
    monkeypatch.setattr(pinnersage, "read_actions", lambda *_: None)
    monkeypatch.setattr(pinnersage, "all_interests", lambda *_: iter([(1, found), (2, found)]))
    monkeypatch.setattr(Publisher, "materialize", lambda *_: None)
    ctx = context(tmp_path)
    part = Part(model="pinnersage", version=1, space="content@1")
    Publisher(ctx).interests(part, part)
    (file,) = (ctx.features / "user_interests").glob("*.parquet")
    rows = pq.read_table(file).to_pandas().set_index("user_id")
    assert rows.loc[2, "importances"].tolist() == [1, 1, 1], "nobody showed this user anything"
    wanted = read_records(lake, START, lake.interval()[1]).reward(1, found) if switch else found
    assert rows.loc[1, "medoid_pin_ids"].tolist() == wanted.medoid_pin_ids.tolist()
    np.testing.assert_allclose(rows.loc[1, "importances"], wanted.importances)
    assert (rows.loc[1, "importances"][0] > 1) is np.bool_(switch)
