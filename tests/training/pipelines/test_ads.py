"""The ads step on a small world with ads: point-in-time rows of one surface, registered with what it beat."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.training.data.lakes import world_frames, write_lake
from tests.training.data.oracle import NaivePointInTime
from training.ads.examples import read_examples
from training.ads.trainer import AdsTraining
from training.context import TrainingContext
from training.data.feature_join import Catalogue
from training.data.training_set import PinVectors, TrainingSet, TrainingSetConfig, build
from training.data.world import simulate
from training.data.world_config import AdsConfig, WorldConfig
from training.models.ads.config import CONTEXT, DENSE
from training.models.ads.model import AdsModel
from training.models.interactions import Pins
from training.pipelines.ads import LEAST_AUC, MODEL, TUNED, shortfall, split_of, train_ads, training_of
from training.registry import Registry
from validation.lake import Lake
from validation.manifest import Part
from validation.tables import Polarity

SPACE = "content@1"
CONTENT = Part(model="content", version=1, space=SPACE)
QUICK = AdsTraining(epochs=1, min_positives=5)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, pd.DataFrame]]:
    root = tmp_path_factory.mktemp("world")
    config = WorldConfig.tiny(
        days=8, end=date(2026, 3, 2), images=False, ads=AdsConfig(page_share=1.0, slots=4)
    )
    found, contract = world_frames(simulate(root / "world", config))
    return write_lake(root / "lake", found, contract), found


@pytest.fixture(scope="module")
def ctx(frames: tuple[Lake, dict], tmp_path_factory: pytest.TempPathFactory) -> TrainingContext:
    home = tmp_path_factory.mktemp("home")
    return TrainingContext(
        lake=frames[0].path,
        features=home / "features",
        training_sets=home / "training_sets",
        feast_home=str(home),
        mlflow_uri=f"sqlite:///{home / 'mlflow.db'}",
        mlflow_artifacts=home / "artifacts",
        milvus_uri="",
    )


@pytest.fixture(scope="module")
def pins(frames: tuple[Lake, dict]) -> Pins:
    rows = frames[1]["pins"].sort_values("pin_id")
    vectors = np.stack(rows["visual_embedding"].to_list()).astype(np.float32)
    return Catalogue.of(frames[0], PinVectors(SPACE, rows["pin_id"].to_numpy(), vectors)).pins


@pytest.fixture(scope="module")
def rows(frames: tuple[Lake, dict], pins: Pins, ctx: TrainingContext) -> TrainingSet:
    lake, found = frames
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    start, end = lake.interval()
    return build(
        lake,
        NaivePointInTime(found["actions"], found["follows"], positive, False),
        ctx.training_sets / "ads",
        start=start,
        end=end,
        vectors=PinVectors(SPACE, pins.ids, pins.vectors),
        config=TrainingSetConfig(ads=True),
    )


def test_the_set_holds_ads_alone_and_others_hold_none(
    rows: TrainingSet, frames: tuple[Lake, dict], pins: Pins, tmp_path: Path
) -> None:
    lake, found = frames
    shown = found["impressions"]
    ads = shown["surface"] == "related_ads"
    assert rows.info.rows == ads.sum()
    assert set(rows.read(["surface"])["surface"]) == {"related_ads"}
    done = found["actions"][found["actions"]["surface"] == "related_ads"]
    assert rows.info.actions_answering == len(done)
    positive = lake.contract().vocabulary.codes(Polarity.POSITIVE)
    end = lake.interval()[1]
    organic = build(
        lake,
        NaivePointInTime(found["actions"], found["follows"], positive, False),
        tmp_path / "organic",
        start=end - pd.Timedelta(days=1),
        end=end,
    )
    assert "related_ads" not in set(organic.read(["surface"])["surface"])
    assert organic.info.rows == (~ads & (shown["timestamp"] >= end - pd.Timedelta(days=1))).sum()


def test_an_ad_is_read_beside_the_pin_it_was_shown_with(
    rows: TrainingSet, frames: tuple[Lake, dict], pins: Pins
) -> None:
    lake, found = frames
    examples = read_examples(rows, lake, pins, rows.interval)
    keys = rows.read(["request_id", "pin_id"])
    shown = found["impressions"].set_index(["request_id", "pin_id"])
    some = np.random.default_rng(0).integers(0, len(keys), 40)
    at = [f.name for f in DENSE].index(CONTEXT[0])
    for row in some:
        one = shown.loc[tuple(keys.iloc[row])]
        anchor, pin = (np.searchsorted(pins.ids, i) for i in (one["anchor"], keys.iloc[row]["pin_id"]))
        cosine = float(pins.vectors[anchor] @ pins.vectors[pin])
        assert examples.rows.dense[row, at] == pytest.approx(cosine, abs=1e-5)
        assert examples.sources[row] == one["source"]
        assert examples.rows.dense[row, at + 2] == one["position"]
    assert len(examples) == rows.info.rows


def test_a_version_says_what_it_beat_and_is_not_made_twice(
    ctx: TrainingContext, rows: TrainingSet, pins: Pins
) -> None:
    part = train_ads(ctx, rows, CONTENT, pins, QUICK)
    assert part.model == MODEL
    assert part.space == SPACE
    for arm in ("", "mixed/", "separate/", "logistic/"):
        assert 0 < part.metrics[f"{arm}auc/click/all"] < 1
    assert part.metrics["positives/click/all"] > 0
    again = train_ads(ctx, rows, CONTENT, pins, QUICK)
    assert again.version == part.version
    registry = Registry(ctx.mlflow_uri, ctx.mlflow_artifacts)
    card = registry.version(MODEL, part.version).description
    for said in ("| separate | ", "error before Platt", "shared tower"):
        assert said in card
    model = AdsModel.load(registry.download(MODEL, part.version))
    test = read_examples(rows, Lake(ctx.lake), pins, split_of(rows.info).test)
    p = model.score(test.rows, test.sources)
    assert ((p >= 0) & (p <= 1)).all()


def test_a_model_no_better_than_a_coin_prices_nothing() -> None:
    part = Part(model=MODEL, version=2, metrics={"auc/click/all": LEAST_AUC - 0.01})
    assert "needs an AUC" in (shortfall(part) or "")
    assert "nothing" in (shortfall(replace_metrics(part, {})) or "")
    assert shortfall(replace_metrics(part, {"auc/click/all": 0.7})) is None


def replace_metrics(part: Part, metrics: dict[str, float]) -> Part:
    return part.model_copy(update={"metrics": metrics})


def test_what_tuning_left_in_the_home_is_used(ctx: TrainingContext, tmp_path: Path) -> None:
    own = replace(ctx, feast_home=str(tmp_path), seed=3)
    assert training_of(own) == AdsTraining(seed=3)
    (tmp_path / TUNED).write_text(AdsTraining(epochs=9, seed=1).model_dump_json())
    assert training_of(own) == AdsTraining(epochs=9, seed=3)
