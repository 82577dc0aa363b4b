"""AUC by user: its mean is the AUC, its error is that of drawing users anew."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.auc_by_user import auc_by_user
from training.evaluation.metrics import auc
from training.evaluation.spread import Spread, difference


def rows(users: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Labels, two scores and whose each row is; a user's rows rise and fall together."""
    owner = np.repeat(np.arange(users), rng.integers(1, 12, users))
    liking = rng.normal(size=users)[owner]
    label = (rng.normal(size=len(owner)) + liking > 0.7).astype(np.int8)
    good = np.round(liking + label + rng.normal(size=len(owner)), 1)  # ties
    return label, good, good + rng.normal(size=len(owner)), owner


def test_its_mean_is_the_auc() -> None:
    label, score, _, owner = rows(200, np.random.default_rng(0))
    parts = auc_by_user(label, score, owner + 1000)
    assert parts.shape == (200,) and parts.mean() == pytest.approx(auc(label, score), abs=1e-12)
    assert np.isnan(auc_by_user(np.ones(3), np.arange(3), np.arange(3))).all()


def test_its_error_is_that_of_other_users() -> None:
    """Both of one ranker and of the difference of two."""
    drawn = [rows(200, np.random.default_rng(seed)) for seed in range(200)]
    parts = [[auc_by_user(label, s, owner) for s in scores] for label, *scores, owner in drawn]
    own = [Spread.of(a[None]) for a, _ in parts]
    gaps = [difference(a[None], b[None]) for a, b in parts]
    for found in (own, gaps):
        told = np.mean([spread.error for spread in found]) / 1.96
        assert told == pytest.approx(np.std([spread.mean for spread in found]), rel=0.15)
