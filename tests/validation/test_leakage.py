"""Planted leaks trip, honest features however good do not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from validation.leakage import LabelLeak, check_leaks, leaks

LABELS = ("save", "hide")


def world(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One strong and one useless feature beside two labels."""
    rng = np.random.default_rng(seed)
    strong = rng.normal(size=n)
    labels = np.column_stack([rng.random(n) < 1 / (1 + np.exp(-4 * strong)), rng.random(n) < 0.05]).astype(
        np.int8
    )
    return np.column_stack([strong, rng.normal(size=n)]).astype(np.float32), labels


def test_honest_features_pass():
    values, labels = world()
    assert roc_auc_score(labels[:, 0], values[:, 0]) > 0.9
    check_leaks(("strong", "noise"), values, LABELS, labels)


@pytest.mark.parametrize(
    ("leak", "says"),
    [
        (lambda y: y, "leaked equals label hide"),
        (lambda y: 1 - y, "leaked equals label hide"),
        (lambda y: y * 3.0 + 1, "leaked predicts label hide with AUC 1.0000"),
        (lambda y: np.random.default_rng(1).random(len(y)) - 2.0 * y, "predicts label hide with AUC 1.0000"),
        (lambda y: np.where(y, 5.0, np.nan), "predicts label hide with AUC 1.0000"),
        (lambda y: np.where(y, np.nan, np.random.default_rng(1).random(len(y))), "predicts label hide"),
    ],
)
def test_a_leak_trips_and_is_named(leak, says: str):
    values, labels = world()
    values = np.column_stack([values, leak(labels[:, 1].astype(float))]).astype(np.float32)
    with pytest.raises(LabelLeak, match=f"1 features know.*{says}"):
        check_leaks(("strong", "noise", "leaked"), values, LABELS, labels)


def test_a_leak_with_a_little_noise_is_still_one():
    values, labels = world()
    leaked = labels[:, 1].astype(float)
    leaked[np.flatnonzero(leaked == 0)[:4]] = 1.0
    found = leaks(("strong", "leaked"), np.column_stack([values[:, 0], leaked]), LABELS, labels)
    assert [(leak.feature, leak.label, leak.equal) for leak in found] == [("leaked", "hide", False)]
    assert found[0].auc == pytest.approx(roc_auc_score(labels[:, 1], leaked))
    assert not leaks(("leaked",), leaked[:, None], LABELS, labels, max_auc=0.9999)


def test_a_handful_of_positives_proves_nothing_but_equality():
    values, labels = world()
    labels[:, 1] = 0
    labels[:3, 1] = 1
    lucky = np.where(labels[:, 1], 9.0, values[:, 1])[:, None]
    assert not leaks(("lucky",), lucky, LABELS, labels)
    assert leaks(("same",), labels[:, 1:].astype(np.float32), LABELS, labels)[0].equal


def test_labels_of_one_outcome_are_passed_over():
    values, labels = world()
    labels[:, 1] = 0
    check_leaks(("zero",), np.zeros((len(values), 1), np.float32), LABELS, labels)


def test_blocks_that_do_not_belong_are_named():
    values, labels = world(50)
    with pytest.raises(ValueError, match="one table"):
        leaks(("a", "b"), values[:40], LABELS, labels)
    with pytest.raises(ValueError, match="2 features with 1 names"):
        leaks(("a",), values, LABELS, labels)
