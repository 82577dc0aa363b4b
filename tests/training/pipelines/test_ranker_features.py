"""Planted rows: a choice is read, a feature that knows a label stops a ranker, drift is measured by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_repo.schema import PIN_SCALARS
from tests.training.evaluation.planted_rows import planted
from tests.training.transact.planted import ACTIONS, world
from training.data.training_set import Block
from training.models.pinnability import FeatureSpec
from training.models.query_features import QUERY_FEATURES
from training.pipelines import ranker_features
from training.pipelines.fitting import NothingToLearn
from training.pipelines.ranker_features import (
    EVERY,
    drift_metrics,
    keep_baseline,
    kept_baseline,
    spec_of,
    vetted,
)
from validation.leakage import LabelLeak

SPEC = FeatureSpec()
TITLE = PIN_SCALARS.index("title_words")


def with_title(block: Block, values: np.ndarray) -> Block:
    """The rows with another `pin_title_words`."""
    scalars = block.pin_scalars.copy()
    scalars[:, TITLE] = values
    return replace(block, pin_scalars=scalars)


@pytest.fixture(scope="module")
def honest() -> Block:
    return world(4000)[0]


def test_a_ranker_reads_what_is_chosen_as_far_as_the_rows_have_it(tmp_path: Path):
    info = planted(tmp_path, days=1, requests=2).info
    asked = info.model_copy(update={"has_query": True})
    assert EVERY.query == QUERY_FEATURES and EVERY.position
    assert spec_of(EVERY, asked) == EVERY.model_copy(update={"space": "content@1"})
    assert spec_of(EVERY, info) == FeatureSpec(space="content@1")
    assert not spec_of(EVERY, info.model_copy(update={"has_position": False})).position
    few = FeatureSpec(user=(), pin=("positives_7d",), interactions=("cos_positive_max",), position=False)
    assert spec_of(few, asked).names == ("pin_positives_7d", "cos_positive_max")
    nothing = FeatureSpec(user=(), pin=(), interactions=(), query=QUERY_FEATURES, position=False)
    with pytest.raises(ValueError, match="at least one feature"):
        spec_of(nothing, info)


def test_a_feature_that_equals_one_heads_label_stops_the_ranker(honest: Block):
    hides = ACTIONS.index("hide")
    says = rf"1 features know.*pin_title_words equals label hide \(bound 0.999, {len(honest)} rows\)"
    with pytest.raises(LabelLeak, match=says):
        vetted(with_title(honest, honest.labels[:, hides]), ACTIONS, SPEC)


def test_a_feature_that_nearly_determines_the_label_stops_it_too(honest: Block):
    noisy = honest.label * 5 + np.random.default_rng(0).random(len(honest))
    with pytest.raises(LabelLeak, match="pin_title_words predicts label engage with AUC 1"):
        vetted(with_title(honest, noisy), ACTIONS, SPEC)


def test_honest_rows_pass_and_leave_a_baseline_beside_the_files(
    honest: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert kept_baseline(tmp_path) is None
    keep_baseline(None, tmp_path)
    assert not list(tmp_path.iterdir())
    baseline = vetted(honest, ACTIONS, SPEC)
    keep_baseline(baseline, tmp_path)
    assert kept_baseline(tmp_path) == baseline and baseline.rows == len(honest)
    assert tuple(f.name for f in baseline.features) == SPEC.names
    monkeypatch.setattr(ranker_features, "SAMPLE_ROWS", 500)
    assert vetted(honest, ACTIONS, SPEC).rows == 500


def test_no_rows_are_named():
    with pytest.raises(NothingToLearn, match="no rows"):
        vetted(world(50)[0].take(np.arange(0)), ACTIONS, SPEC)


def test_drift_is_of_the_feature_that_moved(honest: Block):
    """Half in each of two values, then a quarter and three quarters: PSI = ln(3) / 4."""
    row = np.arange(len(honest))
    baseline = vetted(with_title(honest, row % 2), ACTIONS, SPEC)
    same = drift_metrics(baseline, SPEC, with_title(honest, row % 2))
    assert same == {"ranker/max_drift": 0.0, "ranker/drift_rows": len(honest)}
    moved = drift_metrics(baseline, SPEC, with_title(honest, row % 4 > 0))
    by_hand = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)
    assert moved["ranker/max_drift"] == pytest.approx(by_hand) and by_hand > ranker_features.WARNING
    assert set(moved) == {"ranker/max_drift", "ranker/drift_rows", "ranker/drift/pin_title_words"}


def test_the_calendar_is_no_drift(honest: Block):
    names, interactions = SPEC.interactions, honest.interactions.copy()
    interactions[:, names.index("weekend")] = 9.0
    baseline = vetted(honest, ACTIONS, SPEC)
    assert drift_metrics(baseline, SPEC, replace(honest, interactions=interactions))["ranker/max_drift"] == 0
