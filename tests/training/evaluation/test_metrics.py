"""Metrics against scikit-learn, and by hand where it has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from training.evaluation import metrics

ROWS = st.integers(0, 2**32 - 1)


def _rows(seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 200))
    score = rng.random(n)
    if ties:
        score = np.round(score, 1) * 0.98 + 0.01
    label = (rng.random(n) < score).astype(int)
    assume(0 < label.sum() < n)
    return label, score, rng.random(n) + 0.1


@settings(max_examples=60, deadline=None)
@given(ROWS, st.booleans(), st.booleans())
def test_ranker_metrics_equal_scikit_learns(seed: int, ties: bool, weighted: bool) -> None:
    label, score, weight = _rows(seed, ties)
    w = weight if weighted else None
    assert metrics.auc(label, score, w) == pytest.approx(sk.roc_auc_score(label, score, sample_weight=w))
    assert metrics.pr_auc(label, score, w) == pytest.approx(
        sk.average_precision_score(label, score, sample_weight=w)
    )
    assert metrics.log_loss(label, score, w) == pytest.approx(sk.log_loss(label, score, sample_weight=w))
    assert metrics.r2(label, score, w) == pytest.approx(sk.r2_score(label, score, sample_weight=w))
    assert metrics.rmse(label, score, w) == pytest.approx(
        np.sqrt(sk.mean_squared_error(label, score, sample_weight=w))
    )


@settings(max_examples=40, deadline=None)
@given(ROWS, st.booleans())
def test_grouped_auc_is_the_mean_of_the_groups(seed: int, ties: bool) -> None:
    label, score, _ = _rows(seed, ties)
    group = np.random.default_rng(seed).integers(10, 15, len(label))
    each, sizes = [], []
    for g in np.unique(group):
        rows = group == g
        if 0 < label[rows].sum() < rows.sum():
            each.append(sk.roc_auc_score(label[rows], score[rows]))
            sizes.append(rows.sum())
    got = metrics.grouped_auc(label, score, group)
    if each:
        assert got == pytest.approx(np.average(each, weights=sizes))
    else:
        assert np.isnan(got)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_ndcg_equals_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hits = rng.random((6, 12)) < 0.3
    hits[:, 0] |= ~hits.any(axis=1)
    # scikit-learn normalises by the relevant items it sees, so all of them are in the list here
    got = metrics.ndcg_at_k(hits, hits.sum(axis=1), 5)
    expected = [sk.ndcg_score([row.astype(int)], [np.arange(12, 0, -1)], k=5) for row in hits]
    np.testing.assert_allclose(got, expected)


def test_lists_by_hand() -> None:
    hits = np.array([[True, False, True], [False, False, False], [False, True, False]])
    relevant = np.array([4, 2, 0])
    np.testing.assert_allclose(metrics.recall_at_k(hits, relevant, 3), [0.5, 0.0, np.nan])
    np.testing.assert_allclose(metrics.hit_rate_at_k(hits, relevant, 1), [1.0, 0.0, np.nan])
    best = 1 + 1 / np.log2(3) + 1 / np.log2(4)
    np.testing.assert_allclose(metrics.ndcg_at_k(hits, relevant, 3), [(1 + 0.5) / best, 0.0, np.nan])


def test_calibration_by_hand() -> None:
    score = np.array([0.1] * 10 + [0.6] * 10)
    label = np.array([1] * 2 + [0] * 8 + [1] * 6 + [0] * 4)
    table = metrics.reliability(label, score, bins=2)
    np.testing.assert_allclose(table.predicted, [0.1, 0.6])
    np.testing.assert_allclose(table.observed, [0.2, 0.6])
    assert metrics.ece(label, score, bins=2) == pytest.approx(0.05)
    assert metrics.calibration_error(label, score) == pytest.approx(7 / 8 - 1)


def test_equal_scores_share_a_bin() -> None:
    label = np.tile([0, 1], 50)
    assert metrics.ece(label, np.full(100, 0.5), bins=10) == pytest.approx(0.0)
    assert len(metrics.reliability(label, np.full(100, 0.5), bins=10).predicted) == 1


def test_a_perfectly_calibrated_score_has_a_small_error() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(200_000)
    label = rng.random(200_000) < score
    assert metrics.ece(label, score) < 0.006
    assert metrics.ece(label, score**2) > 0.1


def test_scores_of_exactly_zero_and_one_have_a_finite_loss() -> None:
    assert np.isfinite(metrics.log_loss([1, 0], np.array([0.0, 1.0], dtype=np.float32)))


@pytest.mark.parametrize("name", ["auc", "pr_auc", "calibration_error"])
def test_what_cannot_be_decided_is_nan(name: str) -> None:
    assert np.isnan(getattr(metrics, name)([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("label", "score", "weight", "match"),
    [
        ([0, 2], [0.1, 0.2], None, "0 or 1"),
        ([0, 1], [0.1, np.nan], None, "1 scores are not finite"),
        ([0, 1], [0.1], None, "one length"),
        ([], [], None, "no rows"),
        ([0, 1], [0.1, 0.2], [-1, 1], "negative"),
    ],
)
def test_bad_rows_are_named(label: list, score: list, weight: list | None, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        metrics.auc(label, score, weight)


def test_a_ranking_shorter_than_k_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 3 items"):
        metrics.recall_at_k(np.zeros((1, 3), dtype=bool), [1], 5)
