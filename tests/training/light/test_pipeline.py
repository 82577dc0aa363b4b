"""The light ranker from a lake to a registered version, where what is popular misleads."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import write_lake
from tests.training.light.planted import END, GOOD, PINS, USERS, Counted, catalogue, kind_of, planted
from tests.training.pipelines.conftest import GiveRegistry, context
from training.context import TrainingContext
from training.light.logged import logged_requests
from training.light.measure import LIGHT, MERGE, TWO_TOWER
from training.models.light_ranking import LightRanker
from training.pipelines.fitting import NothingToLearn
from training.pipelines.light import (
    MODEL,
    SOURCES_TAG,
    LightPipeline,
    chosen,
    comparable_releases,
    train_light,
)
from training.pipelines.light_fitting import LightConfig
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import RELEASE_MODEL, Part

CONFIG = LightPipeline(trees=LightConfig(rounds=30, depth=3, threads=1), users=80, cut=60, budget=40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, give_registry: GiveRegistry) -> TrainingContext:
    root = tmp_path_factory.mktemp("light")
    give_registry(root)
    planted(root / "lake")
    return context(root)


@pytest.fixture(scope="module")
def features(home: TrainingContext) -> Counted:
    return Counted(Lake(home.lake))


@pytest.fixture(scope="module")
def part(home: TrainingContext, features: Counted) -> Part:
    return train_light(home, features, {}, catalogue(Lake(home.lake)), CONFIG)


def test_it_keeps_what_popularity_throws_away(part: Part) -> None:
    kept = part.metrics
    assert kept["fetched/mean"] > 100, "40 of them go on"
    assert kept["light/kept"] > kept["merge/kept"] + kept["light/gain_error_over_merge"]
    assert kept["light/kept"] > kept["source_score/kept"] + kept["light/gain_error_over_source_score"]
    assert "two_tower/kept" not in kept
    assert 0 < kept["fetched/share_of_engaged"] <= 1


def test_the_version_says_what_it_was_made_of(home: TrainingContext, part: Part) -> None:
    registry = Registry(home.mlflow_uri, home.mlflow_artifacts)
    version = registry.version(MODEL, part.version)
    assert "| order | engaged pins kept among 40 |" in version.description
    assert "replayed requests" in version.description and version.tags[SOURCES_TAG] == ""
    assert registry.learned_until(MODEL, part.version) == END - timedelta(days=7), "the tested days"
    ranker = LightRanker.load(registry.download(MODEL, part.version))
    assert ranker.spec.sources == ("popular_by_topic",)
    importance = ranker.booster.get_score(importance_type="total_gain")
    assert max(importance, key=lambda name: importance[name]) == "pin_rate_30d"


def test_nothing_of_the_tested_days_is_learned(features: Counted) -> None:
    """Counters are asked for as of each replayed midnight, the last one being the tests' own."""
    assert max(features.asked) == pd.Timestamp(END - timedelta(days=7))


def test_an_unchanged_run_does_nothing(home: TrainingContext, features: Counted, part: Part) -> None:
    asked = len(features.asked)
    again = train_light(home, features, {}, catalogue(Lake(home.lake)), CONFIG)
    assert again.version == part.version and len(features.asked) == asked
    kept = train_light(
        replace(home, keep_weights=True), features, {}, catalogue(Lake(home.lake)), LightPipeline()
    )
    assert kept.version == part.version, "other settings, and yet the sources' weights are the same"


def test_who_keeps_most_orders() -> None:
    def measured(**kept: float) -> Part:
        return Part(model=MODEL, version=1, metrics={f"{order}/kept": value for order, value in kept.items()})

    tower = {TWO_TOWER: Part(model=TWO_TOWER, version=1)}
    assert chosen(tower, measured(light=0.8, two_tower=0.7, merge=0.6)) == LIGHT
    assert chosen(tower, measured(light=0.7, two_tower=0.8, merge=0.6)) == TWO_TOWER
    assert chosen(tower, measured(light=0.7, two_tower=0.6, merge=0.8)) == MERGE
    assert chosen({}, measured(light=0.7, two_tower=0.8, merge=0.6)) == LIGHT, "a two-tower that is left out"
    assert (chosen(tower, None), chosen({}, None)) == (TWO_TOWER, MERGE)


def test_nothing_shown_teaches_nothing(tmp_path: Path, home: TrainingContext, features: Counted) -> None:
    lake = planted(tmp_path / "lake")
    frame = lake.read("impressions")
    assert logged_requests(lake, END - timedelta(days=9), END) == ([], [])
    for file in lake.files("impressions"):
        rows = pd.read_parquet(file)
        rows.iloc[:1].to_parquet(file)
    assert len(frame) > len(lake.read("impressions"))
    with pytest.raises(NothingToLearn, match="shown in vain"):
        train_light(replace(home, lake=lake.path), features, {}, catalogue(lake), CONFIG)


def test_good_pins_are_what_it_learned(home: TrainingContext, part: Part) -> None:
    acted = Lake(home.lake).read("actions", ["pin_id"], start=END - timedelta(days=4))["pin_id"].to_numpy()
    assert (kind_of(acted) == GOOD).mean() > 0.5, "the planted truth"


def log_of(lake: Lake, cut: int = 10) -> pd.DataFrame:
    """What a funnel would have logged of the lake's pages: each as shown, with pins that it cut."""
    rng = np.random.default_rng(0)
    shown = lake.read("impressions", ["request_id", "user_id", "pin_id", "position", "timestamp"])
    shown = shown.rename(columns={"position": "rank"}).assign(stage="shown", logged=1.0)
    pages = shown.drop_duplicates("request_id")
    others = pages.loc[pages.index.repeat(cut)].assign(stage="light", logged=0.5)
    others["pin_id"], others["rank"] = rng.integers(1, PINS + 1, len(others)), rng.integers(50, 90, len(others))
    rows = pd.concat([shown, others]).drop_duplicates(["request_id", "pin_id"])
    return rows.assign(source="popular_by_topic", score=1.0 / (1 + rows["rank"]), release=1)


def test_the_funnels_log_takes_the_replays_place(
    tmp_path: Path, home: TrainingContext, give_registry: GiveRegistry
) -> None:
    """Where it holds enough pins acted on, under releases whose sources have the present weights."""
    give_registry(tmp_path)
    ctx, lake = context(tmp_path), Lake(tmp_path / "lake")
    shutil.copytree(home.lake, lake.path)
    write_lake(lake.path, {"candidates": log_of(lake)}, lake.contract())
    config = CONFIG.model_copy(update={"least_logged": 50, "log_days": 5})
    features, pins = Counted(lake), catalogue(lake)

    def told(config: LightPipeline) -> str:
        part = train_light(ctx, features, {}, pins, config)
        return Registry(ctx.mlflow_uri, ctx.mlflow_artifacts).version(MODEL, part.version).description

    assert "replayed requests" in told(config), "no release is known to have logged it"
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    registry.ensure_model(RELEASE_MODEL)
    run = registry.client.create_run(registry.experiment())
    registry.client.create_model_version(RELEASE_MODEL, "file:///nowhere", run.info.run_id)
    assert comparable_releases(registry, {}) == {1}
    enough = config.model_copy(update={"least_logged": 60})
    assert f"{USERS * 4} logged requests" in told(enough), "of the log's five days the last has no answers yet"
