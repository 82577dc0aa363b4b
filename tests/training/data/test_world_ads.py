"""Sponsored pins of a world: added beside it, shown while they run, answered by their source's law."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import world_frames
from tests.training.data.worlds import World, tiny_world
from training.data.world import WorldPaths, simulate
from training.data.world_ads import FIRST_ID
from training.data.world_config import AdsConfig
from validation.ingest import ingest
from validation.lake import Lake


@dataclass(frozen=True)
class AdsWorld:
    paths: WorldPaths
    frames: dict[str, pd.DataFrame]

    @property
    def shown(self) -> pd.DataFrame:
        rows = self.frames["impressions"]
        return rows[rows["surface"] == "related_ads"]

    @property
    def done(self) -> pd.DataFrame:
        rows = self.frames["actions"]
        return rows[rows["surface"] == "related_ads"]


@pytest.fixture(scope="module")
def plain() -> World:
    return tiny_world()


@pytest.fixture(scope="module")
def world(plain: World, tmp_path_factory: pytest.TempPathFactory) -> AdsWorld:
    """The tiny world with ads."""
    config = plain.config.model_copy(update={"ads": AdsConfig()})
    paths = simulate(tmp_path_factory.mktemp("ads") / "world", config)
    return AdsWorld(paths, world_frames(paths)[0])


def test_everything_else_is_the_world_without_ads(plain: World, world: AdsWorld) -> None:
    for file in plain.paths.tables.rglob("*.parquet"):
        twin = world.paths.tables / file.relative_to(plain.paths.tables)
        assert file.read_bytes() == twin.read_bytes(), file
    share = len(world.shown) / len(plain.frames["impressions"])
    assert 0.03 < share < 0.11


def test_ads_are_shown_beside_an_opened_pin_while_they_run(world: AdsWorld) -> None:
    shown = world.shown.merge(world.frames["ads"], on="pin_id", suffixes=("", "_ad"))
    assert len(shown) == len(world.shown)
    assert (shown["starts_at"] <= shown["timestamp"]).all()
    assert (shown["timestamp"] <= shown["ends_at"]).all()
    assert (shown["bid"] == shown["bid_ad"]).all()
    assert (shown["source"] == shown["source_ad"]).all()
    assert (shown["anchor"] != shown["pin_id"]).all()
    actions = world.frames["actions"]
    opened = actions[(actions["action"] == 1) & (actions["surface"] != "related_ads")]
    pairs = pd.MultiIndex.from_frame(opened[["user_id", "pin_id"]])
    assert pd.MultiIndex.from_frame(shown[["user_id", "anchor"]]).isin(pairs).all()
    assert set(shown["position"]) == {3, 7}
    assert (shown["request_id"] >= FIRST_ID).all()
    assert not world.frames["impressions"].duplicated(["request_id", "pin_id"]).any()
    assert not actions["event_id"].duplicated().any()


def test_propensities_are_those_of_the_draws(world: AdsWorld) -> None:
    # the expected number of pages that hold a campaign is the sum of what every page gave it; pages show
    # where it came up, so the mean of 1 / propensity over a page's ads estimates how many could come
    shown = world.shown
    assert shown["propensity"].between(0, 1, inclusive="right").all()
    live = len(world.frames["ads"])
    per_page = (1 / shown["propensity"]).groupby(shown["request_id"]).sum().mean()
    assert 0.3 * live < per_page < live


def test_each_source_is_answered_by_its_own_law(world: AdsWorld) -> None:
    pins = pd.read_parquet(world.paths.truth / "pins.parquet").set_index("pin_id")
    clicks = world.done[world.done["action"] == 2][["request_id", "pin_id"]].assign(clicked=1)
    rows = world.shown.merge(clicks, on=["request_id", "pin_id"], how="left").fillna({"clicked": 0})
    rows["quality"] = pins.loc[rows["pin_id"], "quality"].to_numpy()
    rows["topical"] = (
        pins.loc[rows["pin_id"], "topic_id"].to_numpy() == pins.loc[rows["anchor"], "topic_id"].to_numpy()
    )
    lift = {}
    for source, part in rows.groupby("source"):
        by_quality = part.groupby(part["quality"] > 0)["clicked"].mean()
        by_topic = part.groupby("topical")["clicked"].mean()
        lift[source] = (by_quality[True] / by_quality[False], by_topic[True] / by_topic[False])
    assert lift["shopping"][0] > 1.5 * lift["standard"][0]
    assert lift["standard"][1] > 1.5 * lift["shopping"][1]
    assert 0.005 < rows["clicked"].mean() < 0.06


def test_the_world_passes_the_door(world: AdsWorld, tmp_path: Path) -> None:
    now = pd.Timestamp("2026-03-02", tz="UTC").to_pydatetime()
    report = ingest(
        world.paths.tables,
        tmp_path / "lake",
        tmp_path / "quarantine",
        tmp_path / "reports",
        now=now,
        checkpoint=False,
    )
    assert all(not table.quarantined for table in report.tables.values())
    lake = Lake(tmp_path / "lake")
    assert lake.rows("ads") == len(world.frames["ads"])
    back = lake.read("impressions", ["surface", "bid", "anchor"])
    assert (back["bid"].notna() == (back["surface"] == "related_ads")).all()
    assert np.isclose(back["bid"].sum(), world.shown["bid"].sum())
