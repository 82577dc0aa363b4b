"""The demo world: valid tables, reproducible, learnable, and true to what it planted."""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ET
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tests.training.data.worlds import END, World, tiny_world
from training.data.world import simulate
from training.data.world_config import LoggingPolicy, WorldConfig
from training.data.world_pictures import picture
from validation.tables import TABLES


@pytest.fixture(scope="module")
def world() -> World:
    return tiny_world()


def _digest(root: Path) -> str:
    sha = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()):
        sha.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return sha.hexdigest()


def test_equal_configurations_write_equal_bytes(tmp_path: Path, world: World) -> None:
    again = simulate(tmp_path / "again", world.config)
    assert _digest(again.root) == _digest(world.paths.root)
    other = simulate(tmp_path / "other", world.config.model_copy(update={"seed": 8}))
    assert _digest(other.tables) != _digest(world.paths.tables)


def test_an_existing_world_is_not_written_over(world: World) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        simulate(world.paths.root, world.config)


def test_files_have_the_contracts_columns(world: World) -> None:
    for name, table in TABLES.items():
        if name in ("ads", "candidates"):  # this world has none
            continue
        place = world.paths.tables / name
        files = sorted(place.glob("*.parquet")) if place.is_dir() else [place.with_suffix(".parquet")]
        assert len(files) == (world.config.days if table.by_day else 1)
        for file in files:
            for column in pq.read_schema(file):
                expected = "string" if column.name == "action" else str(table.schema.field(column.name).type)
                assert str(column.type).replace("element", "item") == expected, (name, column.name)
            assert set(table.required) <= set(pq.read_schema(file).names)


def test_each_day_file_holds_its_day_and_nothing_later_than_the_end(world: World) -> None:
    for name in ("actions", "impressions"):
        for file in (world.paths.tables / name).glob("*.parquet"):
            days = pq.read_table(file, columns=["timestamp"]).to_pandas()["timestamp"].dt.strftime("%Y-%m-%d")
            assert set(days) <= {file.stem}
    end = pd.Timestamp(END, tz="UTC")
    for name, column in (("pins", "created_at"), ("users", "created_at"), ("follows", "timestamp")):
        assert world.frames[name][column].max() < end, name


def test_references_hold(world: World) -> None:
    frames = world.frames
    known = {kind: set(frames[f"{kind}s"][f"{kind}_id"]) for kind in ("pin", "user", "board", "topic")}
    actions, impressions, follows = frames["actions"], frames["impressions"], frames["follows"]
    for events in (actions, impressions):
        assert set(events["pin_id"]) <= known["pin"]
        assert set(events["user_id"]) <= known["user"]
    assert set(actions["board_id"].dropna()) <= known["board"]
    assert set(follows["board_id"].dropna()) <= known["board"]
    assert set(follows["topic_id"].dropna()) <= known["topic"]
    assert set(frames["pins"]["topics"].explode().dropna()) <= known["topic"]
    assert set(frames["topics"]["parent_id"].dropna()) <= known["topic"]
    assert (follows["topic_id"].isna() != follows["board_id"].isna()).all()
    assert not follows.duplicated(["user_id", "topic_id", "board_id"]).any()
    for name, key in (("actions", ["event_id"]), ("impressions", ["request_id", "pin_id"])):
        assert not frames[name].duplicated(key).any()
    owner = frames["boards"].set_index("board_id")["user_id"]
    saves = actions[actions["board_id"].notna()]
    assert (owner.loc[saves["board_id"]].to_numpy() == saves["user_id"].to_numpy()).all()
    followed = follows[follows["board_id"].notna()]
    assert (owner.loc[followed["board_id"]].to_numpy() != followed["user_id"].to_numpy()).all()


def test_pins_and_users_are_seen_only_after_they_exist(world: World) -> None:
    shown = world.frames["impressions"]
    for kind in ("pin", "user"):
        made = world.frames[f"{kind}s"].set_index(f"{kind}_id")["created_at"]
        assert (shown["timestamp"].to_numpy() > made.loc[shown[f"{kind}_id"]].to_numpy()).all(), kind


def test_every_action_answers_an_impression_after_it(world: World) -> None:
    both = world.frames["actions"].merge(
        world.frames["impressions"], on=["request_id", "pin_id"], how="left", suffixes=("", "_shown")
    )
    assert (both["user_id"] == both["user_id_shown"]).all()
    late = both["timestamp"] - both["timestamp_shown"]
    assert late.min() > timedelta(0)
    assert late.max() < timedelta(minutes=5)


def test_positions_count_from_zero_without_gaps(world: World) -> None:
    pages = (
        world.frames["impressions"].groupby("request_id")["position"].agg(["min", "max", "count", "nunique"])
    )
    assert (pages["min"] == 0).all()
    assert (pages["max"] + 1 == pages["count"]).all()
    assert (pages["count"] == pages["nunique"]).all()


def test_searches_carry_their_query(world: World) -> None:
    actions = world.frames["actions"]
    searched = actions["surface"] == "search"
    assert searched.mean() > 0.1
    assert actions.loc[searched, "query"].str.len().min() > 2
    assert actions.loc[~searched, "query"].isna().all()


def test_rates_skew_and_position_bias_are_those_of_a_real_log(world: World) -> None:
    shown, actions = world.frames["impressions"], world.frames["actions"]
    opened = actions.loc[actions["action"] == world.contract.vocabulary.code("closeup")]
    rate = len(opened) / len(shown)
    assert 0.05 < rate < 0.15
    rows = shown.merge(opened[["request_id", "pin_id", "event_id"]], how="left")
    by_position = rows["event_id"].notna().groupby(rows["position"]).mean()
    assert by_position[:3].mean() > 1.5 * by_position[12:18].mean()
    per_pin = opened["pin_id"].value_counts()
    head = per_pin.iloc[: world.config.pins // 10].sum() / per_pin.sum()
    assert 0.25 < head < 0.7  # a tenth of the pins draws a third of the attention, not all of it


def test_pictures_are_small_and_well_formed(world: World) -> None:
    images = world.frames["pins"]["image"]
    assert images.str.len().max() < 600
    for image in images[:200]:
        head, _, body = image.partition(",")
        assert head == "data:image/svg+xml"
        assert ET.fromstring(unquote(body)).tag.endswith("svg")
    assert images.nunique() > 0.9 * len(images)


def test_every_scene_stays_small_whatever_its_numbers() -> None:
    colours = ("%23abcdef",) * 5
    rng = np.random.default_rng(0)
    for root in range(8):
        sizes = [len(picture(root, colours, rng.integers(0, 1000, 8).tolist())) for _ in range(500)]
        assert max(sizes) < 600


def test_blocks_bound_what_is_in_memory_and_change_no_rule(tmp_path: Path) -> None:
    config = WorldConfig(users=90, pins=400, days=3, end=END, block_users=40, block_pins=150, leaves_per_root=2)
    paths = simulate(tmp_path / "world", config)
    users = pq.read_table(paths.tables / "users.parquet").to_pandas()
    pins = pq.read_table(paths.tables / "pins.parquet").to_pandas()
    assert users["user_id"].tolist() == list(range(1, 91))
    assert pins["pin_id"].tolist() == list(range(1, 401))
    shown = pq.read_table(paths.tables / "impressions").to_pandas()
    assert not shown.duplicated(["request_id", "pin_id"]).any()
    assert shown["user_id"].max() > 80


def test_a_world_without_pictures(tmp_path: Path) -> None:
    paths = simulate(tmp_path / "w", WorldConfig(users=20, pins=50, days=1, end=END, images=False))
    assert pq.read_table(paths.tables / "pins.parquet")["image"].null_count == 50


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"users": 0}, "users"),
        ({"pins": 5, "colour": 1}, "colour"),
        ({"leaves_per_root": 7}, "leaves_per_root"),
    ],
)
def test_bad_configurations_are_named(wrong: dict, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        WorldConfig(**{"users": 10, "pins": 10, "days": 2, **wrong})


def test_policy_shares_must_sum_to_one() -> None:
    with pytest.raises(ValidationError, match="sum to 1"):
        LoggingPolicy(interest=0.9)
