"""Rankers: the row they read, the probabilities they give, the files they are kept in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from feature_repo.schema import PIN_SCALARS, USER_SCALARS
from training.models.interactions import INTERACTION_FEATURES
from training.models.pinnability import (
    FeatureSpec,
    GbdtRanker,
    LogisticRanker,
    PinnabilityRanker,
)
from training.models.query_features import QUERY_FEATURES
from training.models.ranker import Candidates, Ranker, Request, load_ranker

U, P, X = len(USER_SCALARS), len(PIN_SCALARS), len(INTERACTION_FEATURES)


def blocks(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.exponential(5, (n, width)).astype(np.float32) for width in (U, P, X))


@pytest.fixture(params=["logistic", "gbdt"])
def ranker(request: pytest.FixtureRequest) -> PinnabilityRanker:
    spec = FeatureSpec(space="content@1")
    width = len(spec.names)
    rng = np.random.default_rng(0)
    if request.param == "logistic":
        weights = rng.standard_normal(width).astype(np.float32) / 10
        return LogisticRanker(
            spec, rng.random(width).astype(np.float32), np.ones(width, np.float32), weights, -1.0, 0.5
        )
    features = rng.exponential(5, (400, width)).astype(np.float32)
    data = xgboost.DMatrix(features, (features[:, 0] > 4).astype(np.float32))
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, data, 10)
    return GbdtRanker(spec, booster, 0.5)


def test_a_row_is_user_then_pin_then_interactions_then_position():
    spec = FeatureSpec(user=("active_days_30d",), pin=("topic_count",), interactions=("weekend",))
    user, pin, both = blocks(3)
    row = spec.assemble(user, pin, both, np.array([4, 5, 6]))
    assert spec.names == ("user_active_days_30d", "pin_topic_count", "weekend", "position")
    np.testing.assert_array_equal(
        row.T,
        [
            user[:, USER_SCALARS.index("active_days_30d")],
            pin[:, PIN_SCALARS.index("topic_count")],
            both[:, INTERACTION_FEATURES.index("weekend")],
            [4, 5, 6],
        ],
    )
    assert row.dtype == np.float32 and row.flags.c_contiguous


def test_one_user_is_the_same_as_that_user_on_every_row():
    spec = FeatureSpec()
    user, pin, both = blocks(5)
    np.testing.assert_array_equal(
        spec.assemble(user[0], pin, both), spec.assemble(np.tile(user[0], (5, 1)), pin, both)
    )


def test_position_is_a_constant_when_serving():
    spec = FeatureSpec(serving_position=2.0)
    user, pin, both = blocks(4)
    assert (spec.assemble(user[0], pin, both)[:, -1] == 2.0).all()
    without = FeatureSpec(position=False)
    assert "position" not in without.names
    assert without.assemble(user[0], pin, both).shape == (4, U + P + X)


def test_the_query_is_read_where_the_spec_says_so_and_is_nothing_on_the_home_feed():
    user, pin, both = blocks(4)
    asked = np.array([[0.5, 1], [0, 1], [1, 1], [0.25, 1]], np.float32)
    spec = FeatureSpec(query=QUERY_FEATURES)
    assert spec.names[-3:] == ("query_match", "on_search", "position")
    np.testing.assert_array_equal(spec.assemble(user[0], pin, both, query=asked)[:, -3:-1], asked)
    assert (spec.assemble(user[0], pin, both)[:, -3:-1] == 0).all()
    blind = FeatureSpec()
    np.testing.assert_array_equal(
        blind.assemble(user[0], pin, both, query=asked), blind.assemble(user[0], pin, both)
    )
    with pytest.raises(ValueError, match="query"):
        spec.assemble(user[0], pin, both, query=asked[:2])


def test_a_spec_from_before_queries_reads_none():
    before = FeatureSpec(query=QUERY_FEATURES).model_dump(exclude={"query"})
    assert FeatureSpec.model_validate(before).query == ()


def test_what_is_missing_counts_as_none():
    user, pin, both = blocks(2)
    pin[1] = np.nan
    row = FeatureSpec().assemble(user[0], pin, both)
    assert np.isfinite(row).all() and (row[1, U : U + P] == 0).all()
    assert np.isnan(pin[1]).all(), "the caller's block is untouched"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda u, p, i: (u[:, :3], p, i), "user_scalars"),
        (lambda u, p, i: (u, p[:, :3], i), "pin_scalars"),
        (lambda u, p, i: (u, p, i[:2]), "interactions"),
        (lambda u, p, i: (u[:1], p, i), "user_scalars"),
    ],
)
def test_a_block_of_the_wrong_shape_is_named(broken, message: str):
    with pytest.raises(ValueError, match=message):
        FeatureSpec().assemble(*broken(*blocks(4)))


def test_unknown_and_repeated_features_are_named():
    with pytest.raises(ValueError, match="unknown pin features"):
        FeatureSpec(pin=("clicks_99d",))
    with pytest.raises(ValueError, match="twice"):
        FeatureSpec(user=("active_days_30d", "active_days_30d"))
    with pytest.raises(ValueError, match="at least one feature"):
        FeatureSpec(user=(), pin=(), interactions=(), position=False)


def test_scores_are_probabilities_and_do_not_depend_on_the_batch(ranker: PinnabilityRanker):
    assert isinstance(ranker, Ranker)
    features = ranker.spec.assemble(*blocks(64))
    scores = ranker.score(features)
    assert scores.shape == (64,) and scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all() and scores.std() > 0
    asked, given = Request.stranger(0), Candidates(np.empty((64, 0), np.float32), features)
    np.testing.assert_array_equal(ranker.score_heads(asked, given), scores[:, None])
    np.testing.assert_allclose(ranker.score(features[10:11]), scores[10:11], rtol=1e-6)
    assert ranker.score(features[:0]).shape == (0,)


def test_files_hold_the_ranker(ranker: PinnabilityRanker, tmp_path: Path):
    ranker.save(tmp_path)
    loaded = load_ranker(tmp_path)
    features = ranker.spec.assemble(*blocks(32))
    np.testing.assert_array_equal(loaded.score(features), ranker.score(features))
    assert loaded.spec == ranker.spec and loaded.heads == ("engage",)
    assert all(p.suffix in {".json", ".safetensors", ".ubj"} for p in tmp_path.iterdir())


def test_a_ranker_of_an_unknown_kind_is_refused(ranker: PinnabilityRanker, tmp_path: Path):
    ranker.save(tmp_path)
    header = json.loads((tmp_path / "ranker.json").read_text())
    (tmp_path / "ranker.json").write_text(json.dumps({**header, "kind": "oracle"}))
    with pytest.raises(ValueError, match="kind"):
        load_ranker(tmp_path)


def test_the_logistic_score_by_hand():
    spec = FeatureSpec(user=(), pin=(), interactions=("weekend",), position=False)
    one = np.ones(1, np.float32)
    ranker = LogisticRanker(spec, mean=one * 0.5, scale=one * 2, weights=one * 3, bias=0.25)
    logit = 3 * (np.log(2) - 0.5) / 2 + 0.25
    assert ranker.score(np.array([[1.0]], np.float32))[0] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-6)
