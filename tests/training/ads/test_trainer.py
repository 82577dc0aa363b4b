"""Towers tell sources apart, curves restore the thinned rate, and what the data lacks is named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.ads.planted import planted_ads
from training.ads.baselines import ARMS, MIXED, SEPARATE, TOWERS, run_arm
from training.ads.evaluation import ALL, flat, measure, table
from training.ads.trainer import AdsTraining, NothingToLearn, calibrated, layout_of, thinned, train_model
from training.data.splits import Interval, TimeSplit
from training.evaluation import metrics
from training.models.ads.config import SHARED
from training.models.ads.model import AdsModel
from training.models.calibration import CalibrationMismatch, Platt
from training.pipelines.ads import card

TRAINING = AdsTraining(epochs=7, learning_rate=5e-3, negative_rate=0.5)
TRAIN, VALIDATION, TEST = (planted_ads(seed=s) for s in (1, 2, 3))


@pytest.fixture(scope="module")
def model() -> AdsModel:
    return train_model(TRAIN, VALIDATION, TRAINING, name="ads_multi_tower@1")


def test_every_source_and_head_is_foretold(model: AdsModel) -> None:
    p = model.score(TEST.rows, TEST.sources)
    labels = TEST.of(model.heads)
    assert model.heads == ("click", "long_click", "hide")
    assert model.network.config.sources == ("shopping", "standard")
    for source in model.network.config.sources:
        rows = TEST.sources == source
        assert (
            metrics.auc(labels[rows, 0], p[rows, 0]) > 0.75
        )  # of 0.82 that the planted law itself would reach
        assert abs(metrics.calibration_error(labels[rows, 0], p[rows, 0])) < 0.2
    assert metrics.auc(labels[:, 1], p[:, 1]) > 0.7


def test_thinned_negatives_are_paid_back(model: AdsModel) -> None:
    raw = model.raw(TEST.rows, TEST.sources)
    labels = TEST.of(model.heads)
    assert metrics.calibration_error(labels[:, 0], raw[:, 0]) > 0.2  # as many clicks as among the thinned
    after = model.calibrated(raw, TEST.sources)
    assert abs(metrics.calibration_error(labels[:, 0], after[:, 0])) < 0.15
    kept = thinned(TRAIN, model.heads, 0.5, 1)
    assert kept[TRAIN.of(model.heads).any(axis=1)].all()
    assert 0.45 < kept[~TRAIN.of(model.heads).any(axis=1)].mean() < 0.55


def test_an_unknown_source_is_answered_by_the_shared_tower(model: AdsModel) -> None:
    few = TEST.take(np.arange(50))
    stranger = np.full(50, "video")
    p = model.score(few.rows, stranger)
    assert model.towers(["video", "standard"]).tolist() == [2, 1]
    assert np.isfinite(p).all()
    own = model.raw(few.rows, stranger)
    np.testing.assert_allclose(p, model.calibrators[SHARED].calibrate(own))


def test_equal_seeds_give_equal_weights(model: AdsModel) -> None:
    again = train_model(TRAIN, VALIDATION, TRAINING, name="ads:planted")
    for one, other in zip(
        model.network.state_dict().values(), again.network.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    other = train_model(
        TRAIN, VALIDATION, TRAINING.model_copy(update={"seed": 8, "epochs": 1}), name="ads:planted"
    )
    assert not torch.equal(model.network.bottom.weight, other.network.bottom.weight)


def test_a_model_comes_back_with_its_curves(model: AdsModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    again = AdsModel.load(tmp_path)
    assert again.name == "ads_multi_tower@1"
    np.testing.assert_array_equal(again.score(TEST.rows, TEST.sources), model.score(TEST.rows, TEST.sources))


def test_curves_of_another_version_are_refused(model: AdsModel, tmp_path: Path) -> None:
    quick = TRAINING.model_copy(update={"epochs": 1})
    model.save(tmp_path / "1")
    train_model(TRAIN, VALIDATION, quick, name="ads_multi_tower@2").save(tmp_path / "2")
    assert AdsModel.load(tmp_path / "2").name == "ads_multi_tower@2"
    shutil.copy(tmp_path / "1" / "calibration.json", tmp_path / "2")
    with pytest.raises(CalibrationMismatch, match="is for ads_multi_tower@1, not ads_multi_tower@2"):
        AdsModel.load(tmp_path / "2")


def test_a_source_of_few_rows_takes_the_curve_of_all(model: AdsModel) -> None:
    """Or its bids would be weighed by probabilities that nothing corrects, beside some that are."""
    sources = VALIDATION.sources.astype("U20")
    few = np.flatnonzero((sources == "standard") & (VALIDATION.of(["click"])[:, 0] == 1))[:20]
    sources[few] = "video"
    mended = calibrated(model, replace(VALIDATION, sources=sources), TRAINING)
    own, shared = mended.calibrators["video"], mended.calibrators[SHARED]
    assert [h.curve for h in own.heads] == [h.curve for h in shared.heads]
    assert isinstance(shared.heads[0].curve, Platt)
    assert set(own.fallbacks) == set(model.heads)
    assert own.fallbacks["click"].endswith("the curve of 6000 impressions of all sources stands in")
    day = [datetime(2026, 3, d, tzinfo=UTC) for d in range(1, 5)]
    split = TimeSplit(*map(Interval, day[:3], day[1:]))
    said = card({TOWERS: ()}, {}, mended, split)
    assert f"No curve of its own, video: {own.fallbacks['click']}." in said
    none = calibrated(model, VALIDATION.take(few), TRAINING)
    assert "pass as they are" in none.calibrators["standard"].fallbacks["click"], "all sources have too few"


def test_a_head_nobody_used_is_left_out_and_named() -> None:
    labels = TRAIN.labels.copy()
    labels[:, 4] = 0
    layout = layout_of(replace(TRAIN, labels=labels), TRAINING)
    assert layout.heads == ("click", "long_click")
    assert layout.left_out == {"hide": "no hide among 6000 training rows"}


def test_a_small_source_shares_the_tower_and_is_named() -> None:
    sources = TRAIN.sources.copy().astype("U20")
    sources[:40] = "video"
    layout = layout_of(replace(TRAIN, sources=sources), TRAINING)
    assert layout.sources == ("shopping", "standard")
    assert "clicks in training, a tower needs 30" in layout.fallbacks["video"]


def test_nothing_clicked_is_nothing_to_learn() -> None:
    with pytest.raises(NothingToLearn, match="6000 impressions of ads with 0 of click"):
        layout_of(replace(TRAIN, labels=np.zeros_like(TRAIN.labels)), TRAINING)
    with pytest.raises(ValueError, match="no actions"):
        TRAIN.of(["buy"])


def test_arms_are_measured_alike() -> None:
    """Where sources contradict each other, a tower each is worth a model each, and one for all is not."""
    layout = layout_of(TRAIN, TRAINING)
    training = TRAINING.model_copy(update={"epochs": 5})
    found = {
        arm: measure(TEST, run_arm(arm, TRAIN, VALIDATION, TEST, training, layout), layout.heads)
        for arm in ARMS
    }
    auc = {
        arm: next(r.auc for r in rows if (r.source, r.head) == (ALL, "click")) for arm, rows in found.items()
    }
    assert auc[TOWERS] > auc["logistic"] + 0.05  # which has one slope for both sources
    assert auc[TOWERS] > auc[SEPARATE] - 0.03
    assert auc[TOWERS] > auc[MIXED] + 0.03  # the same network without towers
    numbers = flat(found, TOWERS)
    assert numbers["auc/click/all"] == auc[TOWERS]
    assert numbers["mixed/auc/click/all"] == auc[MIXED]
    assert len(table(found).splitlines()) == 2 + len(ARMS) * 9
    one = found[TOWERS][0]
    assert one.days
    errors = [abs(after) for _, _, after in one.days]
    assert one.error_after == pytest.approx(np.mean(errors))
    with pytest.raises(ValueError, match="unknown arm"):
        run_arm("magic", TRAIN, VALIDATION, TEST, training, layout)
