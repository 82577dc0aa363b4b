"""The fits against scikit-learn, planted weights, and populations whose rates are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from sklearn.linear_model import LogisticRegression

from training.evaluation.metrics import auc, ece
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import FeatureSpec, standardise
from training.pipelines.fitting import (
    GbdtConfig,
    LogisticConfig,
    NothingToLearn,
    Rows,
    fit_gbdt,
    fit_logistic,
    thin_negatives,
)

SPEC = FeatureSpec(user=(), pin=(), interactions=INTERACTION_FEATURES[:6], position=False)


def rows(n: int, seed: int = 0, base: float = -1.0) -> tuple[Rows, NDArray[np.float64]]:
    """Rows whose log odds are linear in the features, and their true probabilities."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, 6)).astype(np.float32)
    features[:, 5] = 3.0  # a constant column must do no harm
    weights = np.array([1.5, -1.0, 0.5, 0.0, 0.0, 0.0])
    logit = np.sign(features) * np.log1p(np.abs(features)) @ weights + base
    probability = 1 / (1 + np.exp(-logit))
    label = (rng.random(n) < probability).astype(np.float32)
    return Rows(features, label, np.ones(n, np.float32)), probability


def test_logistic_finds_what_scikit_learn_finds():
    train, _ = rows(5000)
    ours = fit_logistic(train, SPEC, LogisticConfig(l2=1e-3))
    x = standardise(train.features, ours.mean, ours.scale)
    theirs = LogisticRegression(C=1 / (1e-3 * len(train)), tol=1e-8, max_iter=1000).fit(x, train.label)
    np.testing.assert_allclose(ours.weights, theirs.coef_[0], atol=2e-3)
    np.testing.assert_allclose(ours.score(train.features), theirs.predict_proba(x)[:, 1], atol=2e-3)


def test_logistic_weights_rows():
    train, _ = rows(2000)
    doubled = Rows(*(np.concatenate([a, a[:500]]) for a in (train.features, train.label, train.weight)))
    weighted = Rows(train.features, train.label, np.where(np.arange(2000) < 500, 2, 1).astype(np.float32))
    config = LogisticConfig()
    np.testing.assert_allclose(
        fit_logistic(doubled, SPEC, config).score(train.features),
        fit_logistic(weighted, SPEC, config).score(train.features),
        atol=1e-3,
    )


@pytest.mark.parametrize("kind", ["logistic", "gbdt"])
def test_scores_are_calibrated_probabilities(kind: str):
    train, _ = rows(20_000)
    test, probability = rows(20_000, seed=1)
    validation, _ = rows(5000, seed=2)
    ranker = (
        fit_logistic(train, SPEC, LogisticConfig())
        if kind == "logistic"
        else fit_gbdt(train, validation, SPEC, GbdtConfig(threads=1), seed=0)
    )
    score = ranker.score(test.features)
    assert auc(test.label, score) > auc(test.label, probability) - 0.015
    assert ece(test.label, score) < 0.02


@pytest.mark.parametrize("kind", ["logistic", "gbdt"])
def test_thinned_negatives_leave_the_scale_of_scores(kind: str):
    train, _ = rows(40_000, base=-3.0)
    test, _ = rows(20_000, seed=1, base=-3.0)
    validation, _ = rows(8000, seed=2, base=-3.0)
    thinned = thin_negatives(train, 0.2, seed=0)
    assert thinned.label.sum() == train.label.sum()
    assert len(thinned) - thinned.label.sum() == pytest.approx(0.2 * (len(train) - train.label.sum()), rel=0.05)
    if kind == "logistic":
        ranker = fit_logistic(thinned, SPEC, LogisticConfig(), negative_rate=0.2)
    else:
        held = thin_negatives(validation, 0.2, seed=1)
        ranker = fit_gbdt(thinned, held, SPEC, GbdtConfig(threads=1), seed=0, negative_rate=0.2)
    score = ranker.score(test.features)
    assert score.mean() == pytest.approx(test.label.mean(), rel=0.1)
    assert ece(test.label, score) < 0.02


def test_trees_learn_what_a_line_cannot():
    rng = np.random.default_rng(0)
    features = rng.uniform(-1, 1, (8000, 6)).astype(np.float32)
    label = ((features[:, 0] > 0) != (features[:, 1] > 0)).astype(np.float32)
    everything = Rows(features, label, np.ones(8000, np.float32))
    half = Rows(features[:4000], label[:4000], everything.weight[:4000])
    trees = fit_gbdt(half, everything, SPEC, GbdtConfig(threads=1), seed=0)
    assert auc(label[4000:], trees.score(features[4000:])) > 0.97
    assert auc(label[4000:], fit_logistic(half, SPEC, LogisticConfig()).score(features[4000:])) < 0.6


def test_trees_stop_when_validation_stops_getting_better():
    train, _ = rows(300)
    validation, _ = rows(3000, seed=1)
    config = GbdtConfig(rounds=400, patience=5, min_child_weight=0, threads=1)
    assert fit_gbdt(train, validation, SPEC, config, seed=0).booster.num_boosted_rounds() < 100


def test_equal_seeds_give_equal_trees():
    train, _ = rows(2000)
    config = GbdtConfig(rounds=10, threads=1)
    first, second = (fit_gbdt(train, train, SPEC, config, seed=3).score(train.features) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_one_outcome_only_is_named():
    train, _ = rows(100)
    nothing = Rows(train.features, np.zeros(100, np.float32), train.weight)
    with pytest.raises(NothingToLearn, match="100 rows with 0 positives"):
        fit_logistic(nothing, SPEC, LogisticConfig())
    with pytest.raises(NothingToLearn, match="100 rows with 0 positives"):
        fit_gbdt(train, nothing, SPEC, GbdtConfig(), seed=0)
    weighs = replace(train, weight=train.label)
    with pytest.raises(NothingToLearn, match=f"{int(train.label.sum())} rows with"):
        fit_logistic(weighs, SPEC, LogisticConfig())


@pytest.mark.parametrize(("kind", "name"), [(LogisticConfig, "l2"), (GbdtConfig, "min_child_weight")])
def test_settings_are_finite(kind: type[BaseModel], name: str):
    with pytest.raises(ValidationError, match="finite number"):
        kind.model_validate({name: float("inf")})
